"""One training of a sweep: what it is made of decides its folder, so that what is finished is known by its content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightft.data import TaskData
from lightft.experiment import LoRATrainer, head_for
from lightft.metrics import build_metric
from lightft.models import ModelLoader, find_model
from lightft.records import Run
from lightft.sweeping.candidates import Candidate
from lightft.sweeping.sharing import SharedWork
from lightft.tasks import TaskHead
from lightft.train_config import TrainConfig
from lightft.training import Callback

__all__ = ["Job", "Workplace", "best_validation_score", "direction_of"]


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        name: of the run.
        candidate: the method.
        config: how it is trained; says the seed.
        data: the splits. Trials have no test split.
        parent: the folder in which the job's folder is.
        notes: what the run says of its settings besides, such as what its learning rate was chosen from.
    """

    name: str
    candidate: Candidate
    config: TrainConfig
    data: TaskData
    parent: Path
    notes: Mapping[str, Any] = field(default_factory=dict)

    def folder(self, workplace: Workplace) -> Path:
        """Return the job's own folder: named after the candidate, the seed and a digest of everything that matters."""
        config = {name: value for name, value in self.config.to_json().items() if name != "progress"}
        content = {
            "model": workplace.model_content,
            "quantization": self.candidate.quantization,
            "head": workplace.head_content,
            "adapter": self.candidate.adapter.to_json(),
            "training": config,
            "data": self.data.fingerprint,
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        return self.parent / f"{self.candidate.file_name}-seed-{self.config.seed}-{digest[:8]}"


class Workplace:
    """What all jobs of a sweep share.

    Args:
        loader: of the base model.
        data: the splits.
        head: the task head; by default the one of the loader's task and the data's labels.
    """

    def __init__(self, loader: ModelLoader, data: TaskData, head: TaskHead | None = None) -> None:
        self.loader = loader
        self.data = data
        self.plain_head = head or head_for(loader, data.train, data)
        self.shared = SharedWork()
        self.head = self.shared.head(self.plain_head)

    @cached_property
    def model_content(self) -> dict[str, Any]:
        """What makes the base the same as another."""
        source = find_model(self.loader.name, self.loader.revision)
        return {"name": self.loader.name, "digest": source.digest(), "dtype": self.loader.dtype}

    @cached_property
    def head_content(self) -> dict[str, Any]:
        """What makes the head the same as another."""
        head: Any = self.plain_head
        return {"name": head.name, **{item.name: getattr(head, item.name) for item in fields(head)}}

    def loader_of(self, candidate: Candidate, seed: int) -> ModelLoader:
        """Return the loader of a run: the seed gives the head its first weights."""
        return self.loader.replace(quantization=candidate.quantization or self.loader.quantization, seed=seed)

    def trainer(self, job: Job, callbacks: Sequence[Callback] = ()) -> LoRATrainer:
        """Return the trainer of a job."""
        return LoRATrainer(
            self.loader_of(job.candidate, job.config.seed),
            adapter=job.candidate.adapter,
            head=self.head,
            output_dir=job.folder(self),
            name=job.name,
            callbacks=callbacks,
            **job.config.to_json(),
        )

    def finished(self, job: Job) -> Run | None:
        """Return the job's run if it is on disk."""
        folder = job.folder(self)
        return Run.load(folder) if (folder / "run.json").is_file() else None

    def train(self, job: Job, callbacks: Sequence[Callback] = ()) -> Run:
        """Return the job's run, trained now if it is not on disk."""
        run = self.finished(job)
        if run is None:
            run = self.trainer(job, callbacks).fit(job.data)
        if all(run.training.get(name) == note for name, note in job.notes.items()) and run.name == job.name:
            return run
        run = replace(run, name=job.name, training={**run.training, **job.notes})
        run.save(job.folder(self))
        return run


def best_validation_score(run: Run) -> float:
    """Return a run's best score on the validation split, turned so that higher is better; ``nan`` without one."""
    metric = run.training["validation_metric"] or run.metrics[0]
    scores = [row[f"validation_{metric}"] for row in run.history if f"validation_{metric}" in row]
    return max((direction_of(metric, run.labels) * score for score in scores), default=math.nan)


def direction_of(metric: str, labels: Sequence[str]) -> int:
    """Return 1 where higher is better in a metric, else −1."""
    return 1 if build_metric(metric, labels).higher_is_better else -1
