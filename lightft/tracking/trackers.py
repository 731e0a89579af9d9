"""One run in one tracker: what Accelerate's trackers do, and what they leave to their packages."""

from __future__ import annotations

import importlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lightft.errors import InvalidSettingError
from lightft.tracking.settings import TRACKERS, Tracking
from lightft.tracking.values import KeptFile

__all__ = ["TrackedRun", "tracked_run"]


class TrackedRun(ABC):
    """One run in one tracker.

    Args:
        asked: project and options.
        run_name: what the tracker is to call the run.
        folder: the run's.
    """

    tracker: str

    def __init__(self, asked: Tracking, run_name: str, folder: Path) -> None:
        self.project = asked.project
        self.run_name = run_name
        self.folder = folder
        self.options = dict(asked.options.get(self.tracker, {}))
        self._module: Any = importlib.import_module(TRACKERS[self.tracker].module)
        self._accelerate: Any = None

    @property
    def address(self) -> str:
        """The server or folder; empty where the tracker has but one."""
        return ""

    @abstractmethod
    def start(self, run_id: str) -> str:
        """Begin the run, or go on with the one that the tracker knows as ``run_id``, and return its id."""

    def store(self, parameters: Mapping[str, Any]) -> None:
        """Store the run's parameters."""
        self._accelerate.store_init_configuration(dict(parameters))

    def log(self, numbers: Mapping[str, Any], step: int) -> None:
        """Log numbers at an optimiser step."""
        self._accelerate.log(dict(numbers), step=step)

    @abstractmethod
    def keep(self, files: Sequence[KeptFile]) -> None:
        """Keep files with the run."""

    def finish(self, *, failed: bool = False) -> None:
        """End the run; ``failed`` where training did not come to its end."""
        del failed
        self._accelerate.finish()

    def _begin(self, *names: str | Path, **options: Any) -> Any:
        # Accelerate brings torch, which a recipe that is only read does not need.
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        try:
            self._accelerate = LOGGER_TYPE_TO_CLASS[self.tracker](*names, **options)
        except TypeError as cause:
            raise InvalidSettingError(
                f"The options of {self.tracker!r} do not fit: {cause}. They are arguments of Accelerate's tracker: "
                f"{options}."
            ) from cause
        self._accelerate.start()
        return self._accelerate.tracker


class _MLflow(TrackedRun):
    tracker = "mlflow"

    @property
    def address(self) -> str:
        return str(self._module.get_tracking_uri())

    def start(self, run_id: str) -> str:
        # A run is not opened again while mlflow.set_experiment, which leaves this variable, has named another experiment.
        of_caller = os.environ.get("MLFLOW_EXPERIMENT_ID") if run_id else None
        if of_caller is not None:
            self._module.set_experiment(self.project)
        try:
            run = self._begin(self.project, run_id=run_id or None, **{"run_name": self.run_name, **self.options})
        finally:
            if of_caller is not None:
                self._module.set_experiment(experiment_id=of_caller)
        return str(run.info.run_id)

    def keep(self, files: Sequence[KeptFile]) -> None:
        for file in files:
            folder = PurePosixPath(file.place).parent
            self._accelerate.log_artifact(str(file.path), None if folder == PurePosixPath() else str(folder))

    def finish(self, *, failed: bool = False) -> None:
        if failed:
            self._module.end_run("FAILED")
        else:
            self._accelerate.finish()


class _TensorBoard(TrackedRun):
    tracker = "tensorboard"

    @property
    def address(self) -> str:
        given = self.options.get("logging_dir")
        return str(self.folder / "tensorboard" if given is None else Path(given) / self.run_name)

    def start(self, run_id: str) -> str:
        # What an earlier attempt left in the folder is not shown.
        new = {} if run_id else {"purge_step": 0}
        options = {name: value for name, value in self.options.items() if name != "logging_dir"}
        place = Path(self.address)
        self._begin(place.name, place.parent, **new, **options)
        return str(place)

    def keep(self, files: Sequence[KeptFile]) -> None:
        # TensorBoard keeps no files: it shows the report, and says where the rest is.
        texts = {file.place: file.path.read_text(encoding="utf-8") for file in files if file.path.suffix == ".md"}
        report = {"report": texts["report.md"]} if "report.md" in texts else {}
        self._accelerate.log({"folder": str(self.folder.resolve()), **report})


class _WithArtifacts(TrackedRun):
    """A tracker that keeps files as one artefact with a name of its own."""

    def keep(self, files: Sequence[KeptFile]) -> None:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.run_name)
        artifact = self._module.Artifact(name, type="run")
        for file in files:
            artifact.add_file(str(file.path), name=file.place)
        self._keep_artifact(artifact)

    @abstractmethod
    def _keep_artifact(self, artifact: Any) -> None: ...


class _WeightsAndBiases(_WithArtifacts):
    tracker = "wandb"

    def start(self, run_id: str) -> str:
        known = {"id": run_id, "resume": "allow"} if run_id else {}
        run = self._begin(self.project, **{"name": self.run_name, **self.options, **known})
        return str(run.id)

    def _keep_artifact(self, artifact: Any) -> None:
        self._accelerate.tracker.log_artifact(artifact)

    def finish(self, *, failed: bool = False) -> None:
        if failed:
            self._accelerate.tracker.finish(exit_code=1)
        else:
            self._accelerate.finish()


class _Trackio(_WithArtifacts):
    tracker = "trackio"

    def start(self, run_id: str) -> str:
        # Trackio goes on with a run by its name.
        known = {"name": run_id, "resume": "must"} if run_id else {"name": self.run_name}
        run = self._begin(self.project, **{**self.options, **known})
        return str(run.name)

    def _keep_artifact(self, artifact: Any) -> None:
        self._module.log_artifact(artifact)


_CLASSES: tuple[type[TrackedRun], ...] = (_MLflow, _TensorBoard, _Trackio, _WeightsAndBiases)


def tracked_run(tracker: str, asked: Tracking, run_name: str, folder: Path) -> TrackedRun:
    """Return a run in the tracker of that name; nothing has been sent yet."""
    kinds = {kind.tracker: kind for kind in _CLASSES}
    return kinds[tracker](asked, run_name, folder)
