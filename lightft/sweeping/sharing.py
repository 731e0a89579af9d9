"""What the trainings of a sweep have in common and need only once: the loaded base, and the texts as token ids."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.models import ModelLoader
from lightft.records import Example
from lightft.tasks import Encoding, TaskHead

__all__ = ["SharedWork"]

_Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
_Encoded = tuple[list[Encoding], Mapping[str, int]]


class SharedWork:
    """Remembers the last base that was loaded, and all examples that were encoded.

    No training changes the base it is given, so that the next may have it. One base is held at a time: trainings on the
    same base had better follow one another.
    """

    def __init__(self) -> None:
        self._asked: ModelLoader | None = None
        self._loaded: _Loaded | None = None
        self._encoded: dict[tuple[tuple[Example, ...], int], _Encoded] = {}

    def head(self, head: TaskHead) -> TaskHead:
        """Return ``head``, but for loading and encoding through what is remembered. A sweep has one head."""
        kind: Any = type(head)
        shared = self

        class Sharing(kind):  # type: ignore[misc]
            def load_model(self, loader: ModelLoader) -> _Loaded:
                return shared._load(loader, super().load_model)

            def encode(
                self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
            ) -> _Encoded:
                key = (tuple(examples), max_length)
                if key not in shared._encoded:
                    shared._encoded[key] = super().encode(examples, tokenizer, max_length)
                return shared._encoded[key]

        copy: Any = object.__new__(Sharing)
        vars(copy).update(vars(head))
        sharing: TaskHead = copy
        return sharing

    def forget_base(self) -> None:
        """Give the memory of the base back; the next training loads its own."""
        self._asked = self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, loader: ModelLoader, load: Callable[[ModelLoader], _Loaded]) -> _Loaded:
        if self._loaded is None or self._asked != loader:
            self.forget_base()
            self._asked, self._loaded = loader, load(loader)
        return self._loaded
