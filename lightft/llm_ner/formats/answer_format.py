"""What an answer format is: the words that ask for it, the answer that teaches it, and a reader of any answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from lightft.errors import InvalidPluginError
from lightft.records import Span
from lightft.registry import Registry

__all__ = ["FORMATS", "OUTCOMES", "AnswerFormat", "Reading", "outcome_of", "register", "usable_spans"]

OUTCOMES = ("ok", "repaired", "ungrounded", "truncated", "refused", "failed")
"""What can become of an answer, from best to worst; an answer that is several of them is called by the worst.

========== ==========================================================================================
ok         read as it stands
repaired   words around it, a code fence, an unclosed or misspelt tag, or a changed text that could be aligned
ungrounded some mentions were set aside: the text does not hold them, or their type was not asked for
truncated  it ends in the middle, or where the model had to stop
refused    nothing of the format is in it
failed     there is no answer: the engine gave an error
========== ==========================================================================================
"""


@dataclass(frozen=True)
class Reading:
    """What an answer says about a text.

    Attributes:
        spans: in order, without doubles; ``text[start:end]`` is what the model wrote, and ``label`` was asked for.
        ungrounded: ``(type, mention)`` of what was set aside.
        outcome: one of ``OUTCOMES``.
    """

    spans: tuple[Span, ...]
    ungrounded: tuple[tuple[str, str], ...]
    outcome: str


@runtime_checkable
class AnswerFormat(Protocol):
    """A way of writing the entities of a text into an answer, and of reading them out of any answer."""

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    def instruction(self, labels: Sequence[str]) -> str:
        """Return the sentence that asks for an answer of this format.

        Raises:
            InvalidSettingError: a type cannot be written in this format.
        """
        ...

    def write(self, text: str, spans: Sequence[Span]) -> tuple[str, tuple[Span, ...]]:
        """Return the answer that teaches these entities, and the spans that it cannot hold."""
        ...

    def read(self, text: str, answer: str, labels: Sequence[str]) -> Reading:
        """Return what any answer says about ``text``: total, and in time linear in the lengths of both."""
        ...


def _validated(name: str, plugin: AnswerFormat) -> AnswerFormat:
    missing = [part for part in ("name", "instruction", "write", "read") if part not in dir(plugin)]
    if missing:
        raise InvalidPluginError(
            f"Answer format {name!r} has no {', '.join(missing)}. Register an object with name, instruction, write and read."
        )
    if plugin.name != name:
        raise InvalidPluginError(
            f"The answer format registered as {name!r} calls itself {plugin.name!r}. Use one name."
        )
    return plugin


FORMATS: Registry[AnswerFormat] = Registry("llm_ner.formats", "answer format", _validated)
"""Every answer format by name; other packages' come through the entry-point group ``lightft.llm_ner.formats``."""

register = FORMATS.register
"""Decorator that registers a format; ``FORMATS.add(name, format)`` registers a ready object."""


def usable_spans(text: str, spans: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Return the spans that lie in the text, in order and each once, and those that do not."""
    inside = {span for span in spans if 0 <= span.start < span.end <= len(text)}
    ordered = sorted(inside, key=lambda span: (span.start, -span.end, span.label))
    return ordered, sorted(set(spans) - inside)


def outcome_of(*, ungrounded: bool, truncated: bool, repaired: bool) -> str:
    """Return the worst outcome that holds, of an answer in which something of the format was found."""
    if truncated:
        return "truncated"
    if ungrounded:
        return "ungrounded"
    return "repaired" if repaired else "ok"
