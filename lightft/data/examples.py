"""Rows of all splits become examples: one tagging scheme, one set of labels, unique ids, and a count of every loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightft.data.readers import Row
from lightft.data.rows import Parsed, Shape, Unusable, parse
from lightft.errors import DataError, UnknownNameError, suggest
from lightft.records import Example, Span
from lightft.spans import detect_scheme, join_words, spans_to_tags, split_tag, split_words, tags_to_spans

__all__ = ["Examples", "Wanted", "build_examples"]

Wanted = Sequence[str] | Mapping[str, str | None] | None
"""The labels asked for: those to keep, or new names by old name (None drops), or None for all as they are."""


@dataclass(frozen=True)
class Examples:
    """Examples of each split with what they share and what was lost on the way."""

    splits: dict[str, list[Example]]
    labels: tuple[str, ...]
    notes: dict[str, Any] = field(default_factory=dict)


def build_examples(
    rows: Mapping[str, Sequence[Row]],
    shape: Shape,
    class_names: Mapping[str, tuple[str, ...]],
    wanted: Wanted,
    only: Mapping[str, str],
) -> Examples:
    """Turn the rows of all splits into examples.

    Args:
        rows: by split.
        shape: how they are laid out.
        class_names: by column, the names of its numbered classes or tags.
        wanted: the labels asked for.
        only: rows are kept where these columns have these values.

    Raises:
        DataError: a row is malformed, or no usable row is left.
        UnknownNameError: ``wanted`` names a label that the data does not have.
    """
    dropped: dict[str, Counter[str]] = {split: Counter() for split in rows}
    parsed: dict[str, list[tuple[str, Parsed]]] = {split: [] for split in rows}
    ids = _ids(rows)
    for split, split_rows in rows.items():
        for identity, row in zip(ids[split], split_rows, strict=True):
            found = _other_value(row, only) or parse(row, shape, class_names)
            if isinstance(found, Unusable):
                dropped[split][found.reason] += 1
            else:
                parsed[split].append((identity, found))
    if shape.task == "causal-lm":
        built = Examples({split: [_plain_example(*item) for item in items] for split, items in parsed.items()}, ())
    elif shape.task == "text-classification":
        built = _classified(parsed, _known(class_names, shape.columns["label"]), wanted, dropped)
    else:
        built = _with_spans(parsed, _known(class_names, shape.columns.get("tags", "")), wanted)
    _refuse_if_empty(rows, built, dropped)
    if any(dropped.values()):
        built.notes["dropped_rows"] = {split: dict(reasons) for split, reasons in dropped.items() if reasons}
    return built


def _ids(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Return the rows' own ids where every row has one and no two share it, else split and number of each row."""
    own = [row.fields.get("id") for split_rows in rows.values() for row in split_rows]
    usable = all(isinstance(value, str | int) for value in own)
    if usable and len({str(value) for value in own}) == len(own):
        return {split: [str(row.fields["id"]) for row in split_rows] for split, split_rows in rows.items()}
    return {split: [f"{split}-{number}" for number in range(len(split_rows))] for split, split_rows in rows.items()}


def _other_value(row: Row, only: Mapping[str, str]) -> Unusable | None:
    for column, value in only.items():
        if row.fields.get(column, value) != value:
            return Unusable(f"{column} is not {value!r}")
    return None


def _known(class_names: Mapping[str, tuple[str, ...]], column: str) -> list[str]:
    return list(class_names.get(column, ()))


def _refuse_if_empty(rows: Mapping[str, Sequence[Row]], built: Examples, dropped: Mapping[str, Counter[str]]) -> None:
    if any(built.splits.values()):
        return
    reasons = ", ".join(f"{count} {reason}" for counts in dropped.values() for reason, count in counts.items())
    first = next(row for split_rows in rows.values() for row in split_rows)
    raise DataError(f"No row can be used of those from {first.place} on: {reasons}.")


# --- texts with a class, texts to write


def _plain_example(identity: str, row: Parsed) -> Example:
    return Example(identity, row.text, row.answer, context=row.context)


def _classified(
    parsed: Mapping[str, Sequence[tuple[str, Parsed]]],
    known: Sequence[str],
    wanted: Wanted,
    dropped: Mapping[str, Counter[str]],
) -> Examples:
    seen = {str(row.answer) for items in parsed.values() for _, row in items}
    renamed, labels = _rename([*known, *sorted(seen - set(known), key=_numbers_first)], wanted)
    splits: dict[str, list[Example]] = {}
    for split, items in parsed.items():
        splits[split] = []
        for identity, row in items:
            label = renamed[str(row.answer)]
            if label is None:
                dropped[split]["class not among the labels asked for"] += 1
            else:
                splits[split].append(Example(identity, row.text, label))
    return Examples(splits, labels)


