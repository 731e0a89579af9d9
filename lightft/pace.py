"""Pace: how fast a training learns at each step, by steps or by the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightft.train_config import TrainConfig

__all__ = ["TimeLeft", "learning_rate_factor"]


class TimeLeft:
    """How much of the seconds for optimiser steps has passed; without a limit it is never over."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self._passed = 0.0
        self.seconds_of_last = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds of the block."""
        started = time.perf_counter()
        yield
        self.seconds_of_last = time.perf_counter() - started
        self._passed += self.seconds_of_last

    @property
    def share_passed(self) -> float:
        """From 0 to 1."""
        return min(1.0, self._passed / self._seconds)

    @property
    def is_over(self) -> bool:
        """Whether it has all passed."""
        return self._passed >= self._seconds


def learning_rate_factor(config: TrainConfig, total_steps: int | None, time_left: TimeLeft) -> Callable[[int], float]:
    """Return what the learning rate is multiplied by at a step, counted from 0."""

    def by_time(step: int) -> float:
        del step
        passed = time_left.share_passed
        if passed < config.warmup:
            return passed / config.warmup
        return _decay(config.schedule, (passed - config.warmup) / (1.0 - config.warmup))

    if total_steps is None:
        return by_time
    warmup_steps = math.ceil(config.warmup * total_steps)

    def by_steps(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return _decay(config.schedule, (step - warmup_steps) / max(1, total_steps - warmup_steps))

    return by_steps


def _decay(schedule: str, done: float) -> float:
    """Return what is left of the peak learning rate when so large a share of the steps after the warm-up is done."""
    if schedule == "linear":
        return max(0.0, 1.0 - done)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))) if schedule == "cosine" else 1.0
