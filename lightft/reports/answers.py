"""Examples with gold and given answers as a page shows them: entities marked in the text, runs of one answer together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lightft.comparison import ComparedExample, Comparison
from lightft.comparison.examples import is_right
from lightft.records import Span, Target

__all__ = ["ShownExample", "ShownLine", "ShownPiece", "shown_examples"]

_COLOURS = 7
"""How many colours the page has for types; with more types a colour comes again, and the type's name tells."""


@dataclass(frozen=True)
class ShownPiece:
    """A piece of text; with a type it is an entity or a class.

    Attributes:
        text: what is shown.
        type: the entity type; ``""`` for plain text.
        colour: of the type.
        wrong: whether the answer is not the gold one.
        remark: what a reader sees who points at it.
    """

    text: str
    type: str = ""
    colour: int = 0
    wrong: bool = False
    remark: str = ""


@dataclass(frozen=True)
class ShownLine:
    """An answer, and who gave it.

    Attributes:
        who: ``"text"``, ``"gold"`` or names of runs.
        everyone: all the names.
        right: whether it is the gold answer; None for the text and the gold answer itself.
        pieces: one after the other.
        missed: gold entities that it lacks.
    """

    who: str
    everyone: str
    right: bool | None
    pieces: tuple[ShownPiece, ...]
    missed: tuple[ShownPiece, ...] = ()


@dataclass(frozen=True)
class ShownExample:
    """An example with all its answers.

    Attributes:
        id: of the example.
        kind: whether the runs disagree, all are wrong, or all are right.
        types: numbers of the types that occur in it, as they stand in the list of types.
        right: how many runs are right.
        runs: how many runs there are.
        lines: the gold answer and those of the runs.
    """

    id: str
    kind: Literal["divided", "wrong", "right"]
    types: tuple[int, ...]
    right: int
    runs: int
    lines: tuple[ShownLine, ...]


def shown_examples(comparison: Comparison, most_letters: int = 500_000) -> tuple[list[ShownExample], list[str]]:
    """Return the examples as a page shows them, and the types that occur in them.

    Args:
        comparison: with examples.
        most_letters: how much text is shown; the examples after it are left out, which the page says.
    """
    classes = {label for row in comparison.rows if row.confusion is not None for label in row.confusion.labels}
    types = _types_of(comparison.examples, classes)
    number_of = {label: number for number, label in enumerate(types)}
    shown: list[ShownExample] = []
    letters = 0
    for example in comparison.examples:
        one = _shown_example(example, number_of)
        # A mark or a line takes about as much of the file as so many letters.
        letters += sum(50 + len(piece.text) for line in one.lines for piece in line.pieces)
        if letters > most_letters and shown:
            break
        shown.append(one)
    return shown, types


def _types_of(examples: Sequence[ComparedExample], classes: Set[str]) -> list[str]:
    """Return the entity types or classes that occur; what else a language model may have answered is text."""
    seen: set[str] = set()
    for example in examples:
        for target in (example.gold, *example.predicted.values()):
            if not isinstance(target, str):
                seen.update(span.label for span in target)
            elif target in classes:
                seen.add(target)
    return sorted(seen)


def _shown_example(example: ComparedExample, number_of: Mapping[str, int]) -> ShownExample:
    answers = [example.gold, *example.predicted.values()]
    if isinstance(example.gold, str):
        lines = _text_lines(example, number_of)
        occurring = {number_of[answer] for answer in answers if isinstance(answer, str) and answer in number_of}
    else:
        lines = _span_lines(example, number_of)
        occurring = {number_of[span.label] for answer in answers for span in _spans(answer)}
    runs = len(example.predicted)
    return ShownExample(
        id=example.id,
        kind="wrong" if example.right == 0 else "right" if example.right == runs else "divided",
        types=tuple(sorted(occurring)),
        right=example.right,
        runs=runs,
        lines=tuple(lines),
    )


def _text_lines(example: ComparedExample, number_of: Mapping[str, int]) -> Iterable[ShownLine]:
    def answered(answer: Target, right: bool) -> tuple[ShownPiece, ...]:
        text = answer if isinstance(answer, str) else ", ".join(f"{span.label} {span.text or ''}" for span in answer)
        if answer in number_of:
            return (ShownPiece("", type=text, colour=number_of[text] % _COLOURS, wrong=not right),)
        return (ShownPiece(_shortened(text)),)

    yield ShownLine("text", "", None, (ShownPiece(_shortened(example.text)),))
    yield ShownLine("gold", "", None, answered(example.gold, True))
    for answer, names in _by_answer(example.predicted):
        right = is_right(example.gold, answer)
        yield ShownLine(_some_of(names), ", ".join(names), right, answered(answer, right))


