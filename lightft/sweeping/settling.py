"""How each method of a sweep is trained in the end: as it was asked for, or with what its trials found."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightft.errors import DataError, InvalidSettingError, TrainingError, suggest
from lightft.sweeping.candidates import LEARNING_RATES, Candidate, LearningRates
from lightft.sweeping.choosing import USUAL_TRIALS, choose_rate
from lightft.sweeping.jobs import Job, Workplace, best_validation_score, direction_of
from lightft.sweeping.search import Search, is_searched, search_settings
from lightft.train_config import TrainConfig

__all__ = ["Settled", "Settler", "UnfinishedTrialError"]

_TUNING_SEED = 1000


class UnfinishedTrialError(LookupError):
    """A look at the finished trials found that one is missing."""


@dataclass(frozen=True)
class Settled:
    """A candidate, how it is trained, and what its runs say of how that came about."""

    candidate: Candidate
    config: TrainConfig
    notes: Mapping[str, Any] = field(default_factory=dict)


class Settler:
    """Settles how candidates are trained.

    Args:
        workplace: what the jobs share.
        config: the settings of all.
        output_dir: of the sweep; trials have a subfolder.
        seeds: of the sweep, none of which is used for a trial.
        learning_rates: ``"default"`` or ``"chosen"``.
        search: what is searched, if anything.
        say: is given a line for every trial.

    Raises:
        InvalidSettingError: the learning rate is to be found in more than one way.
        DataError: trials are asked for, and there is no validation split to judge them by.
    """

    def __init__(
        self,
        workplace: Workplace,
        config: TrainConfig,
        output_dir: Path,
        seeds: tuple[int, ...],
        learning_rates: LearningRates,
        search: Search | None,
        say: Callable[[str], None],
    ) -> None:
        if learning_rates not in LEARNING_RATES:
            raise InvalidSettingError(
                f"learning_rates is {learning_rates!r}. {suggest(str(learning_rates), LEARNING_RATES)}"
            )
        if learning_rates == "chosen" and search is not None:
            raise InvalidSettingError(
                "Either learning_rates='chosen' or a search finds the learning rate: leave one out, and put learning_rate "
                "into the search's space."
            )
        if learning_rates == "chosen" and config.learning_rate is not None:
            raise InvalidSettingError(
                f"learning_rates='chosen' chooses a rate for each method, so learning_rate={config.learning_rate} cannot "
                "be given for all. Leave one of the two out."
            )
        self.tries = learning_rates == "chosen" or search is not None
        if self.tries and not workplace.data.validation:
            raise DataError(
                f"{workplace.data.source} has no validation split, and trials are judged by nothing else, never by the "
                "test split. Load the data with validation=0.1, or train with learning_rates='default'."
            )
        self.trials_of_each = search.trials if search is not None else USUAL_TRIALS if self.tries else 0
        self._workplace = workplace
        self._config = config
        self._folder = output_dir / "trials"
        self._seed = next(seed for seed in range(_TUNING_SEED, _TUNING_SEED + len(seeds) + 1) if seed not in seeds)
        self._search = search
        self._say = say

    def settle(self, candidate: Candidate) -> Settled:
        """Return how ``candidate`` is trained, after its trials if there are any.

        Raises:
            TrainingError: not one trial succeeded.
        """
        if self._search is not None:
            return self._searched(candidate, self._search)
        if self.tries:
            return self._with_chosen_rate(candidate, self._score)
        return Settled(candidate, replace(self._config, learning_rate=self._first_rate(candidate)))

    def settled(self, candidate: Candidate) -> Settled | None:
        """Return how ``candidate`` is trained, None where that takes trials which are not finished."""
        try:
            if self._search is not None:
                ended = is_searched(self._search, self._storage(candidate, self._search))
                return self._searched(candidate, self._search) if ended else None
            return self._with_chosen_rate(candidate, self._known_score) if self.tries else self.settle(candidate)
        except (UnfinishedTrialError, TrainingError):
            return None

    def trial(self, candidate: Candidate) -> Job:
        """Return what is trained to try a candidate: without the test split, with a seed that no run has."""
        config = replace(self._config, seed=self._seed, learning_rate=self._first_rate(candidate))
        data = replace(self._workplace.data, test=())
        return Job(f"{candidate.name} trial", candidate, config, data, self._folder)

    def _first_rate(self, candidate: Candidate) -> float:
        if self._config.learning_rate is not None:
            return self._config.learning_rate
        return candidate.adapter.definition.learning_rate_for(self._workplace.plain_head.task_type)

    def _with_chosen_rate(self, candidate: Candidate, score_of: Callable[[Job], float]) -> Settled:
        rate, scores = choose_rate(self.trial(candidate), self._first_rate(candidate), score_of)
        note = {
            "metric": f"validation_{self._metric}",
            "seed": self._seed,
            "tried": [
                [tried, None if math.isnan(score) else self._direction * score]
                for tried, score in sorted(scores.items())
            ],
        }
        return Settled(candidate, replace(self._config, learning_rate=rate), {"rate_chosen_from": note})

    def _searched(self, candidate: Candidate, search: Search) -> Settled:
        trial, storage = self.trial(candidate), self._storage(candidate, search)
        best, account = search_settings(search, trial, storage, self._trained_trial, self._metric, self._direction)
        found = search.applied(trial, best)
        return Settled(found.candidate, replace(found.config, seed=self._config.seed), {"search": account})

    def _storage(self, candidate: Candidate, search: Search) -> Path:
        """Return the file of a search, named after everything but the number of trials, which may grow."""
        asked = json.dumps([self.trial(candidate).folder(self._workplace).name, search.seed, str(search.space)])
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        return self._folder / f"{candidate.file_name}-search-{digest}.log"

    @property
    def _metric(self) -> str:
        return self._config.validation_metric or self._workplace.plain_head.metrics[0]

    @property
    def _direction(self) -> int:
        return direction_of(self._metric, self._workplace.plain_head.labels)

    def _score(self, trial: Job) -> float:
        """Return the validation score of a trial, ``nan`` where it failed."""
        try:
            return self._trained_trial(trial)
        except Exception as error:
            self._workplace.shared.forget_base()
            self._say(f"{trial.name}, learning rate {trial.config.learning_rate:.3g}: failed: {error}")
            return math.nan

    def _known_score(self, trial: Job) -> float:
        run = self._workplace.finished(trial)
        if run is None:
            raise UnfinishedTrialError
        return best_validation_score(run)

    def _trained_trial(self, trial: Job, watch: Callable[[Mapping[str, Any]], None] | None = None) -> float:
        known = self._workplace.finished(trial)
        run = known or self._workplace.train(trial, [watch] if watch else [])
        # What is wanted of a trial is its score; its weights would fill the disk.
        shutil.rmtree(trial.folder(self._workplace) / "adapter", ignore_errors=True)
        score = best_validation_score(run)
        if known is None:
            shown = self._direction * score
            self._say(
                f"{trial.name}, learning rate {trial.config.learning_rate:.3g}: validation {self._metric} {shown:.3f}"
            )
        return score
