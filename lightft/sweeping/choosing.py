"""The learning rate of each method, chosen by the validation split with a seed that is not used again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from lightft.errors import TrainingError
from lightft.sweeping.jobs import Job

__all__ = ["USUAL_TRIALS", "choose_rate", "chosen_rate", "rates_to_try"]

RATIO = 2.0
USUAL_TRIALS = 4
"""How many rates are tried as a rule: three, and one beyond where the best is at the edge."""
_MOST_TRIALS = 7


def choose_rate(trial: Job, first: float, score_of: Callable[[Job], float]) -> tuple[float, dict[float, float]]:
    """Return the best learning rate, and the scores of all that were tried.

    Args:
        trial: what is trained to try a rate, but for the rate.
        first: the first guess.
        score_of: trains a trial and returns its validation score; higher is better, ``nan`` where it failed.

    Raises:
        TrainingError: not one training succeeded.
    """
    scores: dict[float, float] = {}
    while rates := rates_to_try(first, scores):
        for rate in rates:
            scores[rate] = score_of(replace(trial, config=replace(trial.config, learning_rate=rate)))
    return chosen_rate(scores), scores


def rates_to_try(first: float, scores: Mapping[float, float]) -> list[float]:
    """Return the rates to try next: half, once and twice ``first``, then one beyond the edge while the best is there.

    Args:
        first: the first guess.
        scores: by rate, of those tried; higher is better, ``nan`` for a training that failed.

    Returns:
        None once the best is not at the edge, after seven trials, or when the next rate would be 1 or more.

    Raises:
        TrainingError: not one training succeeded.
    """
    if not scores:
        return [rate for rate in (first / RATIO, first, first * RATIO) if rate < 1]
    best = chosen_rate(scores)
    beyond = {min(scores): min(scores) / RATIO, max(scores): max(scores) * RATIO}
    return [beyond[best]] if best in beyond and beyond[best] < 1 and len(scores) < _MOST_TRIALS else []


def chosen_rate(scores: Mapping[float, float]) -> float:
    """Return the best rate: each counts half by its own score and a quarter by each neighbour's.

    A rate that is good only by chance, or fails at the next seed, has neighbours that do badly. Beyond an edge nothing is
    known: the edge stands in for it. Of equals the higher one is taken: where nothing has been learned yet, all score alike.

    Raises:
        TrainingError: not one training succeeded.
    """
    rates = sorted(scores)
    known = [scores[rate] for rate in rates if not math.isnan(scores[rate])]
    if not known:
        raise TrainingError(f"Training failed with every learning rate that was tried: {_words(rates)}.")
    filled = [min(known) if math.isnan(scores[rate]) else scores[rate] for rate in rates]
    padded = [filled[0], *filled, filled[-1]]
    smoothed = {
        rate: padded[place] / 4 + padded[place + 1] / 2 + padded[place + 2] / 4
        for place, rate in enumerate(rates)
        if not math.isnan(scores[rate])
    }
    return max(smoothed, key=lambda rate: (smoothed[rate], rate))


def _words(rates: list[float]) -> str:
    return ", ".join(f"{rate:.3g}" for rate in rates)
