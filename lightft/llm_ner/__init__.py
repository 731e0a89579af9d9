"""Entities from a language model that writes them."""

from lightft.llm_ner.extractor import Document, LLMNERExtractor
from lightft.llm_ner.formats import FORMATS, OUTCOMES, AnswerFormat, Reading
from lightft.llm_ner.instruction_data import build_instruction_data, write_instruction_data, x_ray
from lightft.llm_ner.prompts import PROMPTS, Prompt

__all__ = [
    "FORMATS",
    "OUTCOMES",
    "PROMPTS",
    "AnswerFormat",
    "Document",
    "LLMNERExtractor",
    "Prompt",
    "Reading",
    "build_instruction_data",
    "write_instruction_data",
    "x_ray",
]
