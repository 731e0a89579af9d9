"""What every report must keep, of whatever task and however much of the runs is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightft.comparison import Comparison, compare_runs
from lightft.contracts.made_up_runs import classification_run, generation_run, made_up_history, tagging_run
from lightft.records import Example
from lightft.reports import REPORTS


def comparison_with_gaps() -> Comparison:
    """Return three runs, one without cost, one without probabilities, one without history."""
    alpha = classification_run("run-alpha", skill=0.2, examples=40, cost={"train_seconds": 12.0})
    beta = classification_run("run-beta", skill=0.4, examples=40, history=made_up_history("accuracy"))
    gamma = classification_run("run-gamma", skill=0.6, examples=40)
    gamma = replace(gamma, predictions=tuple(replace(one, probabilities=None) for one in gamma.predictions))
    return compare_runs([alpha, beta, gamma], resamples=50)


def comparison_of_tags() -> Comparison:
    """Return three runs that differ in skill."""
    return compare_runs([tagging_run(f"tags-{n}", skill=n / 4, examples=40) for n in (1, 2, 3)], resamples=50)


def comparison_of_seeds() -> Comparison:
    """Return a method of two seeds, one of a single seed, and the texts of the test set."""
    model = {"name": "made-up"}
    runs = [tagging_run(f"twice-{n}", skill=0.5 + n / 9, examples=40, seed=n, model=model) for n in (1, 2)]
    runs.append(tagging_run("once-1", skill=0.7, examples=40, model=model, adapter={"kind": "lora"}))
    examples = [Example(one.id, "abcde " * 12, one.gold, words=one.words) for one in runs[0].predictions]
    return compare_runs(runs, resamples=50, examples=examples)


def comparison_of_texts() -> Comparison:
    """Return a run that has nothing to be compared with."""
    return compare_runs([generation_run("texts-one", skill=0.5, examples=40)], resamples=50)


def text_of(report_name: str, comparison: Comparison) -> str:
    """Return what a report writes; a report of bytes is skipped, for nothing general can be said of them."""
    written = REPORTS[report_name](comparison)
    if isinstance(written, bytes):
        pytest.skip(f"a .{report_name} is not text")
    return written


def unescaped(text: str) -> str:
    r"""Return a text without the backslashes that some formats put before punctuation, as in ``span\_f1``."""
    return re.sub(r"\\(?=[^\w\s]|_)", "", text)


@pytest.mark.parametrize("make", [comparison_with_gaps, comparison_of_tags, comparison_of_seeds, comparison_of_texts])
def test_every_run_and_metric_name_appears(report_name: str, make: Callable[[], Comparison]) -> None:
    comparison = make()
    text = unescaped(text_of(report_name, comparison))
    assert [row.name for row in comparison.rows if row.name not in text] == []
    assert [metric.name for metric in comparison.metrics if metric.name not in text] == []


def test_missing_values_are_shown_as_a_dash(report_name: str) -> None:
    text = text_of(report_name, comparison_with_gaps())
    assert "–" in text
    assert not re.search(r"\b(nan|None|null|undefined)\b", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


def test_equal_comparisons_give_equal_reports(report_name: str) -> None:
    assert REPORTS[report_name](comparison_of_tags()) == REPORTS[report_name](comparison_of_tags())


def test_report_ends_with_one_line_break(report_name: str) -> None:
    text = text_of(report_name, comparison_of_tags())
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_name_is_a_suffix_that_save_understands(report_name: str, tmp_path: Path) -> None:
    comparison = comparison_of_tags()
    path = comparison.save(tmp_path / f"report.{report_name}")
    expected = REPORTS[report_name](comparison)
    assert path.read_bytes() == (expected.encode() if isinstance(expected, str) else expected)
