"""Runs that differ in the seed alone, summarised."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from lightft.comparison.records import ComparisonRow, MetricInfo, SeedGroup
from lightft.records import Run

__all__ = ["seed_groups_of"]

_PER_RUN_SETTINGS = frozenset({"model.seed", "training.seed", "training.output_dir"})


def seed_groups_of(runs: Sequence[Run], rows: Sequence[ComparisonRow], headline: MetricInfo) -> tuple[SeedGroup, ...]:
    """Return the groups of two or more seeds among the runs, whose rows come in the same order."""
    alike: dict[str, list[ComparisonRow]] = {}
    for run, row in zip(runs, rows, strict=True):
        settings = {name: value for name, value in row.settings.items() if name not in _PER_RUN_SETTINGS}
        # A run that says nothing about how it came to be is like no other.
        key = json.dumps([run.task, settings], sort_keys=True, default=str) if settings else f"only {row.name}"
        alike.setdefault(key, []).append(row)
    groups = [group for group in alike.values() if len({row.seed for row in group}) > 1]
    return tuple(_summary(group, headline) for group in groups)


def _summary(rows: Sequence[ComparisonRow], headline: MetricInfo) -> SeedGroup:
    names = [row.name for row in rows]
    scores = np.array([row.scores[headline.name].value for row in rows])
    return SeedGroup(
        name=_shared_beginning(names) or names[0],
        runs=tuple(names),
        mean=float(scores.mean()),
        deviation=float(scores.std(ddof=1)),
        lowest=float(scores.min()),
        highest=float(scores.max()),
    )


def _shared_beginning(names: Sequence[str]) -> str:
    """Return ``lora`` for ``lora-seed0`` and ``lora-seed1``."""
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in columns)
    separators = "-_ .(="
    return shared.rstrip(separators).removesuffix("seed").rstrip(separators)
