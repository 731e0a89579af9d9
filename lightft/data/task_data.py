"""A data set ready for a task: three splits of examples, and an account of how they came about."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lightft.errors import InvalidSettingError, suggest
from lightft.records import Example, Target

__all__ = [
    "SPLITS",
    "TASKS",
    "TaskData",
    "compared_text",
    "count_duplicates",
    "examples_fingerprint",
    "normalised_text",
]

TASKS = ("causal-lm", "text-classification", "token-classification")

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskData:
    """A data set for one task.

    Attributes:
        task: one of ``TASKS``.
        source: where it was read from, as it was asked for.
        labels: the classes, or the entity types (without BIO prefixes); empty for causal-lm.
        train: examples to learn from.
        validation: examples to choose the best epoch by.
        test: examples to score on; empty where the source has none.
        notes: what happened on the way, as JSON data: ``files`` and ``rows`` per split, ``tagging_scheme``,
            ``repaired_tags``, ``dropped_rows`` and why, ``duplicates``, ``validation_from``, ``test_from``, ….
    """

    task: str
    source: str
    labels: tuple[str, ...]
    train: tuple[Example, ...] = field(repr=False)
    validation: tuple[Example, ...] = field(repr=False)
    test: tuple[Example, ...] = field(repr=False)
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the examples of all splits: equal data, equal fingerprint, on any machine."""
        digests = (f"{split}:{self.split_fingerprint(split)}\n" for split in SPLITS)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def split_fingerprint(self, split: str) -> str:
        """Return the SHA-256 over id, text, target and context of each example of one split, in order.

        Raises:
            InvalidSettingError: ``split`` is none of train, validation and test.
        """
        return examples_fingerprint(self.split(split))

    def split(self, name: str) -> tuple[Example, ...]:
        """Return the examples of ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            InvalidSettingError: there is no such split.
        """
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise InvalidSettingError(f"There is no split {name!r}. {suggest(name, splits)}")
        return splits[name]

    def head(self, train: int | None = None, validation: int | None = None, test: int | None = None) -> TaskData:
        """Return a smaller copy for quick tries: the first rows of each split, all of it where None is given.

        The copy has its own fingerprint, and says in ``notes["head"]`` that it is one.
        """
        sizes = dict(zip(SPLITS, (train, validation, test), strict=True))
        for split, size in sizes.items():
            if size is not None and size < 0:
                raise InvalidSettingError(f"head({split}={size}): give a number of rows, 0 or more, or None for all.")
        kept = {split: self.split(split)[:size] for split, size in sizes.items()}
        notes = {
            **self.notes,
            "rows": {split: len(examples) for split, examples in kept.items()},
            "head": {split: len(kept[split]) for split, size in sizes.items() if size is not None},
            "duplicates": duplicates_between_splits(kept),
        }
        return replace(self, train=kept["train"], validation=kept["validation"], test=kept["test"], notes=notes)

    def __str__(self) -> str:
        sizes = ", ".join(f"{split} {len(self.split(split)):,}" for split in SPLITS)
        lines = [f"{self.source}: {self.task}", f"  rows: {sizes}"]
        if self.labels:
            shown = ", ".join(self.labels[:12]) + (", …" if len(self.labels) > 12 else "")
            lines.append(f"  labels ({len(self.labels)}): {shown}")
        lines.extend(f"  {line}" for line in _remarks(self.notes))
        lines.append(f"  fingerprint: {self.fingerprint[:16]}")
        return "\n".join(lines)


def examples_fingerprint(examples: Iterable[Example]) -> str:
    """Return the SHA-256 over id, text, target and context of each example, in order."""
    digest = hashlib.sha256()
    for example in examples:
        content: list[Any] = [example.id, example.text, _plain(example.target)]
        if example.context:
            content.append([[message.role, message.content] for message in example.context])
        digest.update(json.dumps(content).encode() + b"\n")
    return digest.hexdigest()


def count_duplicates(train: Sequence[Example], other: Sequence[Example]) -> dict[str, Any]:
    """Count the examples of ``other`` whose text also stands in ``train``.

    Such examples can be answered from memory, so a score on them says little about new text. The text of a
    causal-lm example is its prompt, or the whole text where there is no prompt.

    Returns:
        ``exact``: examples with the same text; ``normalised``: with the same text but for case, white space and
        punctuation (includes the exact ones); ``first``: up to five pairs ``[id in other, id in train]``.
    """
    exact_ids = _first_ids(train, compared_text)
    normalised_ids = _first_ids(train, normalised_text)
    exact = sum(compared_text(example) in exact_ids for example in other)
    pairs = [
        [example.id, exact_ids.get(compared_text(example), normalised_ids[normalised_text(example)])]
        for example in other
        if normalised_text(example) in normalised_ids
    ]
    return {"exact": exact, "normalised": len(pairs), "first": pairs[:5]}


def duplicates_between_splits(splits: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    """Return ``count_duplicates`` of train against each other split that has examples."""
    return {split: count_duplicates(splits["train"], splits[split]) for split in SPLITS[1:] if splits[split]}


def compared_text(example: Example) -> str:
    """Return the text by which two examples are the same input."""
    if not example.text and isinstance(example.target, str):
        return example.target
    return "\n".join([*(message.content for message in example.context), example.text])


def normalised_text(example: Example) -> str:
    """Return ``compared_text`` without case, punctuation, and differences of white space."""
    text = unicodedata.normalize("NFKC", compared_text(example)).casefold()
    # Where there is nothing but punctuation, "!!!" and "?" are still two texts.
    return " ".join(_APART.split(text)).strip() or " ".join(text.split())


_APART = re.compile(r"[\W_]+")


def _first_ids(examples: Iterable[Example], key: Callable[[Example], str]) -> dict[str, str]:
    ids: dict[str, str] = {}
    for example in examples:
        ids.setdefault(key(example), example.id)
    return ids


def _plain(target: Target | None) -> Any:
    if target is None or isinstance(target, str):
        return target
    return [[span.start, span.end, span.label] for span in target]


def _remarks(notes: Mapping[str, Any]) -> list[str]:
    """Return the notes that a reader should see, one line each."""
    remarks = []
    if "head" in notes:
        remarks.append("only the first rows: " + ", ".join(f"{split} {n:,}" for split, n in notes["head"].items()))
    if "tagging_scheme" in notes:
        repaired = notes.get("repaired_tags", 0)
        remarks.append(
            f"tagging scheme: {notes['tagging_scheme']}" + (f", {repaired:,} tags repaired" if repaired else "")
        )
    remarks.extend(notes[key] for key in ("validation_from", "test_from") if key in notes)
    for split, reasons in notes.get("dropped_rows", {}).items():
        remarks.extend(f"dropped from {split}: {count:,} rows, {reason}" for reason, count in reasons.items())
    for key, wording in _COUNTED.items():
        if notes.get(key):
            remarks.append(f"{notes[key]:,} {wording}")
    for split, labels in notes.get("labels_not_in_train", {}).items():
        remarks.append(f"labels of {split} that train never shows: {', '.join(labels)}")
    for split, found in notes.get("duplicates", {}).items():
        if found["normalised"]:
            remarks.append(
                f"warning: texts of {split} that also stand in train: {found['exact']:,} "
                f"({found['normalised']:,} apart from case, spaces and punctuation)"
            )
    return remarks


_COUNTED = {
    "spans_set_to_outside": "spans set to O, their types are not among the labels asked for",
    "spans_between_words": "spans that start or end inside a word or overlap another: BIO tags cannot hold them",
}
