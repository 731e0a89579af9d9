"""What every run of a sweep may spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightft.errors import InvalidSettingError

__all__ = ["Budget"]

_ENDLESS = 10**6


@dataclass(frozen=True)
class Budget:
    """What every run of a sweep may spend: so many optimiser steps, or so many seconds of them.

    Equal steps show what a method makes of the same rows, equal seconds what it makes of the same time. Epochs are begun
    anew until the budget is spent. With seconds the learning rate follows the share of them that has passed, and runs are
    not repeatable to the last bit.
    """

    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise InvalidSettingError("A budget is of steps or of seconds: Budget(steps=300) or Budget(seconds=120).")
        if self.steps is not None and self.steps < 1:
            raise InvalidSettingError(f"A budget of {self.steps} steps trains nothing. Give 1 or more.")
        if self.seconds is not None and not self.seconds > 0:
            raise InvalidSettingError(f"A budget of {self.seconds} seconds trains nothing. Give more than 0.")

    def applied_to(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return training settings that spend this budget.

        Raises:
            InvalidSettingError: the settings say themselves when training ends.
        """
        for name in ("epochs", "max_steps", "max_seconds", "patience"):
            if name in settings:
                raise InvalidSettingError(
                    f"The budget says when training ends, so {name}={settings[name]!r} cannot. Leave one of the two out."
                )
        if self.steps is not None:
            # An epoch has at least one step, so that these are always enough.
            return {**settings, "epochs": self.steps, "max_steps": self.steps}
        return {**settings, "epochs": _ENDLESS, "max_seconds": self.seconds}
