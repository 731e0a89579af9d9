"""A search for good settings with Optuna: trials are judged by the validation split, and the poor ones cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightft.adapters import AdapterSpec
from lightft.errors import InvalidSettingError, TrainingError, suggest
from lightft.extras import package_of_extra
from lightft.train_config import TrainConfig

if TYPE_CHECKING:
    from lightft.sweeping.jobs import Job

__all__ = ["PRUNERS", "Range", "Search", "is_searched", "optuna_or_error", "search_settings"]

PRUNERS = ("median", "hyperband", "none")
_ADAPTER = "adapter."
_FIXED = ("seed", "progress", "validation_metric", "epochs", "max_steps", "max_seconds", "patience")


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``; whole ones where both are, evenly spread over their logarithms with ``log``."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InvalidSettingError(f"The range from {self.low} to {self.high} is empty. Give a low below high.")
        if self.log and self.low <= 0:
            raise InvalidSettingError(f"A range from {self.low} has no logarithms. Give a low above 0, or log=False.")


@dataclass(frozen=True)
class Search:
    """What is searched for each method of a sweep.

    Attributes:
        space: by setting of TrainConfig, or ``"adapter.NAME"`` for an adapter's parameter: a Range, or a list of choices.
        trials: trainings per method, those that were cut short included.
        pruner: which trials are cut short after an epoch: ``"median"`` those below the median of the others at that epoch,
            ``"hyperband"``, ``"none"``, or an Optuna pruner. A training of one epoch is never cut short.
        seed: of the sampler, a tree-structured Parzen estimator (Bergstra et al. 2011).
    """

    space: Mapping[str, Range | Sequence[Any]]
    trials: int = 20
    pruner: Any = "median"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InvalidSettingError(f"A search of {self.trials} trials finds nothing. Give 1 or more.")
        if isinstance(self.pruner, str) and self.pruner not in PRUNERS:
            raise InvalidSettingError(f"No pruner named {self.pruner!r}. {suggest(self.pruner, PRUNERS)}")
        if not self.space:
            raise InvalidSettingError("The search has no space. Name at least one setting, such as learning_rate.")
        known = [name for name in TrainConfig.__dataclass_fields__ if name not in _FIXED]
        for name, values in self.space.items():
            if not name.startswith(_ADAPTER) and name not in known:
                raise InvalidSettingError(
                    f"The search cannot set {name!r}. {suggest(name, known)} A parameter of the adapter is called "
                    "adapter.NAME."
                )
            if not isinstance(values, Range) and not _are_choices(values):
                raise InvalidSettingError(
                    f"The search has {name}={values!r}. Give a Range(low, high), or a list of strings, numbers, True, False "
                    "or None to choose from."
                )

    def check_adapter(self, spec: AdapterSpec) -> None:
        """Refuse a space with a parameter or choice that ``spec`` cannot have.

        Raises:
            InvalidSettingError: naming it.
        """
        for name, values in self.space.items():
            if name.startswith(_ADAPTER):
                for value in (values.low, values.high) if isinstance(values, Range) else values:
                    AdapterSpec(spec.kind, {**spec.params, name.removeprefix(_ADAPTER): value})

    def applied(self, job: Job, settings: Mapping[str, Any]) -> Job:
        """Return the job with settings that were found."""
        spec = job.candidate.adapter
        changed = {name.removeprefix(_ADAPTER): value for name, value in settings.items() if name.startswith(_ADAPTER)}
        rest = {name: value for name, value in settings.items() if not name.startswith(_ADAPTER)}
        adapter = AdapterSpec(spec.kind, {**spec.params, **changed})
        return replace(job, candidate=replace(job.candidate, adapter=adapter), config=replace(job.config, **rest))


def optuna_or_error() -> Any:
    """Return the optuna package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return package_of_extra("optuna", "sweep", "A search needs Optuna")


