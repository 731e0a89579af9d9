"""Tracking: which trackers a run is sent to, and whether texts go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightft.errors import InvalidSettingError, suggest
from lightft.extras import package_of_extra

__all__ = ["TRACKERS", "Tracking"]


@dataclass(frozen=True)
class _Package:
    module: str
    extra: str
    title: str


TRACKERS: Mapping[str, _Package] = {
    "mlflow": _Package("mlflow", "track", "MLflow"),
    "tensorboard": _Package("tensorboard", "track", "TensorBoard"),
    "trackio": _Package("trackio", "trackio", "Trackio"),
    "wandb": _Package("wandb", "wandb", "Weights & Biases"),
}
"""What each tracker needs, by the name that ``track=`` takes."""


@dataclass(frozen=True)
class Tracking:
    """Where runs are sent.

    Attributes:
        trackers: one name or several of ``"mlflow"``, ``"tensorboard"``, ``"trackio"`` and ``"wandb"``.
        project: MLflow's experiment, the project of Weights & Biases and Trackio.
        texts: also send files that hold texts: what a language model wrote, and the examples of a report or a prompt.
        options: by tracker, arguments of Accelerate's tracker, such as ``{"mlflow": {"tags": {"team": "search"}}}``; for
            TensorBoard ``logging_dir``, the folder that gets a folder for each run.

    Raises:
        InvalidSettingError: there is no such tracker.
    """

    trackers: str | Sequence[str]
    project: str = "lightft"
    texts: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.names, *self.options):
            if name not in TRACKERS:
                raise InvalidSettingError(f"There is no tracker {name!r}. {suggest(name, TRACKERS)}")
        if not self.names:
            raise InvalidSettingError(f"Tracking needs a tracker. {suggest('', TRACKERS)}")
        if not self.project:
            raise InvalidSettingError("The project has no name. Leave it out for 'lightft'.")

    @property
    def names(self) -> tuple[str, ...]:
        """The trackers' names, each once."""
        given = (self.trackers,) if isinstance(self.trackers, str) else self.trackers
        return tuple(dict.fromkeys(given))

    @classmethod
    def of(cls, track: str | Sequence[str] | Tracking) -> Tracking:
        """Return what ``track=`` asks for, after its packages were found.

        Raises:
            InvalidSettingError: there is no such tracker.
            MissingExtraError: its package is not installed.
        """
        asked = track if isinstance(track, Tracking) else cls(track)
        for name in asked.names:
            package = TRACKERS[name]
            package_of_extra(
                package.module, package.extra, f"Tracking with {package.title} needs the package {package.module}"
            )
        return asked
