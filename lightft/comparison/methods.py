"""Runs that differ in the seed alone are one method."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from lightft.comparison.measuring import MeasuredMetric
from lightft.comparison.records import Method
from lightft.comparison.rows import chosen_settings, flat_settings
from lightft.errors import InvalidSettingError, suggest
from lightft.records import Run
from lightft.significance import seeds_interval

__all__ = ["method_named", "methods_of"]


def methods_of(runs: Sequence[Run], headline: MeasuredMetric, level: float) -> tuple[Method, ...]:
    """Return the methods in the order of their first runs.

    Args:
        runs: with unique names.
        headline: the metric whose mean, interval and spread they get.
        level: confidence of the intervals.
    """
    groups = _alike(runs)
    names = _names(groups)
    return tuple(_method(name, group, headline, level) for name, group in zip(names, groups, strict=True))


def method_named(name: str, methods: Sequence[Method]) -> Method:
    """Return the method that has a name, or a run of that name.

    Raises:
        InvalidSettingError: there is none.
    """
    for method in methods:
        if name in (method.name, *method.runs):
            return method
    known = [known for method in methods for known in (method.name, *method.runs)]
    raise InvalidSettingError(f"No run named {name!r} to be the baseline. {suggest(name, known)}")


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs in groups of equal settings and different seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_all_but_the_seed(run), []).append(run)
    # The same seed twice is the same training twice and no evidence of how seeds vary.
    apart = [[group] if _seeds_differ(group) else [[run] for run in group] for group in groups.values()]
    order = {run.name: place for place, run in enumerate(runs)}
    return sorted((group for groups in apart for group in groups), key=lambda group: order[group[0].name])


def _all_but_the_seed(run: Run) -> str:
    settings = chosen_settings(flat_settings(run))
    # A run that says nothing about how it came to be is like no other.
    if not settings:
        return f"only {run.name}"
    learned_from = {key: run.data.get(key) for key in ("source", "rows")}
    return json.dumps([run.task, settings, learned_from], sort_keys=True, default=str)


def _seeds_differ(runs: Sequence[Run]) -> bool:
    return len({run.seed for run in runs}) == len(runs)


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return what the names of each group's runs begin with, or the first run's name where that does not tell them apart."""
    names = [_shared_beginning([run.name for run in group]) for group in groups]
    return [
        name if name and names.count(name) == 1 else group[0].name for name, group in zip(names, groups, strict=True)
    ]


def _shared_beginning(names: Sequence[str]) -> str:
    """Return ``lora`` for ``lora-seed0`` and ``lora-seed1``, and a single name as it is."""
    if len(names) == 1:
        return names[0]
    columns = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in columns)
    separators = "-_ .(=/"
    return shared.rstrip(separators).removesuffix("seed").rstrip(separators)


def _method(name: str, runs: Sequence[Run], headline: MeasuredMetric, level: float) -> Method:
    values = np.array([headline.scores[run.name].value for run in runs])
    interval = headline.scores[runs[0].name].interval
    if len(runs) > 1 and headline.resampled:
        interval = seeds_interval(values, _resampled(runs, headline.resampled), level=level).interval
        if headline.info.unit == "fraction":
            # Beyond 0 and 1 there are no scores, though a t interval over few seeds reaches there.
            interval = replace(interval, low=max(0.0, interval.low), high=min(1.0, interval.high))
    return Method(
        name=name,
        runs=tuple(run.name for run in runs),
        mean=float(values.mean()),
        interval=interval,
        deviation=float(values.std(ddof=1)) if len(runs) > 1 else math.nan,
        lowest=float(values.min()),
        highest=float(values.max()),
    )


def _resampled(runs: Sequence[Run], resampled: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.array([resampled[run.name] for run in runs])
