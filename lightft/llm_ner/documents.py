"""Document: a text with its entities and an account of how they were found."""

from __future__ import annotations

from dataclasses import dataclass

from lightft.records import Span

__all__ = ["Document"]


@dataclass(frozen=True)
class Document:
    """The entities of one text.

    Attributes:
        text: as it was given.
        spans: entities that stand in the text: ``text[start:end]`` is what the model wrote.
        ungrounded: ``(type, mention)`` pairs that the model wrote but the text does not hold, or of an unknown type.
        outcome: ``"ok"``, ``"repaired"``, ``"ungrounded"``, ``"truncated"``, ``"refused"`` or ``"failed"``; see
            ``lightft.llm_ner.OUTCOMES``. Of several windows, the worst.
        answers: what the model wrote, for each window of the text; nobody is asked about blank ones.
        error: why a window has no answer; empty where all have one.
        doubtful: entities that were found but are not sure enough for the precision that is asked for, or have no score
            to tell.
    """

    text: str
    spans: tuple[Span, ...]
    ungrounded: tuple[tuple[str, str], ...]
    outcome: str
    answers: tuple[str, ...]
    error: str = ""
    doubtful: tuple[Span, ...] = ()
