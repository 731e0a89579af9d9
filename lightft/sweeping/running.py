"""A sweep: every method with every seed, what is finished left alone, and one failure no reason to stop."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from lightft.adapters.attach import check_fit
from lightft.data import TaskData
from lightft.errors import AdapterError, InvalidSettingError
from lightft.models import ModelLoader
from lightft.records import Run
from lightft.sweeping.budget import Budget
from lightft.sweeping.candidates import Candidate, LearningRates, candidates_of, seeds_of
from lightft.sweeping.jobs import Job, Workplace
from lightft.sweeping.plan import SweepPlan, base_of, jobs_of, plan_of
from lightft.sweeping.result import FailedRun, SweepResult
from lightft.sweeping.search import Search, optuna_or_error
from lightft.sweeping.settling import Settled, Settler
from lightft.tasks import TaskHead
from lightft.tracking import Tracking, catch_up
from lightft.train_config import TrainConfig

__all__ = ["plan_sweep", "sweep"]


@overload
def sweep(
    loader: ModelLoader, specs: Any, data: TaskData, *, dry_run: Literal[False] = False, **options: Any
) -> SweepResult: ...


@overload
def sweep(loader: ModelLoader, specs: Any, data: TaskData, *, dry_run: Literal[True], **options: Any) -> SweepPlan: ...


def sweep(
    loader: ModelLoader,
    specs: Any,
    data: TaskData,
    *,
    seeds: int | Sequence[int] = 3,
    budget: Budget | None = None,
    output_dir: str | Path = "runs",
    learning_rates: LearningRates = "default",
    quantizations: Sequence[str | None] = (None,),
    search: Search | None = None,
    head: TaskHead | None = None,
    track: str | Sequence[str] | Tracking | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> SweepResult | SweepPlan:
    """Train every adapter with every seed, and return the runs.

    What is finished is known by its content, model, adapter, settings, data and seed, and is not trained again: after an
    interruption, or with more adapters or seeds, the same call trains what is missing. A run that fails is recorded, and
    the others go on. The base is loaded once for all runs that share it, and texts are tokenised once; each run is, to the
    last bit, what ``LoRATrainer.fit`` alone would have made of it.

    Args:
        loader: of the base model; its seed is the run's.
        specs: adapters: kinds, AdapterSpecs, peft configs, what ``grid`` returns, or any of these by name.
        data: the splits.
        seeds: how many, counted from 0, or which.
        budget: what every run may spend, in the place of ``epochs``.
        output_dir: where the runs are written, a folder each.
        learning_rates: ``"default"`` takes the default of each adapter kind, or ``learning_rate=`` for all; ``"chosen"``
            tries several for each method on a seed of its own, judged by the validation split.
        quantizations: of the base; every adapter that does not say is trained in each.
        search: settings to search with Optuna for each method, likewise on a seed of its own and the validation split.
        head: the task head; by default the one of the loader's task and the data's labels.
        track: where each run is also sent once it is finished, as for LoRATrainer; trials are not. After a failure nothing
            more is sent: the same call goes on there.
        dry_run: train nothing and return the plan.
        say: is given the plan in a line, and one for each training that ends.
        settings: fields of TrainConfig for all runs.

    Raises:
        InvalidSettingError: what is asked for contradicts itself; nothing has been trained then.
        AdapterError: adapters that do not fit the model, all of them named; likewise.
        DataError: trials are asked for without a validation split; likewise.
        MissingExtraError: a search is asked for, and Optuna is not installed, or a tracker's package is not.
    """
    one = _Sweep(
        loader,
        specs,
        data,
        seeds,
        budget,
        Path(output_dir),
        learning_rates,
        quantizations,
        search,
        head,
        track,
        say,
        settings,
    )
    plan = one.plan()
    if dry_run:
        return plan
    say(plan.summary)
    return one.run(plan)


def plan_sweep(loader: ModelLoader, specs: Any, data: TaskData, **options: Any) -> SweepPlan:
    """Return what ``sweep`` with the same arguments would do and how long it would take; a few steps are tried for it."""
    return sweep(loader, specs, data, dry_run=True, **options)


class _Sweep:
    """Everything that a sweep was asked for, checked."""

    def __init__(
        self,
        loader: ModelLoader,
        specs: Any,
        data: TaskData,
        seeds: int | Sequence[int],
        budget: Budget | None,
        output_dir: Path,
        learning_rates: LearningRates,
        quantizations: Sequence[str | None],
        search: Search | None,
        head: TaskHead | None,
        track: str | Sequence[str] | Tracking | None,
        say: Callable[[str], None],
        settings: dict[str, Any],
    ) -> None:
        self._candidates = candidates_of(specs, quantizations)
        self._seeds = seeds_of(seeds)
        self._budget = budget
        self._folder = output_dir
        self._say = say
        self._track = Tracking.of(track) if track is not None else None
        self._workplace = Workplace(loader, data, head)
        if "seed" in settings:
            raise InvalidSettingError(
                f"A sweep has seeds, so that seed={settings['seed']!r} cannot be set. Use seeds=[{settings['seed']!r}]."
            )
        config = TrainConfig.from_settings(
            {"progress": False, **(budget.applied_to(settings) if budget is not None else settings)}
        )
        if search is not None:
            optuna_or_error()
            for candidate in self._candidates:
                search.check_adapter(candidate.adapter)
        self._settler = Settler(self._workplace, config, output_dir, self._seeds, learning_rates, search, self._say)
        self._check_fit()

    def plan(self) -> SweepPlan:
        return plan_of(self._workplace, self._settler, self._candidates, self._seeds, self._folder, self._budget)

    def run(self, plan: SweepPlan) -> SweepResult:
        """Settle how each candidate is trained, then train seed by seed: what is done early can be compared early."""
        runs: dict[str, Run] = {}
        failed: dict[str, FailedRun] = {}
        names = {
            candidate.name: [f"{candidate.name}-seed-{seed}" for seed in self._seeds] for candidate in self._candidates
        }
        try:
            jobs: list[Job] = []
            for candidate in sorted(self._candidates, key=base_of):
                settled = self._settle(candidate, names[candidate.name], failed)
                if settled is not None:
                    jobs += jobs_of(settled, self._seeds, self._workplace.data, self._folder)
            order = {seed: place for place, seed in enumerate(self._seeds)}
            jobs.sort(key=lambda job: (order[job.config.seed], base_of(job.candidate)))
            for job in jobs:
                self._train(job, runs, failed)
        except KeyboardInterrupt:
            self._say("Interrupted.")
        finally:
            self._workplace.shared.forget_base()
        asked = [name for of_candidate in names.values() for name in of_candidate]
        return SweepResult(
            plan,
            tuple(runs[name] for name in asked if name in runs),
            tuple(failed[name] for name in asked if name in failed),
            tuple(name for name in asked if name not in runs and name not in failed),
        )

    def _settle(self, candidate: Candidate, names: list[str], failed: dict[str, FailedRun]) -> Settled | None:
        try:
            return self._settler.settle(candidate)
        except Exception as error:
            self._workplace.shared.forget_base()
            for name in names:
                failed[name] = FailedRun(name, f"{type(error).__name__}: {error}")
            self._say(f"{candidate.name}: failed: {error}")
            return None

    def _train(self, job: Job, runs: dict[str, Run], failed: dict[str, FailedRun]) -> None:
        folder = job.folder(self._workplace)
        account = folder / "error.txt"
        try:
            known = self._workplace.finished(job)
            runs[job.name] = self._workplace.train(job)
        except Exception as error:
            # Whatever went wrong, the next training starts from a base that this one has not touched.
            self._workplace.shared.forget_base()
            failed[job.name] = FailedRun(job.name, f"{type(error).__name__}: {error}")
            folder.mkdir(parents=True, exist_ok=True)
            account.write_text(traceback.format_exc(), encoding="utf-8")
            self._say(f"{job.name}: failed: {error}")
        else:
            account.unlink(missing_ok=True)
            if self._track is not None and not catch_up(runs[job.name], self._track):
                # A tracker that is away would hold up every run to come.
                self._track = None
            if known is None:
                self._say(str(runs[job.name]))

    def _check_fit(self) -> None:
        """Refuse adapters that do not fit the model before any weight is loaded."""
        head = self._workplace.plain_head
        sketch = self._workplace.loader.sketch(head.task_type)
        problems = []
        for candidate in self._candidates:
            quantization = candidate.quantization or self._workplace.loader.quantization
            try:
                check_fit(candidate.adapter, sketch, head.task_type, quantization=quantization)
            except AdapterError as error:
                problems.append(f"{candidate.name}: {error}")
        if problems:
            raise AdapterError("Nothing was trained, for not every adapter fits:\n" + "\n".join(problems))
