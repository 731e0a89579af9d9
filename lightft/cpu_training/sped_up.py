"""sped_up_on_cpu: a model computes by kernels that suit a processor while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from lightft.cpu_training.attention import grouped_attention
from lightft.cpu_training.dropout import use_fast_dropout
from lightft.cpu_training.lora_update import lora_in_base_precision

__all__ = ["sped_up_on_cpu"]


@contextmanager
def sped_up_on_cpu(model: nn.Module) -> Iterator[None]:
    """Train with faster dropout, LoRA updates and attention while the block runs; a model elsewhere stays as it is.

    Afterwards, and in eval mode, the model computes by its own layers. Only the dropout modules stay: in eval mode they do
    nothing.
    """
    if next(model.parameters()).device.type != "cpu":
        yield
        return
    use_fast_dropout(model)
    with ExitStack() as stack:
        stack.enter_context(lora_in_base_precision(model))
        stack.enter_context(grouped_attention(model))
        yield
