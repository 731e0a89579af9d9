"""How a LLaMA model and a byte-level BPE tokenizer are written as one GGUF file, and what cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightft.tasks.head import special_tokens_around

__all__ = ["name_of_splitting", "why_not", "write_gguf"]


_LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FILE_TYPES = {
    "F32": gguf.LlamaFileType.ALL_F32,
    "F16": gguf.LlamaFileType.MOSTLY_F16,
    "BF16": gguf.LlamaFileType.MOSTLY_BF16,
    "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


def why_not(config: Any, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return why a model cannot be written, as the end of a sentence; None if it can.

    What is written is the LLaMA that llama.cpp and transformers read alike, and a byte-level BPE, as GPT-2's, LLaMA 3's and
    SmolLM's are.

    Args:
        config: the model's.
        tokenizer: the model's.
    """
    return _why_not_model(config) or _why_not_tokenizer(tokenizer)


def _why_not_model(config: Any) -> str | None:
    if config.model_type != "llama":
        return f"its base is a {config.model_type!r}, and lightft writes 'llama' alone"
    if (rope := config.rope_parameters["rope_type"]) != "default":
        return f"its positions are scaled ({rope!r}), which transformers does not read from a GGUF file"
    if config.attention_bias or config.mlp_bias:
        return "its layers have biases (attention_bias or mlp_bias), which lightft does not write"
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        heads = f"{config.num_attention_heads} heads of {config.head_dim}"
        return f"its {heads} do not make up the hidden size, {config.hidden_size}"
    return None


def _why_not_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str | None:
    definition = _definition(tokenizer)
    kind, normalizer = definition["model"]["type"], definition["normalizer"]
    if kind != "BPE" or definition["model"]["byte_fallback"]:
        return f"its tokenizer is a {kind} that is not byte-level, and lightft writes byte-level BPE alone"
    if normalizer is not None:
        return f"its tokenizer changes the text first ({normalizer['type']}), which a GGUF file cannot say"
    return None


def name_of_splitting(tokenizer: PreTrainedTokenizerBase, base: Path | None = None) -> str | None:
    """Return llama.cpp's name for how a byte-level BPE splits a text before it merges; None if it is none of those known.

    Args:
        tokenizer: the model's.
        base: the GGUF file that the tokenizer was read from, which says it itself.
    """
    if base is not None and (stated := gguf.GGUFReader(base).get_field("tokenizer.ggml.pre")) is not None:
        return str(stated.contents())
    given = _definition(tokenizer)["pre_tokenizer"]
    steps = given["pretokenizers"] if given is not None and given["type"] == "Sequence" else [given]
    match [_step(step) for step in steps]:
        case [("ByteLevel", True)]:
            return "gpt-2"
        case [("Digits", True), ("ByteLevel", True)]:
            return "smollm"
        case [("Split", pattern), ("ByteLevel", False)] if pattern == _LLAMA_3_SPLIT:
            return "llama-bpe"
        case _:
            return None


def _step(step: dict[str, Any] | None) -> tuple[str, Any]:
    """Return the kind of one step of splitting, and what of it makes a difference."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": by_pattern}:
            return "ByteLevel", by_pattern
        case {"type": "Digits", "individual_digits": each}:
            return "Digits", each
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return "Split", pattern
        case _:
            return "unknown", None


def write_gguf(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: Path, *, precision: str, splitting: str
) -> None:
    """Write a model and its tokenizer, which were checked, as a GGUF file.

    Args:
        model: a LLaMA in float32.
        tokenizer: the model's, a byte-level BPE.
        file: where to.
        precision: ``"F32"``, ``"F16"``, ``"BF16"`` or ``"Q8_0"``.
        splitting: llama.cpp's name for how the tokenizer splits a text.
    """
    writer = gguf.GGUFWriter(file, "llama")
    _write_settings(writer, model.config)
    writer.add_file_type(_FILE_TYPES[precision])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_tokenizer(writer, tokenizer, model.config.vocab_size, splitting)
    _write_weights(writer, model, gguf.GGMLQuantizationType[precision])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_settings(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, size: int, splitting: str) -> None:
    names = {index: name for name, index in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    # A model may have more outputs than its tokenizer has tokens.
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(size)])
    writer.add_token_types([_token_type(index, names, added) for index in range(size)])
    writer.add_token_merges([" ".join(pair) for pair in _definition(tokenizer)["model"]["merges"]])
    for index, write in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if index is not None:
            write(index)
    before, after = special_tokens_around(tokenizer)
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    if tokenizer.chat_template is not None:
        writer.add_chat_template(_chat_templates(tokenizer.chat_template))


def _token_type(index: int, names: dict[int, str], added: dict[int, Any]) -> gguf.TokenType:
    if index not in names:
        return gguf.TokenType.UNUSED
    if index not in added:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added[index].special else gguf.TokenType.USER_DEFINED


def _chat_templates(given: str | dict[str, str]) -> str | list[dict[str, str]]:
    """Return one template, or several by name, as the writer takes them."""
    if isinstance(given, str):
        return given
    return [{"name": name, "template": template} for name, template in given.items()]


def _write_weights(writer: Any, model: PreTrainedModel, precision: gguf.GGMLQuantizationType) -> None:
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        if module == "lm_head" and config.tie_word_embeddings:
            # A file without an output layer says that it is the embedding.
            continue
        values = weight.float().numpy()
        own_name = module.rpartition(".")[2]
        if own_name in heads:
            values = _in_neighbouring_pairs(values, heads[own_name])
        held = _held(values, precision)
        writer.add_tensor(f"{names.get_name(module)}.{kind}", gguf.quants.quantize(values, held), raw_dtype=held)


def _in_neighbouring_pairs(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of each head: transformers rotates its two halves against each other, llama.cpp neighbours."""
    halves = values.reshape(heads, 2, -1, values.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def _held(values: NDArray[np.float32], precision: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """Return how a tensor is held: a vector in F32, and in F16 what does not divide into the blocks of ``precision``."""
    if values.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[precision]
    return precision if values.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _definition(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    definition: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return definition
