"""Export to one ordinary checkpoint: the adapter's update added into the base's weights, and a certificate of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightft.checkpoint import MANIFEST_NAME, Manifest, whole_or_nothing
from lightft.errors import AdapterError
from lightft.exporters.certificate import Held, certify
from lightft.exporters.exporter import register
from lightft.exporters.model_card import write_model_card
from lightft.inference import load
from lightft.models import head_modules, provenance_of
from lightft.models.precision import compute_dtype
from lightft.models.quantization import quantization_config
from lightft.models.quiet import quiet_transformers

__all__ = ["merged", "merged_model", "refuse_unmergeable"]

_CPU = torch.device("cpu")


@register("merged")
def merged(
    adapter: Path,
    out: Path,
    *,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    quantization: Literal["nf4", "int8", None] = None,
    probe: Sequence[str] | None = None,
) -> Path:
    """Write a checkpoint that ``from_pretrained`` and ``pipeline`` open alone, with the labels in its config.

    A 4-bit base is dequantised first: the update was learned against exactly those weights. Adding it to 4-bit weights
    would round it away, and adding it to the original ones would put it on a base it has not seen. The sum is made in
    float32 and only then rounded.

    The model is then opened from disk and compared with the adapter on its own base, on the texts of ``probe`` and, up to
    256 rows, on random tokens; the figures stand beside it in ``merge_certificate.json``. In float32 no logit may differ
    by more than 1e-4, or by more than four times what float32 rounds off the adapter itself, where that is more; in less,
    99 % of the answers must agree. What keeps neither is not written.

    Args:
        adapter: the adapter folder.
        out: the folder to write.
        dtype: of the written weights.
        quantization: hold the linear layers of the merged base in 4 or 8 bits again; ``dtype`` is then of the rest.
        probe: texts to compare on, such as the model will read.

    Raises:
        AdapterError: the adapter cannot be added to weights, its base is held in 8 bits, or the merged model answers
            otherwise than the adapter does.
    """
    refuse_unmergeable(adapter)
    held = Held(dtype, quantization)
    with whole_or_nothing(out) as unfinished:
        # The card comes first, so that a run that cannot be read is refused before anything is loaded.
        write_model_card(adapter, unfinished, "checkpoint")
        model_class = _write(adapter, unfinished, held)
        certificate = certify(adapter, unfinished, _open(model_class, unfinished), held, texts=probe or ())
        certificate.write(unfinished)
    return out


def refuse_unmergeable(adapter: Path) -> None:
    """Refuse what no merging can come of, from its description alone."""
    described, is_peft = (adapter / MANIFEST_NAME).is_file(), (adapter / "adapter_config.json").is_file()
    if not described and not is_peft:
        raise AdapterError(
            f"{adapter} is no adapter folder: it has neither {MANIFEST_NAME} nor adapter_config.json. Name one that a "
            "trainer wrote, such as runs/NAME/adapter."
        )
    if described and Manifest.read(adapter).base["quantization"] == "int8":
        raise AdapterError(
            f"The adapter in {adapter} was trained on a base in 'int8' and cannot be merged: its activations are quantised "
            "too, and no weights give the same answers. Train on 'nf4' or on an unquantised base to merge, or use the "
            "adapter as it is."
        )
    if is_peft:
        kind = PeftType(PeftConfig.from_pretrained(str(adapter)).peft_type)
        if not issubclass(PEFT_TYPE_TO_TUNER_MAPPING[kind], BaseTuner):
            raise AdapterError(
                f"The adapter in {adapter} is of the kind {kind.value}, which adds learned vectors beside the base's "
                "weights and changes none of them, so that there is nothing to merge. Use it as it is, with lightft.load, "
                "or train 'lora' to merge."
            )


def _write(adapter: Path, folder: Path, held: Held) -> type[PreTrainedModel]:
    """Write the merged model, its tokenizer and what lightft must know to open it; return its class."""
    dtype = compute_dtype(held.dtype, _CPU)
    with quiet_transformers():
        predictor = load(adapter, device="cpu", dequantize=True)
        model = merged_model(predictor.model, adapter)
        if held.quantization is None:
            _save(model.to(dtype), folder)
        else:
            _write_quantized(model, folder, dtype, held.quantization)
    predictor.tokenizer.save_pretrained(folder)
    if (adapter / MANIFEST_NAME).is_file():
        manifest = Manifest.read(adapter)
        replace(manifest, base={**manifest.base, **asdict(held)}).write(folder)
    return type(model)


def merged_model(model: Any, adapter: Path) -> PreTrainedModel:
    """Return an ordinary model in float32 with the adapter's update in its weights; ``model`` cannot be used any more.

    Args:
        model: with its adapter, and no weight quantised.
        adapter: its folder, for what is said when it is refused.

    Raises:
        AdapterError: peft cannot merge it.
    """
    return _with_own_layers(_merge(model, adapter))


def _merge(model: Any, adapter: Path) -> PreTrainedModel:
    whole: PreTrainedModel = model.float()
    if not isinstance(whole, PeftModel):
        return whole
    try:
        sum_of_both: PreTrainedModel = whole.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError) as cause:
        raise AdapterError(
            f"peft cannot merge the adapter in {adapter}: {cause}. Use it as it is, with lightft.load."
        ) from cause
    return sum_of_both


def _with_own_layers(model: PreTrainedModel) -> PreTrainedModel:
    """Give back the ``Conv1D`` layers of GPT-2, which hold (inputs, outputs), where dequantising left ordinary ones."""
    with torch.device("meta"):
        sketch = type(model)(model.config)
    for name, own in sketch.named_modules():
        if not isinstance(own, Conv1D) or isinstance(layer := model.get_submodule(name), Conv1D):
            continue
        transposed = Conv1D(own.nf, own.nx)
        transposed.weight = nn.Parameter(layer.weight.detach().T.contiguous())
        transposed.bias = layer.bias
        model.set_submodule(name, transposed)
    return model


def _write_quantized(model: PreTrainedModel, folder: Path, dtype: torch.dtype, quantization: str) -> None:
    """Quantise while loading, as transformers does, and write that; the head and the output layer stay as they are."""
    found = provenance_of(model)
    head = head_modules(model, found.new_parameters if found is not None else ())
    output = model.get_output_embeddings()
    kept = [*head, *(name for name, module in model.named_modules() if module is output)]
    unrounded = folder / "unrounded"
    _save(model, unrounded)
    settings = quantization_config(quantization, compute_dtype=dtype, skip=kept)
    packed = type(model).from_pretrained(unrounded, dtype=dtype, quantization_config=settings, device_map={"": _CPU})
    shutil.rmtree(unrounded)
    for name in head:
        # transformers leaves out what a task head adds to a layer, such as a CRF's transitions.
        packed.set_submodule(name, model.get_submodule(name).to(dtype))
    _save(packed, folder)


def _save(model: PreTrainedModel, folder: Path) -> None:
    try:
        model.save_pretrained(folder)
    except SafetensorError as cause:
        # What safetensors raises when the disk is full is no OSError.
        raise OSError(str(cause)) from cause


def _open(model_class: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    with quiet_transformers():
        model: PreTrainedModel = model_class.from_pretrained(folder, device_map={"": _CPU})
    return model.eval()
