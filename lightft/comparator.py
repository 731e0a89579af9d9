"""ModelComparator: compare saved runs, or models in memory, which are first written as runs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightft.comparison import Comparison, compare_runs
from lightft.errors import InvalidSettingError
from lightft.records import Example, Run

__all__ = ["ModelComparator"]


class ModelComparator:
    """Compares runs on the same examples: scores with intervals, paired differences, costs.

    Args:
        level: of the intervals and, as ``1 − level``, of the tests.
        resamples: how many times the test set is resampled.
        seed: of the resampling.
    """

    def __init__(self, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> None:
        self.level = level
        self.resamples = resamples
        self.seed = seed
        self.comparison: Comparison | None = None
        """The last comparison made."""

    def compare(
        self,
        runs: Sequence[str | Path | Run],
        *,
        baseline: str | None = None,
        metric: str | None = None,
        on: Literal["all", "common"] = "all",
    ) -> Comparison:
        """Compare saved runs; torch is not needed and not loaded.

        Args:
            runs: run folders, or runs that were just made.
            baseline: name of the run the others are compared with; None compares every pair.
            metric: the headline; by default the runs' own first metric.
            on: ``"common"`` compares on the examples that all runs have.

        Raises:
            IncomparableRunsError: the runs were scored on different examples.
        """
        loaded = [run if isinstance(run, Run) else Run.load(run) for run in runs]
        self.comparison = compare_runs(
            loaded,
            baseline=baseline,
            metric=metric,
            on=on,
            level=self.level,
            resamples=self.resamples,
            seed=self.seed,
        )
        return self.comparison

    def compare_models(
        self,
        models: Sequence[Any] | Mapping[str, Any],
        dataset: Sequence[Example],
        *,
        output_dir: str | Path | None = None,
    ) -> Comparison:
        """Predict ``dataset`` with each model, write each as a run, and compare the runs.

        Args:
            models: by name, or in order (then named ``model-1``, ``model-2``, …). Each is what ``lightft.load`` or
                ``trainer.train`` returned, or a model that a ModelLoader with labels loaded.
            dataset: examples with gold answers.
            output_dir: where the runs are written, a folder each; by default a temporary folder that is kept.
        """
        named = models if isinstance(models, Mapping) else {f"model-{n}": model for n, model in enumerate(models, 1)}
        folder = Path(output_dir) if output_dir is not None else Path(tempfile.mkdtemp(prefix="lightft-runs-"))
        return self.compare([self._write_run(name, model, dataset, folder / name) for name, model in named.items()])

    def generate_report(self, path: str | Path = "report.html") -> Path:
        """Write the last comparison; the suffix (.html, .md, .csv, .json) says how. Return the path."""
        if self.comparison is None:
            raise InvalidSettingError("There is nothing to report yet: call compare() or compare_models() first.")
        self.comparison.save(path)
        return Path(path)

    @staticmethod
    def _write_run(name: str, given: Any, dataset: Sequence[Example], folder: Path) -> Run:
        # Only models in memory need the deep-learning stack.
        from lightft.cost import Stopwatch
        from lightft.data import examples_fingerprint
        from lightft.experiment import as_predictor
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
                "predict_seconds": predicting.seconds,
                "predictions_per_second": len(dataset) / predicting.seconds,
            },
            predictions=tuple(predictions),
            path=folder,
        )
        run.save(folder)
        return run
