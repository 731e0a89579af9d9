"""What a sweep brought: its runs, what failed and why, and what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lightft.comparator import ModelComparator
from lightft.comparison import Comparison
from lightft.errors import DataError, TrainingError
from lightft.records import Run
from lightft.sweeping.jobs import best_validation_score
from lightft.sweeping.plan import SweepPlan

__all__ = ["FailedRun", "SweepResult"]


@dataclass(frozen=True)
class FailedRun:
    """A run that could not be trained; the next call of the same sweep tries it again.

    Attributes:
        name: of the run.
        message: of the error, with its class.
    """

    name: str
    message: str


@dataclass(frozen=True)
class SweepResult:
    """What a sweep brought; printing it gives a line for each run, and says what failed.

    Attributes:
        plan: what was to be done.
        runs: the finished ones, seed by seed in the order of the candidates; trials are not among them.
        failed: those that could not be trained.
        unfinished: names of those that were not begun or not ended because the sweep was interrupted.
    """

    plan: SweepPlan
    runs: tuple[Run, ...]
    failed: tuple[FailedRun, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def best(self) -> Run:
        """The run with the best validation score, by the metric that chose its epoch. Test scores have no say.

        Raises:
            DataError: there was no validation split to choose by.
            TrainingError: no run was finished.
        """
        if not self.runs:
            raise TrainingError("No run of the sweep was finished, so that none is the best.")
        scored = [(best_validation_score(run), run) for run in self.runs]
        known = [(score, run) for score, run in scored if not math.isnan(score)]
        if not known:
            raise DataError(
                "The best run is the one with the best validation score, and there was no validation split. Load the data "
                "with validation=0.1, or look at compare()."
            )
        return max(known, key=lambda pair: pair[0])[1]

    def runs_of(self, candidate: str) -> tuple[Run, ...]:
        """Return the finished runs of the candidate of that name, one per seed."""
        return tuple(run for run in self.runs if run.name.rpartition("-seed-")[0] == candidate)

    def compare(self, *, baseline: str | None = None, **asked: Any) -> Comparison:
        """Return the finished runs compared.

        Args:
            baseline: name of the candidate the others are held against; None compares every pair.
            asked: other arguments of ``ModelComparator.compare``.

        Raises:
            TrainingError: no run was finished.
        """
        if not self.runs:
            raise TrainingError(f"There is nothing to compare.\n{self}")
        # A method of one seed goes by the name of its run, and a method of several by that of each of them.
        known = self.runs_of(baseline) if baseline is not None else ()
        return ModelComparator().compare(self.runs, baseline=known[0].name if known else baseline, **asked)

    def __str__(self) -> str:
        counts = [f"{len(self.runs)} of {self.plan.runs} runs finished"]
        counts += [f"{len(self.failed)} failed"] if self.failed else []
        lines = [*map(str, self.runs), *(f"{failed.name}: failed: {failed.message}" for failed in self.failed)]
        if self.unfinished:
            counts.append(f"interrupted with {len(self.unfinished)} to go")
            lines.append(f"Not trained yet: {', '.join(self.unfinished)}. The same call goes on there.")
        return "\n".join([*lines, ", ".join(counts)])
