"""Finding the dictionary or list in an answer: among words, in a code fence, or cut off in the middle."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightft.llm_ner.formats.answer_format import Reading, outcome_of
from lightft.llm_ner.formats.grounding import ground
from lightft.llm_ner.formats.quoted import Tokens

__all__ = ["Found", "read_structure"]


@dataclass(frozen=True)
class Found:
    """What one dictionary or list says.

    Attributes:
        mentions: ``(type, mention)``, in the order written.
        is_one: whether it has the parts of the format, so that it is the answer.
        is_empty: whether it says that there are no entities.
        strange: whether something in it has no meaning in the format.
    """

    mentions: list[tuple[str, str]]
    is_one: bool
    is_empty: bool
    strange: bool


def read_structure(
    text: str, answer: str, labels: Sequence[str], openers: str, mentions_of: Callable[[Tokens], Found]
) -> Reading:
    """Return what the first structure that begins with one of ``openers`` says; an empty one counts if there is no other."""
    opening = re.compile(f"[{re.escape(openers)}]")
    empty: Tokens | None = None
    position = 0
    while (begin := opening.search(answer, position)) is not None:
        tokens = Tokens(answer, begin.start())
        found = mentions_of(tokens)
        if found.is_one:
            spans, ungrounded = ground(text, found.mentions, labels)
            repaired = found.strange or bool(answer[: begin.start()].strip() or tokens.rest.strip())
            outcome = outcome_of(ungrounded=bool(ungrounded), truncated=not tokens.closed, repaired=repaired)
            return Reading(spans, ungrounded, outcome)
        if found.is_empty and tokens.closed:
            empty = empty or tokens
        position = tokens.end
    if empty is not None:
        around = answer.strip() != answer[empty.start : empty.end]
        return Reading((), (), "repaired" if around else "ok")
    return Reading((), (), "refused")
