"""One base in memory, with the heads of several tasks, for any number of adapters."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.checkpoint import MANIFEST_NAME, Manifest, load_adapter, stored_shapes
from lightft.errors import AdapterError
from lightft.inference import Predictor, load_base
from lightft.models import head_modules, provenance_of, share_weights
from lightft.models.structure import is_inside
from lightft.tasks import TaskHead

__all__ = ["BasesInOneMemory"]


class BasesInOneMemory:
    """The base with a head of each task and label map that was asked for, over the weights that were loaded first."""

    def __init__(self, base: str | None, device: str) -> None:
        self._base = base
        self._device = device
        self._first: tuple[str, Manifest] | None = None
        self._with_head: dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase, TaskHead]] = {}
        self._leaves: dict[str, nn.Module] = {}

    def open(self, name: str, folder: Path) -> Predictor:
        """Put the adapter in ``folder`` on a structure of its own over the shared weights."""
        for file in (MANIFEST_NAME, "adapter_config.json"):
            if not (folder / file).is_file():
                raise AdapterError(
                    f"{folder} holds no adapter of ours: there is no {file} in it. A model trained whole or a plain PEFT "
                    "folder names no base to share: open it with lightft.load."
                )
        manifest = Manifest.read(folder)
        self._refuse_other_base(name, manifest)
        base, tokenizer, head = self._with_head_of(manifest, folder)
        self._first = self._first or (name, manifest)
        model = load_adapter(share_weights(base, self._overwritten(folder)), folder)
        return Predictor(model, tokenizer, head, manifest.max_length)

    def _overwritten(self, folder: Path) -> list[str]:
        """Name the weights of the base that an adapter replaces by its own: biases, where it trained them."""
        names = []
        for stored in stored_shapes(folder):
            # peft puts wrappers around the layers and heads that these biases belong to.
            module, _, weight = stored.removeprefix("base_model.model.").rpartition(".")
            inner = module.removesuffix(".base_layer").removesuffix(".original_module")
            if inner != module or inner in self._leaves:
                names.append(f"{inner}.{weight}")
        return names

    def _refuse_other_base(self, name: str, manifest: Manifest) -> None:
        if self._first is None:
            return
        first_name, first = self._first
        for what in ("digest", "quantization", "dtype") if first.base["digest"] else ("name", "quantization", "dtype"):
            here, there = first.base[what], manifest.base[what]
            if here != there:
                raise AdapterError(
                    f"{name!r} was trained on {manifest.base['name']!r} with {what} {there!r}, {first_name!r} on "
                    f"{first.base['name']!r} with {what} {here!r}: one base in memory cannot be both. Load it into a "
                    "set of its own."
                )

    def _with_head_of(
        self, manifest: Manifest, folder: Path
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, TaskHead]:
        wanted = repr((manifest.task, manifest.labels, manifest.head, manifest.tokenizer_digest))
        if wanted not in self._with_head:
            model, tokenizer, head = load_base(manifest, folder, base=self._base, device=self._device)
            self._with_head[wanted] = self._over_known_weights(model), tokenizer, head
        return self._with_head[wanted]

    def _over_known_weights(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return ``model`` with its base's layers replaced by the same ones of models that came before.

        Layers are found by their names; what is not head came out of one checkpoint, so that equal names are equal weights.
        """
        found = provenance_of(model)
        head = head_modules(model, found.new_parameters if found else ())
        memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        for name, leaf in _leaves_outside(model, head).items():
            known = self._leaves.get(name)
            if known is not None:
                memo[id(leaf)] = known
                # An output layer that is tied to the embeddings holds the same parameter.
                memo |= {id(own): shared for own, shared in zip(leaf.parameters(), known.parameters(), strict=True)}
        shared = copy.deepcopy(model, memo)
        self._leaves |= _leaves_outside(shared, head)
        return shared


def _leaves_outside(model: PreTrainedModel, head: Sequence[str]) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if next(module.children(), None) is None and not is_inside(name, head)
    }