def search_settings(
    search: Search,
    trial_job: Job,
    storage: Path,
    train: Callable[[Job, Callable[[Mapping[str, Any]], None]], float],
    metric: str,
    direction: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the best settings that so many trials find, and an account of the search.

    The study is kept in ``storage``, so that a search that was interrupted goes on where it stopped. The sampler is seeded
    anew for each trial by the number of those before, so that it then finds what it would have found.

    Args:
        search: what is searched.
        trial_job: what is trained, but for the settings.
        storage: Optuna's journal file.
        train: trains a job, calls what it is given with every history row, and returns the validation score, higher is
            better.
        metric: the metric of the validation split that rows are read for.
        direction: 1 where higher is better, else −1.

    Raises:
        MissingExtraError: Optuna is not installed.
        TrainingError: no trial succeeded.
    """
    optuna = optuna_or_error()
    with _quiet(optuna):
        storage.parent.mkdir(parents=True, exist_ok=True)
        study = _study(search, storage, optuna)
        while (number := _ended(study, optuna)) < search.trials:
            study.sampler = optuna.samplers.TPESampler(seed=search.seed + number)
            _one_trial(study, search, trial_job, train, f"validation_{metric}", direction, optuna)
        return _account(study, search, trial_job, metric, direction, optuna)


def is_searched(search: Search, storage: Path) -> bool:
    """Whether all trials of a search are in its file, so that it would train nothing."""
    optuna = optuna_or_error()
    with _quiet(optuna):
        return storage.is_file() and _ended(_study(search, storage, optuna), optuna) >= search.trials


def _study(search: Search, storage: Path, optuna: Any) -> Any:
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(storage))),
        study_name="search",
        direction="maximize",
        pruner=_pruner(search, optuna),
        load_if_exists=True,
    )


def _ended(study: Any, optuna: Any) -> int:
    """Return how many trials have ended, in whatever way; one that was interrupted has not."""
    states = optuna.trial.TrialState
    return len(study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.FAIL)))


def _one_trial(
    study: Any,
    search: Search,
    trial_job: Job,
    train: Callable[[Job, Callable[[Mapping[str, Any]], None]], float],
    column: str,
    direction: int,
    optuna: Any,
) -> None:
    trial = study.ask()
    settings = {name: _suggestion(trial, name, values) for name, values in search.space.items()}
    epochs = iter(range(1, 10**9))

    def cut_short(row: Mapping[str, Any]) -> None:
        if column in row:
            trial.report(direction * row[column], next(epochs))
            if trial.should_prune():
                raise optuna.TrialPruned

    try:
        score = train(search.applied(trial_job, settings), cut_short)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except Exception as error:
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, score)


def _account(
    study: Any, search: Search, trial_job: Job, metric: str, direction: int, optuna: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    states = optuna.trial.TrialState
    counts = {
        state.name.lower(): len(study.get_trials(deepcopy=False, states=(state,)))
        for state in (states.COMPLETE, states.PRUNED, states.FAIL)
    }
    if not counts["complete"]:
        errors = [trial.user_attrs["error"] for trial in study.get_trials() if "error" in trial.user_attrs]
        why = f"The last error: {errors[-1]}" if errors else "All were cut short; choose another pruner."
        raise TrainingError(f"None of {search.trials} trials of the search succeeded. {why}")
    best = study.best_trial
    account = {
        "metric": metric,
        "seed": trial_job.config.seed,
        "trials": counts["complete"],
        "cut_short": counts["pruned"],
        "failed": counts["fail"],
        "best": direction * best.value,
        "found": [[name, value] for name, value in best.params.items()],
    }
    return dict(best.params), account


def _are_choices(values: Any) -> bool:
    plain = isinstance(values, (list, tuple)) and bool(values)
    return plain and all(value is None or isinstance(value, (str, int, float)) for value in values)


def _suggestion(trial: Any, name: str, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(name, list(values))
    if isinstance(values.low, int) and isinstance(values.high, int):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def _pruner(search: Search, optuna: Any) -> Any:
    pruners = optuna.pruners
    named = {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, "none": pruners.NopPruner}
    return named[search.pruner]() if isinstance(search.pruner, str) else search.pruner


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Leave out that a study was made or found: what a sweep does, it says itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
