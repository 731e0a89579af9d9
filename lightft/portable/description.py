"""What an ONNX folder says of the model in it: everything that is needed to turn texts into its inputs and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightft.errors import AdapterError
from lightft.reading.decoding import PathScores, scores_of_valid_bio
from lightft.reading.tagging import DECODINGS

__all__ = ["DESCRIPTION_NAME", "PRECISIONS", "OnnxDescription", "is_onnx_folder"]

DESCRIPTION_NAME = "onnx.json"
PRECISIONS = ("float32", "int8")
_TASKS = ("text-classification", "token-classification")
_FORMAT = 1


def is_onnx_folder(folder: Path) -> bool:
    """Whether an exporter to ONNX wrote the folder."""
    return (folder / DESCRIPTION_NAME).is_file()


@dataclass(frozen=True)
class OnnxDescription:
    """What ``onnx.json`` says of the graph beside it.

    Attributes:
        task: ``"text-classification"`` or ``"token-classification"``.
        labels: classes or entity types in the order of the head.
        outputs: what each output of the graph stands for: the classes, or the BIO tags.
        max_length: tokens the model reads at once, special tokens included.
        precision: of the weights, ``"float32"`` or ``"int8"``.
        padding: the token id that fills up a row.
        cut: the side on which a classified text that is too long loses tokens, ``"right"`` or ``"left"``.
        decoding: how the tags of a text are chosen; None for text classification.
        chain: for ``"crf"``, the learned ``transitions``, ``starts`` and ``ends``; what BIO forbids has 0 there.
        base: of the base model, as in the adapter.
        adapter: ``kind`` and ``params``, where known.
        format: of this file.
    """

    task: str
    labels: tuple[str, ...]
    outputs: tuple[str, ...]
    max_length: int
    precision: str
    padding: int
    cut: str = "right"
    decoding: str | None = None
    chain: Mapping[str, Any] | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    format: int = _FORMAT

    def write(self, folder: Path) -> None:
        """Write ``onnx.json`` into ``folder``."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / DESCRIPTION_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> OnnxDescription:
        """Read ``onnx.json``.

        Raises:
            AdapterError: there is none, it was written by a later version, or it is damaged.
        """
        path = folder / DESCRIPTION_NAME
        if not path.is_file():
            raise AdapterError(
                f"{folder} is no ONNX folder: there is no {DESCRIPTION_NAME} in it. Name one that "
                "lightft.export(..., to='onnx') wrote."
            )
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            if described["format"] > _FORMAT:
                raise AdapterError(
                    f"{path} has format {described['format']}; this lightft reads up to {_FORMAT}. "
                    "Run: pip install --upgrade lightft"
                )
            names = {name: tuple(described[name]) for name in ("labels", "outputs")}
            found = cls(**{**described, **names})
            found._check()
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as cause:
            raise AdapterError(
                f"{path} is damaged ({cause}). Export the adapter again, or restore the file."
            ) from cause
        return found

    def chain_scores(self) -> PathScores | None:
        """Return the scores of how tags follow each other, −inf for what BIO forbids; None without a CRF."""
        if self.chain is None:
            return None
        learned = [np.array(self.chain[part], dtype=np.float64) for part in PathScores._fields]
        return PathScores(
            *(part + valid for part, valid in zip(learned, scores_of_valid_bio(self.outputs), strict=True))
        )

    def _check(self) -> None:
        """Refuse values that no exporter writes.

        Raises:
            TypeError: the message names the value.
        """
        accepted = {
            "task": _TASKS,
            "precision": PRECISIONS,
            "cut": ("left", "right"),
            "decoding": DECODINGS if self.task == "token-classification" else (None,),
        }
        for name, values in accepted.items():
            if getattr(self, name) not in values:
                raise TypeError(f"{name} is {getattr(self, name)!r}, not one of {', '.join(map(str, values))}")
        for name in ("max_length", "padding"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise TypeError(f"{name} is {getattr(self, name)!r}, not a whole number")
        if (self.decoding == "crf") != (self.chain is not None):
            raise TypeError("decoding='crf' and chain belong together")
