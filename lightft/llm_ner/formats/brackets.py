"""The text again with ``[Antonio Kandir](PER)`` for each entity."""

from __future__ import annotations

import re

from lightft.llm_ner.formats.answer_format import FORMATS
from lightft.llm_ner.formats.inline import InlineFormat

__all__ = ["BRACKETS"]

BRACKETS = InlineFormat(
    name="brackets",
    tag=re.compile(r"(?P<opens>)\[|\]\((?P<closes>[^()\[\]\n]{1,100})\)"),
    opening=lambda label: "[",
    closing=lambda label: f"]({label})",
    forbidden="()[]\n",
    sentence="Answer with the text again, word for word, each entity written as {mention}, and nothing else.",
    slip=re.compile(r"\][ \t]+\((?P<closes>[^()\[\]\n]{1,100})\)"),
)
"""Mentions in brackets with the type in parentheses behind them, as links are written in Markdown."""

FORMATS.add("brackets", BRACKETS)
