"""Answer formats: how a language model is asked to write entities down, and how what it wrote is read."""

from lightft.llm_ner.formats import brackets, categories, objects, xml
from lightft.llm_ner.formats.answer_format import FORMATS, OUTCOMES, AnswerFormat, Reading, register

__all__ = [
    "FORMATS",
    "OUTCOMES",
    "AnswerFormat",
    "Reading",
    "brackets",
    "categories",
    "objects",
    "register",
    "xml",
]
