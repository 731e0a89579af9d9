"""What a run says about itself: model, adapter, settings, data, versions."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import fields
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.adapters import AdapterSpec
from lightft.checkpoint import Manifest, tokenizer_digest
from lightft.comparison import compare_runs
from lightft.data import TaskData
from lightft.models import provenance_of
from lightft.records import Run
from lightft.tasks import TaskHead
from lightft.train_config import TrainConfig

__all__ = [
    "describe_data",
    "describe_model",
    "environment_of",
    "finished_run",
    "interval_scores",
    "is_same_run",
    "manifest_of",
]

_PACKAGES = ("lightft", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers")


def describe_model(base: PreTrainedModel, head: TaskHead, spec: AdapterSpec, config: TrainConfig) -> dict[str, Any]:
    """Return what is trained on what and how: with the data, all that makes one run the same as another."""
    found = provenance_of(base)
    return {
        "task": head.name,
        "labels": tuple(head.labels),
        "model": {
            "name": found.source.name if found else base.name_or_path,
            "revision": found.source.revision if found else None,
            "digest": found.source.digest() if found else None,
            "dtype": found.dtype if found else str(base.dtype).removeprefix("torch."),
            "quantization": found.loader.quantization if found else None,
            "seed": found.loader.seed if found else 0,
        },
        "adapter": spec.to_json(),
        "training": {**config.to_json(), "head": _head_settings(head)},
        "seed": config.seed,
    }


def describe_data(data: TaskData) -> dict[str, Any]:
    """Return where the data came from, what is in it, and which split is tested."""
    tested = "test" if data.test else "validation"
    return {
        "source": data.source,
        "fingerprint": data.fingerprint,
        "test_fingerprint": data.split_fingerprint(tested),
        "tested_on": tested,
        "rows": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        **{key: value for key, value in data.notes.items() if key != "rows"},
    }


def interval_scores(run: Run) -> dict[str, dict[str, float]]:
    """Return value and interval of every metric of a run."""
    # What chose the epoch is the comparison's to judge; the run only says how it scored.
    measured = compare_runs([run], selected_on_test="warn").row(run.name).scores
    return {
        name: {"value": score.value}
        | ({"low": score.interval.low, "high": score.interval.high} if score.interval is not None else {})
        for name, score in measured.items()
    }


def manifest_of(
    described: dict[str, Any], tokenizer: PreTrainedTokenizerBase, head: TaskHead, max_length: int
) -> Manifest:
    """Return what ``lightft.json`` will say of a described model."""
    template = tokenizer.chat_template
    return Manifest(
        task=head.name,
        labels=tuple(head.labels),
        head=_head_settings(head),
        tagging_scheme="BIO" if head.task_type == "TOKEN_CLS" else None,
        base=described["model"],
        tokenizer_digest=tokenizer_digest(tokenizer),
        chat_template_digest=hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None,
        max_length=max_length,
        adapter=described["adapter"],
        training=described["training"],
        versions=_versions(),
    )


def finished_run(folder: Path) -> Run | None:
    """Return the run in ``folder``, None if there is none or it did not finish."""
    return Run.load(folder) if (folder / "run.json").is_file() else None


def is_same_run(run: Run, described: dict[str, Any]) -> bool:
    """Whether a finished run answers what is asked for now."""
    asked = Run(name=run.name, metrics=run.metrics, **described).to_json()
    stored = run.to_json()
    derived = {"best_epoch", "steps", "rate_chosen_from", "search"}
    return (
        all(asked[key] == stored[key] for key in ("task", "labels", "model", "adapter", "seed"))
        and asked["data"]["fingerprint"] == stored["data"]["fingerprint"]
        and asked["training"] == {name: value for name, value in stored["training"].items() if name not in derived}
    )


def _versions() -> dict[str, str]:
    return {package: version(package) for package in _PACKAGES}


def environment_of(device: torch.device) -> dict[str, Any]:
    """Return package versions, device, threads and date."""
    return {
        "versions": _versions(),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "date": date.today().isoformat(),
    }


def _head_settings(head: Any) -> dict[str, Any]:
    """Return the settings of a head beyond its labels, as plain data."""
    return {item.name: getattr(head, item.name) for item in fields(head) if item.name != "labels"}
