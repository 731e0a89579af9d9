"""What a model card tells, wherever it is found: in a run, beside an adapter, or in a plain PEFT folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftConfig

from lightft.checkpoint import MANIFEST_NAME, Manifest
from lightft.errors import AdapterError
from lightft.exporters.hub import is_repository_name
from lightft.records import Run

__all__ = ["CardFacts", "facts_of", "is_hub_id", "shown_name"]

_TASK_OF_PEFT = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification", "CAUSAL_LM": "causal-lm"}


@dataclass(frozen=True)
class CardFacts:
    """What is known of a model.

    Attributes:
        name: the run's, or the folder's.
        task: registered name of the task.
        labels: the classes or entity types, in the model's order; empty where they are not known.
        base: ``name``, ``revision``, ``dtype`` and ``quantization`` of the base model, as far as they are known.
        kind: of the adapter.
        params: of the adapter.
        versions: of the packages that trained it.
        run: what was measured; None where nothing is recorded.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    base: Mapping[str, Any]
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None


def facts_of(of: Run | str | Path) -> CardFacts:
    """Return what is known of a run, a run's folder, or an adapter folder.

    Raises:
        AdapterError: the folder holds neither.
        DataError: the run is damaged.
    """
    if isinstance(of, Run):
        return _of_run(of)
    folder = Path(of)
    if (folder / "run.json").is_file():
        return _of_run(Run.load(folder))
    if folder.name == "adapter" and (folder.parent / "run.json").is_file():
        return _of_run(Run.load(folder.parent))
    if (folder / MANIFEST_NAME).is_file():
        told = Manifest.read(folder)
        return CardFacts(
            folder.absolute().name,
            told.task,
            told.labels,
            told.base,
            told.adapter.get("kind", "unknown"),
            told.adapter.get("params", {}),
            told.versions,
        )
    if (folder / "adapter_config.json").is_file():
        config = PeftConfig.from_pretrained(str(folder))
        base = {"name": config.base_model_name_or_path, "revision": config.revision}
        task = _TASK_OF_PEFT.get(str(config.task_type), str(config.task_type))
        return CardFacts(folder.absolute().name, task, (), base, str(config.peft_type.value).lower())
    raise AdapterError(
        f"{folder} holds neither a run nor an adapter: there is no run.json, {MANIFEST_NAME} or adapter_config.json in it. "
        "Name a folder that a trainer wrote, such as runs/NAME or runs/NAME/adapter."
    )


def _of_run(run: Run) -> CardFacts:
    return CardFacts(
        run.name,
        run.task,
        run.labels,
        run.model,
        run.adapter.get("kind", "unknown"),
        run.adapter.get("params", {}),
        run.environment.get("versions", {}),
        run,
    )


def is_hub_id(name: Any) -> bool:
    """Whether a name can be ``owner/name`` of the Hub, and is no folder of this machine."""
    return isinstance(name, str) and is_repository_name(name) and not Path(name).exists()


def shown_name(name: Any) -> str:
    """Return a name without the folders of the author's machine, which are nobody's business."""
    text = str(name)
    return Path(text).name if Path(text).expanduser().is_absolute() else text
