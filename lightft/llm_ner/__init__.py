"""Entities from a language model that writes them."""

from lightft.llm_ner.confidence import Calibration, span_scores_of_answer
from lightft.llm_ner.documents import Document
from lightft.llm_ner.engines import Answer, Engine, InProcess, OpenAIServer, Question
from lightft.llm_ner.extractor import LLMNERExtractor
from lightft.llm_ner.files.extraction import FileResult, extract_file
from lightft.llm_ner.files.page import write_page
from lightft.llm_ner.formats import FORMATS, OUTCOMES, AnswerFormat, Reading
from lightft.llm_ner.instruction_data import build_instruction_data, write_instruction_data, x_ray
from lightft.llm_ner.prompts import PROMPTS, Prompt

__all__ = [
    "FORMATS",
    "OUTCOMES",
    "PROMPTS",
    "Answer",
    "AnswerFormat",
    "Calibration",
    "Document",
    "Engine",
    "FileResult",
    "InProcess",
    "LLMNERExtractor",
    "OpenAIServer",
    "Prompt",
    "Question",
    "Reading",
    "build_instruction_data",
    "extract_file",
    "span_scores_of_answer",
    "write_instruction_data",
    "write_page",
    "x_ray",
]
