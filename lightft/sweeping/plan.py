"""What a sweep is going to do, and how long that will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightft.data import TaskData
from lightft.probe import Probe, probe
from lightft.sweeping.budget import Budget
from lightft.sweeping.candidates import Candidate
from lightft.sweeping.jobs import Job, Workplace
from lightft.sweeping.settling import Settled, Settler
from lightft.wording import MISSING, duration_words, size_words

__all__ = ["PlannedCandidate", "SweepPlan", "jobs_of", "plan_of"]


@dataclass(frozen=True)
class PlannedCandidate:
    """What is going to be trained of one candidate.

    Attributes:
        name: the candidate's.
        adapter: as text.
        quantization: of the base, or None.
        learning_rate: the peak, None where trials are going to choose it.
        runs: how many runs it has, one per seed.
        finished: how many of them are on disk already.
        trials: how many trials are expected before them.
        seconds: expected for what is left; None where a few steps could not be tried.
        peak_bytes: expected memory; likewise.
        problem: why a few steps could not be tried; ``""`` otherwise.
    """

    name: str
    adapter: str
    quantization: str | None
    learning_rate: float | None
    runs: int
    finished: int
    trials: int
    seconds: float | None
    peak_bytes: int | None
    problem: str = ""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is going to do; printing it gives a table.

    Attributes:
        candidates: in the order given.
        output_dir: where the runs will be.
    """

    candidates: tuple[PlannedCandidate, ...]
    output_dir: Path

    @property
    def runs(self) -> int:
        """How many runs there will be, finished ones included; trials are not counted."""
        return sum(candidate.runs for candidate in self.candidates)

    @property
    def finished(self) -> int:
        """How many runs are on disk already."""
        return sum(candidate.finished for candidate in self.candidates)

    @property
    def seconds(self) -> float:
        """Expected for what is left, as far as it is known; loading models is not part."""
        return sum(candidate.seconds or 0.0 for candidate in self.candidates)

    @property
    def peak_bytes(self) -> int:
        """Expected memory of the largest training."""
        return max((candidate.peak_bytes or 0 for candidate in self.candidates), default=0)

    @property
    def summary(self) -> str:
        """The plan in one line."""
        words = ["1 run" if self.runs == 1 else f"{self.runs} runs"]
        trials = sum(candidate.trials for candidate in self.candidates)
        if trials:
            words.append(f"about {trials} trials before them")
        if self.seconds:
            words.append(f"about {duration_words(self.seconds)} and {size_words(self.peak_bytes)}")
        line = ", ".join(words)
        notes = [f"{self.finished} already finished"] if self.finished else []
        unknown = [candidate.name for candidate in self.candidates if candidate.problem]
        notes += [f"not known of {', '.join(unknown)}"] if unknown else []
        return "; ".join([line, *notes])

    def __str__(self) -> str:
        cells = [("candidate", "base", "learning rate", "runs", "finished", "trials", "time left", "memory")]
        cells += [
            (
                candidate.name,
                candidate.quantization or "as loaded",
                "to be chosen" if candidate.learning_rate is None else f"{candidate.learning_rate:.3g}",
                str(candidate.runs),
                str(candidate.finished),
                str(candidate.trials),
                duration_words(candidate.seconds),
                MISSING if candidate.peak_bytes is None else size_words(candidate.peak_bytes),
            )
            for candidate in self.candidates
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        rows = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        problems = [f"{candidate.name}: {candidate.problem}" for candidate in self.candidates if candidate.problem]
        return "\n".join([*rows, *problems, self.summary])


def jobs_of(settled: Settled, seeds: Sequence[int], data: TaskData, output_dir: Path) -> list[Job]:
    """Return the runs of a candidate, one per seed."""
    return [
        Job(
            f"{settled.candidate.name}-seed-{seed}",
            settled.candidate,
            replace(settled.config, seed=seed),
            data,
            output_dir,
            settled.notes,
        )
        for seed in seeds
    ]


def plan_of(
    workplace: Workplace,
    settler: Settler,
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    output_dir: Path,
    budget: Budget | None,
) -> SweepPlan:
    """Return what is left to do, after a few steps of every candidate that is not finished."""
    planned = {}
    # Candidates on the same base one after another, so that it is loaded once.
    for candidate in sorted(candidates, key=base_of):
        planned[candidate.name] = _planned(workplace, settler, candidate, seeds, output_dir, budget)
    return SweepPlan(tuple(planned[candidate.name] for candidate in candidates), output_dir)


def base_of(candidate: Candidate) -> tuple[str, bool]:
    """Return what tells the bases of a sweep's candidates apart."""
    return candidate.quantization or "", candidate.adapter.hooks().needs_float32_base


def _planned(
    workplace: Workplace,
    settler: Settler,
    candidate: Candidate,
    seeds: Sequence[int],
    output_dir: Path,
    budget: Budget | None,
) -> PlannedCandidate:
    settled = settler.settled(candidate)
    jobs = [] if settled is None else jobs_of(settled, seeds, workplace.data, output_dir)
    finished = sum(workplace.finished(job) is not None for job in jobs)
    trials = settler.trials_of_each if settled is None else 0
    seconds: float | None = 0.0
    peak, problem = None, ""
    if finished < len(seeds):
        try:
            tried = _probe(workplace, settler.trial(candidate), budget)
        except Exception as error:  # that it cannot be trained shows in its run, and stops no other
            workplace.shared.forget_base()
            seconds, problem = None, f"{type(error).__name__}: {error}"
        else:
            seconds, peak = tried.seconds * (len(seeds) - finished + trials), tried.peak_bytes
    return PlannedCandidate(
        candidate.name,
        str(candidate.adapter),
        candidate.quantization,
        settled.config.learning_rate if settled is not None else None,
        len(seeds),
        finished,
        trials,
        seconds,
        peak,
        problem,
    )


def _probe(workplace: Workplace, trial: Job, budget: Budget | None) -> Probe:
    """Take a few steps of a training; one that ends by the clock has as many seconds of steps as its budget."""
    job = replace(trial, data=workplace.data)
    if budget is None or budget.seconds is None:
        return probe(workplace.trainer(job), job.data)
    few = replace(job, config=replace(job.config, max_seconds=None, max_steps=_FEW, epochs=_FEW))
    tried = probe(workplace.trainer(few), job.data)
    return replace(tried, seconds=tried.seconds - tried.steps * tried.seconds_per_step + budget.seconds)


_FEW = 4