def _numbers_first(label: str) -> tuple[bool, int, str]:
    return (not label.isdecimal(), int(label) if label.isdecimal() else 0, label)


def _rename(found: Sequence[str], wanted: Wanted) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the new name of each label found (None: not wanted), and the new labels in order."""
    if wanted is None:
        return {label: label for label in found}, tuple(found)
    unknown = [label for label in wanted if label not in found]
    if unknown:
        raise UnknownNameError(f"The data has no label {unknown[0]!r}. {suggest(unknown[0], found)}")
    if isinstance(wanted, Mapping):
        renamed = {label: wanted.get(label, label) for label in found}
        return renamed, tuple(dict.fromkeys(label for label in renamed.values() if label is not None))
    return {label: label if label in wanted else None for label in found}, tuple(dict.fromkeys(wanted))


# --- entities


def _with_spans(
    parsed: Mapping[str, Sequence[tuple[str, Parsed]]], known_tags: Sequence[str], wanted: Wanted
) -> Examples:
    notes: dict[str, Any] = {}
    if any(row.tokens is not None for items in parsed.values() for _, row in items):
        splits = _from_tags(parsed, notes)
    else:
        splits = {split: [_plain_example(*item) for item in items] for split, items in parsed.items()}
        between = sum(len(spans_to_tags(_spans(example), split_words(example.text))[1]) for example in _all(splits))
        notes["spans_between_words"] = between
    # Bare prefixes ("B", "I") have the type "_"; "O" is no type.
    known = list(dict.fromkeys(label for _, label in map(split_tag, known_tags) if label))
    seen = {span.label for example in _all(splits) for span in _spans(example)}
    renamed, labels = _rename([*known, *sorted(seen - set(known))], wanted)
    outside = sum(renamed[span.label] is None for example in _all(splits) for span in _spans(example))
    if outside:
        notes["spans_set_to_outside"] = outside
    if wanted is not None:
        splits = {split: [_relabelled(example, renamed) for example in examples] for split, examples in splits.items()}
    return Examples(splits, labels, notes)


def _from_tags(parsed: Mapping[str, Sequence[tuple[str, Parsed]]], notes: dict[str, Any]) -> dict[str, list[Example]]:
    """Read tags leniently, as the authors of invalid tags meant them, and count the entities that this repairs."""
    scheme = _common_scheme([row for items in parsed.values() for _, row in items])
    splits: dict[str, list[Example]] = {}
    repaired = 0
    for split, items in parsed.items():
        splits[split] = []
        for identity, row in items:
            text, words = join_words(row.tokens or ())
            spans = tags_to_spans(row.tags, words, text, scheme, lenient=True)
            repaired += len(spans) - len(tags_to_spans(row.tags, words, text, scheme))
            splits[split].append(Example(identity, text, spans, words=words))
    notes["tagging_scheme"] = scheme
    notes["repaired_tags"] = repaired
    return splits


def _common_scheme(rows: Sequence[Parsed]) -> str:
    try:
        return detect_scheme(row.tags for row in rows)
    except DataError as cause:
        place, reason = rows[-1].place, cause
    # The rows up to the one that breaks the scheme agree, and no more rows mend it: search by halves.
    agreed, broken = 0, len(rows)
    while broken - agreed > 1:
        middle = (agreed + broken) // 2
        try:
            detect_scheme(row.tags for row in rows[:middle])
            agreed = middle
        except DataError as cause:
            place, reason, broken = rows[middle - 1].place, cause, middle
    raise DataError(f"{place}: {reason}") from reason


def _relabelled(example: Example, renamed: Mapping[str, str | None]) -> Example:
    spans = (
        Span(span.start, span.end, label, text=span.text)
        for span in _spans(example)
        if (label := renamed[span.label]) is not None
    )
    return replace(example, target=tuple(spans))


def _spans(example: Example) -> tuple[Span, ...]:
    return example.target if isinstance(example.target, tuple) else ()


def _all(splits: Mapping[str, Sequence[Example]]) -> list[Example]:
    return [example for examples in splits.values() for example in examples]
