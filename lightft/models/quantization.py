"""Load a base model in 4 or 8 bits through bitsandbytes, on CPU as on GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lightft.errors import AdapterError, InvalidSettingError, suggest

__all__ = [
    "QUANTIZATIONS",
    "dequantized",
    "guard_cpu_kernels",
    "int8_tensors",
    "keep_int8_scales",
    "quantization_config",
    "quantization_of",
]

QUANTIZATIONS = ("nf4", "int8")


def quantization_config(kind: str, *, compute_dtype: torch.dtype, skip: Sequence[str]) -> Any:
    """Return the ``BitsAndBytesConfig`` of one kind.

    ``"nf4"`` is 4-bit NormalFloat with double quantisation (Dettmers et al. 2023, arXiv:2305.14314), ``"int8"`` is
    LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339).

    Args:
        kind: one of QUANTIZATIONS.
        compute_dtype: what 4-bit weights are dequantised to for each product.
        skip: modules that stay as they are: the head is never quantised.

    Raises:
        InvalidSettingError: ``kind`` is neither.
    """
    if kind not in QUANTIZATIONS:
        raise InvalidSettingError(f"No quantization named {kind!r}. {suggest(kind, QUANTIZATIONS)}")
    from transformers import BitsAndBytesConfig

    # A name that nothing ends with keeps the library from adding its own guess of what the head is.
    skipped = list(skip) or ["lightft-skips-nothing"]
    if kind == "int8":
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_cast_notice)
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=skipped,
    )


def dequantized(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    """Return ``model`` with ordinary float32 layers that hold the values its 4-bit weights stand for.

    Raises:
        AdapterError: ``kind`` is ``"int8"``: its activations are quantised too, so that no weights give its answers.
    """
    if kind != "nf4":
        raise AdapterError(
            f"A base in {kind!r} cannot be dequantised or merged: its activations are quantised too, and no weights give "
            "the same answers. Train on 'nf4' or on an unquantised base to merge, or use the adapter as it is."
        )
    plain: PreTrainedModel = model.dequantize(dtype=torch.float32)
    plain.is_loaded_in_4bit = False
    return plain.float()


def quantization_of(model: PreTrainedModel) -> str | None:
    """Return ``"nf4"`` or ``"int8"`` for a model that is held in 4 or 8 bits, else None."""
    settings = model.config.to_dict().get("quantization_config")
    if settings is None:
        return None
    plain = settings if isinstance(settings, dict) else settings.to_dict()
    return "nf4" if plain["load_in_4bit"] else "int8"


def _is_no_cast_notice(record: logging.LogRecord) -> bool:
    """Leave out that inputs become float16, which is how the method works, said at every product of every layer."""
    return "inputs will be cast" not in record.getMessage()


def guard_cpu_kernels(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for its inference-only CPU kernel.

    On processors with AVX512-BF16 the first forward in eval mode repacks each weight; gradients taken afterwards are
    wrong and merging yields garbage. The flag is set in ``__init__``, so it must be cleared on every instance.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def keep_int8_scales(model: nn.Module) -> None:
    """Let DoRA train on 8-bit layers held on a CPU.

    It reads the weight's values at every step, for which peft puts a new parameter in the place of the weight, one
    without its scales; bitsandbytes would take those, as missing, for the layer's.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear8bitLt):
            module.register_forward_pre_hook(_give_back_scales)


def _give_back_scales(layer: Any, args: Any) -> None:
    del args
    if layer.weight.CB is not None and layer.weight.SCB is None:
        layer.weight.SCB = layer.state.SCB


def int8_tensors(model: nn.Module) -> list[torch.Tensor]:
    """Return the integers and scales of every 8-bit layer, after moving them to where the layer keeps them in use.

    bitsandbytes takes them off the weight at a layer's first forward pass; another layer on the same weight would then
    find none, and quantise the integers as if they were weights.
    """
    import bitsandbytes

    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear8bitLt)]
    for layer in layers:
        if layer.weight.CB is not None:
            layer.init_8bit_state()
    return [tensor for layer in layers for tensor in (layer.state.CB, layer.state.SCB) if tensor is not None]
