"""What every registered report must keep, ours or another package's."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import lightft.reports
from lightft.comparison import Comparison, compare_runs
from lightft.reports import REPORTS
from tests.made_up_runs import classification_run, generation_run, made_up_history, tagging_run

# These hold what reports share; each other file of the folder is a report.
SHARED_FILES = {"report", "method", "pictures"}


def comparison_with_gaps() -> Comparison:
    """Return three runs, one without cost, one without probabilities, one without history."""
    alpha = classification_run("run-alpha", skill=0.2, examples=40, cost={"train_seconds": 12.0})
    beta = classification_run("run-beta", skill=0.4, examples=40, history=made_up_history("accuracy"))
    gamma = classification_run("run-gamma", skill=0.6, examples=40)
    gamma = replace(gamma, predictions=tuple(replace(one, probabilities=None) for one in gamma.predictions))
    return compare_runs([alpha, beta, gamma], resamples=50)


def comparison_of_tags() -> Comparison:
    return compare_runs([tagging_run(f"tags-{n}", skill=n / 4, examples=40) for n in (1, 2, 3)], resamples=50)


def comparison_of_texts() -> Comparison:
    return compare_runs([generation_run("texts-one", skill=0.5, examples=40)], resamples=50)


COMPARISONS = (comparison_with_gaps, comparison_of_tags, comparison_of_texts)


@pytest.mark.parametrize("name", sorted(REPORTS))
@pytest.mark.parametrize("make", COMPARISONS)
def test_every_run_and_metric_name_appears(name: str, make: Callable[[], Comparison]) -> None:
    comparison = make()
    text = REPORTS[name](comparison)
    for row in comparison.rows:
        assert row.name in text
    for metric in comparison.metrics:
        assert metric.name in text


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_missing_values_are_shown_as_a_dash(name: str) -> None:
    text = REPORTS[name](comparison_with_gaps())
    assert "–" in text
    assert not re.search(r"\b(nan|None|null|undefined)\b", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_report_ends_with_one_line_break(name: str) -> None:
    text = REPORTS[name](comparison_of_tags())
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_name_is_a_suffix_that_save_understands(name: str, tmp_path: Path) -> None:
    comparison = comparison_of_tags()
    path = comparison.save(tmp_path / f"report.{name}")
    assert path.read_text(encoding="utf-8") == REPORTS[name](comparison)


def test_every_file_of_the_folder_is_a_report() -> None:
    files = {module.name for module in pkgutil.iter_modules(lightft.reports.__path__)} - SHARED_FILES
    registered = {REPORTS[name].__module__.rpartition(".")[2] for name in REPORTS}
    assert files == registered
