"""Entities from a language model that writes them."""

from lightft.llm_ner.extractor import Document, LLMNERExtractor

__all__ = ["Document", "LLMNERExtractor"]
