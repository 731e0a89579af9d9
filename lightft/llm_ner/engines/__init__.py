"""Engines: what answers the questions about texts."""

from lightft.llm_ner.engines.engine import Answer, Engine, Question
from lightft.llm_ner.engines.in_process import DECODINGS, InProcess
from lightft.llm_ner.engines.server import OpenAIServer

__all__ = ["DECODINGS", "Answer", "Engine", "InProcess", "OpenAIServer", "Question"]
