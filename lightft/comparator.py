"""ModelComparator: compare saved runs, or models in memory, which are first written as runs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightft.comparison import Comparison, IntervalKind, compare_runs
from lightft.errors import InvalidSettingError
from lightft.records import Example, Run

__all__ = ["ModelComparator"]


class ModelComparator:
    """Compares runs on the same examples: scores with intervals, paired differences, costs.

    Args:
        level: of the intervals and, as ``1 − level``, of the tests.
        resamples: how many times the test set is resampled.
        seed: of the resampling.
        intervals: of single runs: ``"bca"`` or ``"percentile"``.
        correction: of p-values for their number: ``"holm"`` (any false claim is rare) or ``"benjamini-hochberg"`` (few of
            the claims are false).
    """

    def __init__(
        self,
        *,
        level: float = 0.95,
        resamples: int = 10_000,
        seed: int = 0,
        intervals: IntervalKind = "bca",
        correction: str = "holm",
    ) -> None:
        self.level = level
        self.resamples = resamples
        self.seed = seed
        self.intervals = intervals
        self.correction = correction
        self.comparison: Comparison | None = None
        """The last comparison made."""

    def compare(
        self,
        runs: Sequence[str | Path | Run] | Mapping[str, str | Path | Run],
        *,
        baseline: str | None = None,
        metric: str | None = None,
        on: Literal["all", "common"] = "all",
        selected_on_test: Literal["refuse", "warn"] = "refuse",
        examples: Sequence[Example] = (),
        train: Sequence[Example] = (),
    ) -> Comparison:
        """Compare saved runs; torch is not needed and not loaded.

        Runs that differ in the seed alone are one method: its score is their mean, and what is said of it holds for other
        seeds too.

        Args:
            runs: run folders, or runs that were just made; a mapping gives them other names.
            baseline: name of the method or run the others are compared with; None compares every pair.
            metric: the headline; by default the runs' own first metric.
            on: ``"common"`` compares on the examples that all runs have.
            selected_on_test: ``"warn"`` also compares runs that are scored on the examples that chose their best epoch.
            examples: the examples of the test split, for metrics that compare strings and for reports with texts.
            train: the training examples, to tell entities that were seen in training from new ones.

        Raises:
            IncomparableRunsError: the runs were scored on different examples, or on what chose their best epoch.
            InvalidSettingError: two runs have one name, or an argument is out of range.
            DataError: a run's folder is damaged.
        """
        named = runs.items() if isinstance(runs, Mapping) else ((None, run) for run in runs)
        self.comparison = compare_runs(
            [_opened(run, name) for name, run in named],
            baseline=baseline,
            metric=metric,
            on=on,
            level=self.level,
            resamples=self.resamples,
            seed=self.seed,
            intervals=self.intervals,
            correction=self.correction,
            selected_on_test=selected_on_test,
            examples=examples,
            train=train,
        )
        return self.comparison

    def compare_models(
        self,
        models: Sequence[Any] | Mapping[str, Any],
        dataset: Sequence[Example],
        *,
        baseline: str | None = None,
        output_dir: str | Path | None = None,
    ) -> Comparison:
        """Predict ``dataset`` with each model, write each as a run, and compare the runs.

        Args:
            models: by name, or in order (then named ``model-1``, ``model-2``, …). Each is what ``lightft.load`` or
                ``trainer.train`` returned, or a model that a ModelLoader with labels loaded.
            dataset: examples with gold answers.
            baseline: name of the model the others are compared with; None compares every pair.
            output_dir: where the runs are written, a folder each; by default a temporary folder that is kept.
        """
        named = models if isinstance(models, Mapping) else {f"model-{n}": model for n, model in enumerate(models, 1)}
        folder = Path(output_dir) if output_dir is not None else Path(tempfile.mkdtemp(prefix="lightft-runs-"))
        runs = [self._write_run(name, model, dataset, folder / name) for name, model in named.items()]
        return self.compare(runs, baseline=baseline)

    def generate_report(self, path: str | Path = "report.html", *, include_text: bool = False) -> Path:
        """Write the last comparison; the suffix (.html, .md, .tex, .csv, .parquet, .json) says how. Return the path."""
        if self.comparison is None:
            raise InvalidSettingError("There is nothing to report yet: call compare() or compare_models() first.")
        return self.comparison.save(path, include_text=include_text)

    @staticmethod
    def _write_run(name: str, given: Any, dataset: Sequence[Example], folder: Path) -> Run:
        # Only models in memory need the deep-learning stack.
        from lightft.cost import Stopwatch
        from lightft.data import examples_fingerprint
        from lightft.experiment import as_predictor, prediction_cost
        from lightft.models import count_parameters

        model = as_predictor(given)
        if folder.exists():
            raise InvalidSettingError(f"{folder} exists already. Choose another output_dir, or delete it.")
        device: Any = next(model.model.parameters()).device
        with Stopwatch(device) as predicting:
            predictions = model.predict(dataset)
        fingerprint = examples_fingerprint(dataset)
        _, total = count_parameters(model.model)
        run = Run(
            name=name,
            task=model.head.name,
            metrics=model.head.metrics,
            labels=tuple(model.head.labels),
            model={"name": model.model.name_or_path},
            data={"test_fingerprint": fingerprint, "rows": {"test": len(dataset)}},
            cost={
                "total_parameters": total,
                **prediction_cost(model, dataset, predicting),
            },
            predictions=tuple(predictions),
            path=folder,
        )
        run.save(folder)
        return run


def _opened(run: str | Path | Run, name: str | None) -> Run:
    opened = run if isinstance(run, Run) else Run.load(run)
    return opened if name is None else replace(opened, name=name)
