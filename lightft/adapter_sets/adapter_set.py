"""Several adapters over one base model in memory: choose one per call, or one for each row of a batch."""

from __future__ import annotations

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightft.adapter_sets.mixed_batches import MixedBatches, mixed_batches
from lightft.adapter_sets.shared_base import BasesInOneMemory
from lightft.errors import InvalidSettingError, UnknownNameError, suggest
from lightft.inference import Predictor
from lightft.records import Example, Prediction

__all__ = ["AdapterSet", "load_adapters"]

# With more rows for each adapter, a batch for each is faster on a CPU than all in one pass.
_FEW_ROWS = 4

_Row = TypeVar("_Row")


def load_adapters(adapters: Mapping[str, str | Path], *, base: str | None = None, device: str = "auto") -> AdapterSet:
    """Open several adapters of one base, which is held in memory once.

    Args:
        adapters: folders that trainers wrote, by the names they are to have here; of any kinds and tasks.
        base: where the base model is now, when it moved since training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …

    Raises:
        AdapterError: a folder holds no adapter of ours, or one of another base than the first.
        ModelLoadError: the base model cannot be found.
    """
    opened = AdapterSet(base=base, device=device)
    for name, folder in adapters.items():
        opened.add(name, folder)
    return opened


class AdapterSet(Mapping[str, Predictor]):
    """Predictors by name, of adapters over one base in memory; ``adapters["news"]`` is an ordinary Predictor.

    Each adapter has layers of its own over shared weights: choosing one changes nothing, and several may be used at once
    from different threads.

    Args:
        base: where the base model is now, when it moved since training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, …
    """

    def __init__(self, *, base: str | None = None, device: str = "auto") -> None:
        self._bases = BasesInOneMemory(base, device)
        self._predictors: dict[str, Predictor] = {}
        self._mixed: list[MixedBatches] | None = None
        self._changing = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters' names, in the order in which they were added."""
        return tuple(self._predictors)

    def add(self, name: str, folder: str | Path) -> None:
        """Open one more adapter of the same base.

        Raises:
            InvalidSettingError: there is an adapter of that name.
            AdapterError: the folder holds no adapter of ours, or one of another base.
        """
        with self._changing:
            if name in self._predictors:
                raise InvalidSettingError(
                    f"There is an adapter {name!r} already. Choose another name, or remove it first."
                )
            self._predictors[name] = self._bases.open(name, Path(folder))
            self._mixed = None

    def remove(self, name: str) -> None:
        """Let go of an adapter; the base stays.

        Raises:
            UnknownNameError: there is none of that name.
        """
        with self._changing:
            self[name]
            self._predictors = {other: kept for other, kept in self._predictors.items() if other != name}
            self._mixed = None

    def __getitem__(self, name: str) -> Predictor:
        """Return the predictor of one adapter.

        Raises:
            UnknownNameError: there is none of that name.
        """
        try:
            return self._predictors[name]
        except KeyError:
            raise UnknownNameError(f"No adapter named {name!r}. {suggest(name, self._predictors)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self._predictors)

    def __call__(self, texts: str | Iterable[str], *, adapter: str | Sequence[str]) -> Any:
        """Answer texts as ``Predictor`` does.

        Args:
            texts: one text, a list, or a stream.
            adapter: the name of one adapter for all, or one name for each text of a list.

        Raises:
            UnknownNameError: there is no adapter of a name.
            InvalidSettingError: there are not as many names as texts.
        """
        if isinstance(adapter, str):
            return self[adapter](texts)
        if isinstance(texts, str):
            raise InvalidSettingError(f"adapter={list(adapter)!r} for one text. Give one name, or a list of texts.")
        return self._by_row(list(texts), adapter, Predictor.__call__)

    def predict(self, examples: Sequence[Example], *, adapter: str | Sequence[str]) -> list[Prediction]:
        """Return one prediction per example, in order.

        Args:
            examples: what to predict.
            adapter: the name of one adapter for all, or one name for each example.

        Raises:
            UnknownNameError: there is no adapter of a name.
            InvalidSettingError: there are not as many names as examples.
        """
        if isinstance(adapter, str):
            return self[adapter].predict(examples)
        return self._by_row(examples, adapter, Predictor.predict)

    def _by_row(
        self, rows: Sequence[_Row], names: Sequence[str], ask: Callable[[Predictor, Any], list[Any]]
    ) -> list[Any]:
        if len(names) != len(rows):
            raise InvalidSettingError(
                f"There are {len(names)} adapter names for {len(rows)} rows. Give one for each, or one name for all."
            )
        answers: list[Any] = [None] * len(rows)
        for predictor, places in self._passes(names):
            for place, answer in zip(places, ask(predictor, [rows[place] for place in places]), strict=True):
                answers[place] = answer
        return answers

    def _passes(self, names: Sequence[str]) -> Iterator[tuple[Predictor, list[int]]]:
        """Yield what answers rows, and which: adapters that fit into one pass together, every other by itself."""
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows_of.setdefault(name, []).append(row)
        predictors = {name: self[name] for name in rows_of}
        for batches in self._mixed_batches() if len(rows_of) > 1 else ():
            together = [name for name in rows_of if name in batches.names]
            rows = sorted(row for name in together for row in rows_of[name])
            if len(together) > 1 and len(rows) <= _FEW_ROWS * len(together):
                yield batches.predictor([names[row] for row in rows]), rows
                rows_of = {name: rows for name, rows in rows_of.items() if name not in together}
        for name, rows in rows_of.items():
            yield predictors[name], rows

    def _mixed_batches(self) -> list[MixedBatches]:
        with self._changing:
            if self._mixed is None:
                self._mixed = mixed_batches(self._predictors)
            return self._mixed
