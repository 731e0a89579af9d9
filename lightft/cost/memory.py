"""How many bytes a training needs, counted tensor by tensor, so that every machine and every run of it agree."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SavedForBackward", "TrainingMemory", "gradient_bytes", "optimizer_bytes", "weight_bytes"]


def weight_bytes(models: Iterable[nn.Module]) -> int:
    """Return the bytes of all parameters and buffers as they are held; what several models share counts once.

    A quantised weight counts with its packed bytes and with all that is needed to unpack it: scales, their own scales and
    code tables.
    """
    return _bytes_of(tensor for model in models for tensor in _held_by(model))


def gradient_bytes(models: Iterable[nn.Module]) -> int:
    """Return the bytes of the gradients that are there now; what several models share counts once."""
    return _bytes_of(
        parameter.grad for model in models for parameter in model.parameters() if parameter.grad is not None
    )


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of the state that ``optimizer`` has built up: AdamW's two moments and step counts."""
    return _bytes_of(
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    )


class SavedForBackward:
    """Counts what a forward pass in a ``with`` block keeps for its backward pass.

    Tensors that autograd saves pass through its hooks (``torch.autograd.graph.saved_tensors_hooks``) and come back as
    they are, so that nothing is computed otherwise. What functions written in Python keep on their own, as those of
    bitsandbytes do, is found by following the graph back from the loss. Each storage counts once and whole; those of the
    model's own weights and buffers do not count.

    Args:
        model: whose weights are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._saved: weakref.WeakSet[_Saved] = weakref.WeakSet()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, _Saved.give_back)

    def __enter__(self) -> SavedForBackward:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def bytes_for(self, loss: Tensor) -> int:
        """Return the bytes that are kept for the backward pass of ``loss``; to be asked before it."""
        saved = [one.tensor for one in self._saved] + list(_kept_by_python_functions(loss))
        # The forward pass may have moved weights, as 8-bit layers do, so that these are looked up afterwards.
        own = {_storage_of(tensor) for tensor in _held_by(self._model)}
        sizes = {_storage_of(tensor): tensor.untyped_storage().nbytes() for tensor in saved}
        return sum(size for storage, size in sizes.items() if storage not in own)

    def _keep(self, tensor: Tensor) -> _Saved:
        # Held by the graph alone: what the graph lets go of is not counted, and its address may be used again.
        saved = _Saved(tensor)
        self._saved.add(saved)
        return saved


class TrainingMemory:
    """Counts what a training needs, at its largest batch.

    Which that will be is not known beforehand, so that every batch is counted that is larger than all before it; no other
    one is looked at.

    Args:
        models: that are trained; several may share weights.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._models = models
        self._most_tokens = 0
        self._activation_bytes = 0
        self._gradient_bytes = 0
        self._counts_gradients = False

    @contextmanager
    def forward_pass(self, model: nn.Module, padded_tokens: int) -> Iterator[Callable[[Tensor], None]]:
        """Yield what is to be called with the loss of the forward pass in the block, before its backward pass."""
        if padded_tokens <= self._most_tokens:
            yield _do_not_count
            return
        self._most_tokens = padded_tokens
        with SavedForBackward(model) as saved:
            yield lambda loss: self._note(saved.bytes_for(loss))

    def after_backward(self) -> None:
        """Count the gradients of a step whose batch was counted."""
        if self._counts_gradients:
            self._counts_gradients = False
            self._gradient_bytes = gradient_bytes(self._models)

    def end_counting(self) -> None:
        """Take the largest batch there was for the largest there will be."""
        self._most_tokens = sys.maxsize

    def totals(self, optimizer: torch.optim.Optimizer) -> dict[str, int]:
        """Return the bytes of weights, gradients, the optimiser's state and activations, as in ``Run.cost``."""
        return {
            "weight_bytes": weight_bytes(self._models),
            "gradient_bytes": self._gradient_bytes,
            "optimizer_bytes": optimizer_bytes(optimizer),
            "activation_bytes": self._activation_bytes,
        }

    def _note(self, activation_bytes: int) -> None:
        self._activation_bytes = activation_bytes
        self._counts_gradients = True


def _do_not_count(loss: Tensor) -> None:
    """Stand in for counting where a batch is not larger than those before it."""


class _Saved:
    """A tensor that autograd saved."""

    def __init__(self, tensor: Tensor) -> None:
        # What a function gives refers back to the function, which would then hold itself.
        self.tensor = tensor.detach()

    def give_back(self) -> Tensor:
        return self.tensor


def _held_by(model: nn.Module) -> Iterator[Tensor]:
    """Yield every tensor that makes up a model's weights, some of them more than once."""
    for parameter in model.parameters():
        yield parameter
        yield from _tensors_in(parameter)
    yield from model.buffers()
    for module in model.modules():
        # An 8-bit layer of bitsandbytes moves integers and scales there at its first forward pass.
        state = vars(module).get("state")
        if type(state).__name__ == "MatmulLtState":
            yield from _tensors_in(state)


def _tensors_in(holder: Any) -> Iterator[Tensor]:
    """Yield the tensors among an object's own attributes, and those of the quantisation state of a 4-bit weight."""
    for value in vars(holder).values():
        if isinstance(value, Tensor):
            yield value
        elif type(value).__name__ == "QuantState":
            yield from _tensors_in(value)


def _kept_by_python_functions(loss: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that autograd functions written in Python keep as attributes, for autograd does not know them."""
    waiting: list[Any] = [loss.grad_fn]
    seen: set[Any] = {None}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        # Functions of torch itself have no attributes.
        for value in getattr(node, "__dict__", {}).values():
            values = value if isinstance(value, tuple | list) else [value]
            yield from (one for one in values if isinstance(one, Tensor))


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, each stretch of memory once.

    Tensors and not storages are counted: weights may be views of one storage that is a whole file.
    """
    sizes: dict[tuple[torch.device, int], int] = {}
    for tensor in tensors:
        place = (tensor.device, tensor.data_ptr())
        sizes[place] = max(sizes.get(place, 0), tensor.numel() * tensor.element_size())
    return sum(sizes.values())


def _storage_of(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()
