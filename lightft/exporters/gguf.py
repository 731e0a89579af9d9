"""Export of a language model to one GGUF file, which llama.cpp and what is built on it open, and a certificate of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from peft import PeftConfig
from transformers import PreTrainedTokenizerBase

from lightft.checkpoint import MANIFEST_NAME, Manifest, whole_or_nothing
from lightft.errors import AdapterError
from lightft.exporters.exporter import register
from lightft.exporters.gguf_certificate import certify_gguf
from lightft.exporters.gguf_file import name_of_splitting, why_not, write_gguf
from lightft.exporters.merged import merged_model, refuse_unmergeable
from lightft.exporters.model_card import write_model_card
from lightft.inference import load
from lightft.models import ModelLoader, find_model
from lightft.models.quiet import quiet_transformers

__all__ = ["gguf_file"]


@register("gguf")
def gguf_file(
    adapter: Path,
    out: Path,
    *,
    precision: Literal["F32", "F16", "BF16", "Q8_0"] = "F16",
    probe: Sequence[str] | None = None,
) -> Path:
    """Write ``model-PRECISION.gguf``: a causal language model of the LLaMA architecture with a byte-level BPE tokenizer.

    The adapter's update is added in float32, as ``"merged"`` does. The file is then opened by transformers and compared with
    the adapter on its own base, on the texts of ``probe`` and, up to 256 rows, on random tokens, and its tokenizer is
    compared with the adapter's on these texts and on some that are hard to split. 99.9 % of the answers must agree in F32,
    99 % in 16 bits, 95 % in 8 bits, and every token. What does not keep this is not written.

    Args:
        adapter: the adapter folder.
        out: the folder to write.
        precision: of the weights, by llama.cpp's names; vectors, such as those of a norm, are always held in F32.
        probe: texts to compare on, such as the model will read.

    Raises:
        AdapterError: the adapter cannot be merged, the architecture or the tokenizer is another, or the file answers
            otherwise than the adapter does.
    """
    _refuse_other_task(adapter)
    refuse_unmergeable(adapter)
    splitting = _refuse_unwritable(adapter)
    with whole_or_nothing(out) as unfinished:
        # The card comes first, so that a run that cannot be read is refused before anything is loaded.
        write_model_card(adapter, unfinished, "gguf")
        file = unfinished / f"model-{precision}.gguf"
        tokenizer = _write(adapter, file, precision, splitting)
        certify_gguf(adapter, tokenizer, file, precision, probe or ()).write(unfinished)
    return out


def _refuse_other_task(adapter: Path) -> None:
    described = (adapter / MANIFEST_NAME).is_file()
    task = Manifest.read(adapter).task if described else PeftConfig.from_pretrained(str(adapter)).task_type
    if task not in ("causal-lm", "CAUSAL_LM"):
        raise AdapterError(
            f"The adapter in {adapter} is for {task}; a GGUF file holds causal language models. "
            "Export to 'merged' or 'onnx'."
        )


def _refuse_unwritable(adapter: Path) -> str:
    """Refuse another architecture or tokenizer before weights are read; return how the tokenizer splits a text."""
    base = _base_of(adapter)
    tokenizer = base.load_tokenizer()
    reason = why_not(base.sketch("CAUSAL_LM").config, tokenizer)
    splitting = None if reason is not None else name_of_splitting(tokenizer, _gguf_of(base))
    if splitting is None:
        reason = reason or "llama.cpp's name for how its tokenizer splits a text is not known"
        raise AdapterError(
            f"The adapter in {adapter} cannot be written as GGUF: {reason}. Export to 'merged', and convert that folder "
            "with llama.cpp's own convert_hf_to_gguf.py."
        )
    return splitting


def _base_of(adapter: Path) -> ModelLoader:
    """Return what loads the model without its adapter; one that was trained whole is its own base."""
    if not (adapter / "adapter_config.json").is_file():
        return ModelLoader(str(adapter), task="causal-lm", dtype="float32", device="cpu")
    if (adapter / MANIFEST_NAME).is_file():
        recorded = Manifest.read(adapter).base
        name, revision = recorded["name"], recorded["revision"]
    else:
        config = PeftConfig.from_pretrained(str(adapter))
        name, revision = config.base_model_name_or_path, config.revision
    return ModelLoader(name, task="causal-lm", revision=revision, dtype="float32", device="cpu")


def _gguf_of(base: ModelLoader) -> Path | None:
    """Return the GGUF file that the base was read from, if it was."""
    source = find_model(base.name, base.revision)
    return Path(source.location) / source.gguf_file if source.gguf_file is not None else None


def _write(adapter: Path, file: Path, precision: str, splitting: str) -> PreTrainedTokenizerBase:
    """Write the merged model as a GGUF file and return its tokenizer; the model itself is forgotten."""
    with quiet_transformers():
        predictor = load(adapter, device="cpu", dequantize=True)
        model = merged_model(predictor.model, adapter)
    write_gguf(model, predictor.tokenizer, file, precision=precision, splitting=splitting)
    return predictor.tokenizer