def _span_lines(example: ComparedExample, number_of: Mapping[str, int]) -> Iterable[ShownLine]:
    gold = _spans(example.gold)
    everything = {*gold, *(span for answer in example.predicted.values() for span in _spans(answer))}
    # All lines leave out the same stretches, so that they can be read one below the other.
    stretches = _kept_stretches(example.text, everything)
    for pieces in _marked(example.text, stretches, gold, (), number_of):
        yield ShownLine("gold", "", None, pieces)
    for answer, names in _by_answer(example.predicted):
        spans = _spans(answer)
        missed = tuple(
            ShownPiece(_entity_words(example.text, span), span.label, number_of[span.label] % _COLOURS)
            for span in sorted(set(gold) - set(spans))
        )
        wrong = set(spans) - set(gold)
        for place, pieces in enumerate(_marked(example.text, stretches, spans, wrong, number_of)):
            yield ShownLine(
                _some_of(names),
                ", ".join(names),
                is_right(example.gold, answer),
                pieces,
                missed if place == 0 else (),
            )


def _marked(
    text: str,
    stretches: Sequence[tuple[int, int]],
    spans: Sequence[Span],
    wrong: Iterable[Span],
    number_of: Mapping[str, int],
) -> list[tuple[ShownPiece, ...]]:
    """Return the text with its entities marked, once, and once more for entities that overlap those marked before."""
    return [tuple(_pieces(text, stretches, layer, frozenset(wrong), number_of)) for layer in _layers(spans)]


def _pieces(
    text: str,
    stretches: Sequence[tuple[int, int]],
    layer: Sequence[Span],
    wrong: frozenset[Span],
    number_of: Mapping[str, int],
) -> Iterable[ShownPiece]:
    position = 0
    for span in layer:
        yield ShownPiece(_kept(text, position, span.start, stretches))
        yield ShownPiece(
            text[span.start : span.end],
            type=span.label,
            colour=number_of[span.label] % _COLOURS,
            wrong=span in wrong,
            remark="not a gold entity" if span in wrong else "",
        )
        position = span.end
    yield ShownPiece(_kept(text, position, len(text), stretches))


def _layers(spans: Iterable[Span]) -> list[list[Span]]:
    """Return the spans in as few lists as it takes for none to overlap another of its list; one list at least."""
    layers: list[list[Span]] = [[]]
    for span in sorted(set(spans), key=lambda one: (one.start, -one.end, one.label)):
        layer = next((layer for layer in layers if not layer or layer[-1].end <= span.start), None)
        if layer is None:
            layers.append([span])
        else:
            layer.append(span)
    return layers


_LONGEST_STRETCH = 240
_AROUND = 90


def _kept_stretches(text: str, spans: Iterable[Span]) -> list[tuple[int, int]]:
    """Return the parts of a text that are shown: all of it but the middles of long stretches without an entity."""
    covered = [(0, 0), *sorted((span.start, span.end) for span in spans), (len(text), len(text))]
    left_out = []
    end = 0
    for (_, before), (start, _) in pairwise(covered):
        end = max(end, before)
        if start - end > _LONGEST_STRETCH:
            left_out.append((end + (_AROUND if end else 0), start - (_AROUND if start < len(text) else 0)))
    # A text without an entity is shown by its beginning.
    if left_out == [(0, len(text))]:
        left_out = [(2 * _AROUND, len(text))]
    edges = [0, *(edge for part in left_out for edge in part), len(text)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _kept(text: str, start: int, end: int, stretches: Sequence[tuple[int, int]]) -> str:
    """Return ``text[start:end]`` with … for what is not shown of it."""
    kept = [text[max(start, first) : min(end, last)] for first, last in stretches if first < end and last > start]
    shown = " … ".join(kept)
    if start == 0 and stretches[0][1] == 0 and end > 0:
        shown = f"… {shown}"
    if end == len(text) and stretches[-1][0] == len(text) and start < end:
        shown = f"{shown} …"
    return shown


def _by_answer(predicted: Mapping[str, Target]) -> list[tuple[Target, list[str]]]:
    """Return each answer with the names of the runs that gave it, in the order of the runs."""
    runs_of: dict[str | frozenset[Span], tuple[Target, list[str]]] = {}
    for name, answer in predicted.items():
        key = answer if isinstance(answer, str) else frozenset(answer)
        runs_of.setdefault(key, (answer, []))[1].append(name)
    return list(runs_of.values())


def _some_of(names: Sequence[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _spans(target: Target) -> tuple[Span, ...]:
    return () if isinstance(target, str) else target


def _entity_words(text: str, span: Span) -> str:
    return _shortened(text[span.start : span.end], 60)


def _shortened(text: str, most: int = 1200) -> str:
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … {text[-half:]}"
