"""Decoding under constraints: a model writes only what the answer format and the text allow."""

from lightft.llm_ner.decoding.constrained import ConstrainedAnswer, ConstrainedDecoder, EntityScore
from lightft.llm_ner.decoding.guided import GuidedAnswer, GuidedDecoder
from lightft.llm_ner.decoding.token_bytes import TokenBytes

__all__ = ["ConstrainedAnswer", "ConstrainedDecoder", "EntityScore", "GuidedAnswer", "GuidedDecoder", "TokenBytes"]
