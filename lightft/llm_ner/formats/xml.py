"""The text again with ``<PER>Antonio Kandir</PER>`` for each entity."""

from __future__ import annotations

import re

from lightft.llm_ner.formats.answer_format import FORMATS
from lightft.llm_ner.formats.inline import InlineFormat

__all__ = ["XML"]

XML = InlineFormat(
    name="xml",
    tag=re.compile(r"<(?P<opens>[^<>/\n][^<>/\n]{0,99})>|</(?P<closes>[^<>/\n]{1,100})>"),
    opening=lambda label: f"<{label}>",
    closing=lambda label: f"</{label}>",
    forbidden="<>/\n",
    sentence="Answer with the text again, word for word, each entity written as {mention}, and nothing else.",
)
"""Mentions between tags named after the type. The text itself is not escaped: ``&`` and ``<`` stay as they are."""

FORMATS.add("xml", XML)
