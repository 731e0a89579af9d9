"""Carries a recipe out: reads the data, trains what is missing, compares, and writes the reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from lightft.data import TaskData, load_data
from lightft.data.splits import cut, rows_wanted
from lightft.data.task_data import duplicates_between_splits
from lightft.errors import DataError, TrackingError
from lightft.recipe.parts import RecipeData
from lightft.recipe.recipe import Recipe
from lightft.tracking import log_report

if TYPE_CHECKING:
    from lightft.sweeping.plan import SweepPlan
    from lightft.sweeping.result import SweepResult

__all__ = ["data_of", "run_recipe"]


@overload
def run_recipe(
    recipe: Recipe | str | Path,
    *,
    data: str | None = None,
    output_dir: str | Path | None = None,
    dry_run: Literal[False] = False,
    say: Callable[[str], None] = print,
) -> SweepResult: ...


@overload
def run_recipe(
    recipe: Recipe | str | Path,
    *,
    data: str | None = None,
    output_dir: str | Path | None = None,
    dry_run: Literal[True],
    say: Callable[[str], None] = print,
) -> SweepPlan: ...


def run_recipe(
    recipe: Recipe | str | Path,
    *,
    data: str | None = None,
    output_dir: str | Path | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> SweepResult | SweepPlan:
    """Train what a recipe asks for and is not finished yet, compare the runs, and write the reports.

    Args:
        recipe: a recipe, or the path of its YAML file.
        data: where the data are on this machine, in the place of the recipe's source.
        output_dir: where the runs are written, in the place of the recipe's folder.
        dry_run: train nothing and return the plan.
        say: is given what happens, line by line.

    Returns:
        The runs; ``compare()`` of it is what the reports show. Reports are not written where the sweep was interrupted or
        no run was finished.

    Raises:
        InvalidSettingError: the file is no recipe; every mistake in it is named.
        LightFTError: the model or the data cannot be read, or an adapter does not fit; nothing has been trained then.
    """
    asked = recipe if isinstance(recipe, Recipe) else Recipe.from_yaml(recipe)
    # Only a recipe without mistakes needs the deep-learning stack.
    from lightft.models import ModelLoader
    from lightft.sweeping.running import plan_sweep, sweep

    wanted = asked.data if data is None else replace(asked.data, source=data)
    loaded = data_of(wanted)
    model = asked.model
    loader = ModelLoader(
        model.name,
        task=loaded.task,
        labels=loaded.labels or None,
        revision=model.revision,
        dtype=model.dtype,
        quantization=model.quantization,
        device=model.device,
    )
    folder = Path(output_dir or asked.output_dir)
    options = {
        "seeds": asked.seeds,
        "budget": asked.budget,
        "output_dir": folder,
        "learning_rates": asked.learning_rates,
        "search": asked.search,
        "track": asked.track or None,
        "say": say,
        **asked.training,
    }
    if dry_run:
        return plan_sweep(loader, asked.candidates(), loaded, **options)
    result: SweepResult = sweep(loader, asked.candidates(), loaded, **options)
    if result.runs and not result.unfinished:
        _compare(asked, result, folder, say)
    return result


def data_of(asked: RecipeData) -> TaskData:
    """Return the data a recipe asks for.

    Raises:
        DataError: the source cannot be read, or has nothing to test on.
    """
    loaded = load_data(
        asked.source if isinstance(asked.source, str) else dict(asked.source),
        task=asked.task,
        validation=asked.validation,
        labels=asked.labels,
        text_column=asked.text_column,
        label_column=asked.label_column,
        revision=asked.revision,
    )
    if asked.test_from == "validation":
        loaded = _tested_on_validation(loaded, asked.validation)
    if not loaded.test:
        raise DataError(
            f"{loaded.source} has no test split, and on the split that chooses the epochs no runs can be compared. Add "
            "test_from: validation to the recipe's data, or a test file."
        )
    return loaded.head(**asked.rows) if asked.rows else loaded


def _tested_on_validation(data: TaskData, wanted: float) -> TaskData:
    """Return the data with the source's validation split as test split, and training rows as validation split."""
    if not data.validation or "validation split made here" in data.notes.get("validation_from", ""):
        raise DataError(f"{data.source} has no validation split of its own to test on. Leave test_from out.")
    train, validation = cut(data.train, rows_wanted(wanted, len(data.train)), seed=0)
    splits = {"train": train, "validation": validation, "test": list(data.validation)}
    notes = {
        **data.notes,
        "rows": {split: len(examples) for split, examples in splits.items()},
        "validation_from": f"validation split made here: {len(validation):,} of {len(data.train):,} rows, seed 0, equal "
        "texts kept together",
        "test_from": "test split: the source's validation split",
        "duplicates": duplicates_between_splits(splits),
    }
    return replace(data, train=tuple(train), validation=tuple(validation), test=data.validation, notes=notes)


def _compare(asked: Recipe, result: SweepResult, folder: Path, say: Callable[[str], None]) -> None:
    baseline = asked.compare.baseline
    if baseline is not None and not result.runs_of(baseline):
        say(f"The baseline {baseline!r} failed, so that every pair is compared.")
        baseline = None
    comparison = result.compare(baseline=baseline, metric=asked.compare.metric)
    say(comparison.finding)
    for path in asked.report:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        say(f"Wrote {comparison.save(path)}")
    if asked.track:
        try:
            log_report(comparison, asked.track, folder=folder)
        except TrackingError as error:
            # Everything that was asked for is on disk.
            say(str(error))
