"""What every report says about how its numbers came to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lightft.comparison import Comparison
from lightft.wording import MISSING, percent_words

__all__ = ["how_it_was_measured", "settings_in_common", "settings_that_differ", "versions_of"]

_INTERVALS = {
    "bca": "bias-corrected and accelerated (BCa) bootstrap",
    "percentile": "percentile bootstrap",
}
_CORRECTIONS = {
    "holm": "Holm's method",
    "benjamini-hochberg": "the method of Benjamini and Hochberg",
}


def how_it_was_measured(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (term, words) pairs: the test set, the statistics and the seeds."""
    test_set = comparison.test_set
    lines = [
        ("Test set", test_set.source or "the runs do not say"),
        ("Examples", _examples(comparison)),
        ("Fingerprint", test_set.fingerprint or MISSING),
        ("Task", comparison.task),
        ("Intervals", _intervals(comparison)),
    ]
    if any(difference.test for difference in comparison.differences):
        lines.append(("Tests", _tests(comparison)))
    lines.append(("Seeds", _seeds(comparison)))
    return lines


def versions_of(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what the runs say of versions and device; where they disagree, every value with its runs."""
    flat = {row.name: _flat(row.environment) for row in comparison.rows}
    lines = []
    for name in dict.fromkeys(name for environment in flat.values() for name in environment):
        runs_of: dict[str, list[str]] = {}
        for row in comparison.rows:
            runs_of.setdefault(flat[row.name].get(name, MISSING), []).append(row.name)
        if len(runs_of) == 1:
            lines.append((name, next(iter(runs_of))))
        else:
            lines.append((name, "; ".join(f"{value} ({', '.join(runs)})" for value, runs in runs_of.items())))
    return lines


def settings_that_differ(comparison: Comparison) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the names of the settings in which the runs differ, and (run, its values), ``–`` where it has none."""
    differing = [name for name in _setting_names(comparison) if len(_values(comparison, name)) > 1]
    # Where a run was written is no setting of it.
    differing = [name for name in differing if name != "training.output_dir"]
    rows = [
        (row.name, [_setting_words(row.settings[name]) if name in row.settings else MISSING for name in differing])
        for row in comparison.ranked()
    ]
    return differing, rows


def settings_in_common(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (setting, value) for the settings that are the same in all runs."""
    return [
        (name, _setting_words(comparison.rows[0].settings[name]))
        for name in _setting_names(comparison)
        if len(_values(comparison, name)) == 1
    ]


def _examples(comparison: Comparison) -> str:
    test_set = comparison.test_set
    if not test_set.left_out:
        return f"{test_set.examples:,}"
    left_out = ", ".join(f"{count:,} of {name}" for name, count in test_set.left_out.items())
    return f"{test_set.examples:,} that all runs have; left out: {left_out}"


def _intervals(comparison: Comparison) -> str:
    made = [f"runs by {_INTERVALS[comparison.intervals]} over examples"]
    if any(method.seeds > 1 for method in comparison.methods):
        made.append("means over seeds, and their differences, by Student's t over seeds and examples")
    if any(comparison.method(one.a).seeds == comparison.method(one.b).seeds == 1 for one in comparison.differences):
        made.append("differences between single runs by paired percentile bootstrap")
    counts: dict[int, list[str]] = {}
    for metric in comparison.metrics:
        counts.setdefault(metric.resamples, []).append(metric.name)
    drawn = [
        f"{', '.join(names)}: {f'{count:,} resampled test sets' if count else 'none'}"
        for count, names in counts.items()
    ]
    return f"{percent_words(comparison.level)}; {'; '.join([*made, *drawn])}; seed {comparison.seed}"


def _tests(comparison: Comparison) -> str:
    tests = dict.fromkeys(difference.test for difference in comparison.differences if difference.test)
    count = len(comparison.differences)
    correction = f", adjusted by {_CORRECTIONS[comparison.correction]} for {count} comparisons" if count > 1 else ""
    return (
        f"{', '.join(tests)}, two-sided, on {comparison.headline}{correction}; better or worse needs an adjusted p below "
        f"{1 - comparison.level:.3g} and an interval without 0"
    )


def _seeds(comparison: Comparison) -> str:
    seeds = sorted({row.seed for row in comparison.rows})
    return f"training {', '.join(map(str, seeds))}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = _setting_words(value)
    return flat


def _setting_names(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(name for row in comparison.rows for name in row.settings))


def _values(comparison: Comparison, name: str) -> set[str]:
    return {_setting_words(row.settings[name]) if name in row.settings else MISSING for row in comparison.rows}


def _setting_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting_words, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, default=str)
