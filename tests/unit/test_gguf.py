"""A GGUF file answers as the adapter it was made from, through transformers' own reader, or is not written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.errors import AdapterError
from lightft.exporters import gguf_file
from lightft.exporters.gguf_file import name_of_splitting, why_not
from tests.tiny_models import (
    instructions,
    llama_config,
    llama_tokenizer,
    save_llama,
    unigram_tokenizer,
    wordpiece_tokenizer,
)


def train(base: Path, folder: Path) -> Path:
    """Return the folder of an adapter for language modelling."""
    loader = ModelLoader(str(base), task="causal-lm", dtype="float32")
    trainer = LoRATrainer(loader, epochs=2, batch_size=4, learning_rate=1e-2, progress=False)
    return trainer.save(trainer.train(instructions()), folder)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a tiny LLaMA with a chat template."""
    folder = tmp_path_factory.mktemp("trained")
    return train(save_llama(folder / "base"), folder / "adapter")


@pytest.fixture(scope="module")
def exported(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter as GGUF in F32."""
    return lightft.export(adapter, to="gguf", out=tmp_path_factory.mktemp("exported") / "out", precision="F32")


def tensors_of(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.gguf")
    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


def field(folder: Path, name: str) -> Any:
    (file,) = folder.glob("*.gguf")
    return gguf.GGUFReader(file).get_field(name).contents()


# --- what is written


def test_transformers_reads_the_file_as_the_adapter_answers(adapter: Path, exported: Path) -> None:
    alone = AutoModelForCausalLM.from_pretrained(exported, gguf_file="model-F32.gguf", dtype=torch.float32)
    ids = torch.arange(4, 44).reshape(2, 20)
    with torch.inference_mode():
        found, expected = (model(input_ids=ids).logits for model in (alone, lightft.load(adapter).model))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(adapter.parent / "base")
    with torch.inference_mode():
        assert (base(input_ids=ids).logits - expected).abs().max() > 0.1


def test_the_tokenizer_in_the_file_is_the_models(adapter: Path, exported: Path) -> None:
    alone = AutoTokenizer.from_pretrained(exported, gguf_file="model-F32.gguf")
    own = lightft.load(adapter).tokenizer
    conversation = [{"role": "user", "content": "say the film"}, {"role": "assistant", "content": "the film, 12"}]
    assert alone.apply_chat_template(conversation, tokenize=False) == own.apply_chat_template(
        conversation, tokenize=False
    )
    text = own.apply_chat_template(conversation, tokenize=False)
    assert alone(text)["input_ids"] == own(text)["input_ids"]
    assert (alone.bos_token_id, alone.eos_token_id) == (own.bos_token_id, own.eos_token_id)


def test_lightft_opens_the_folder_and_writes_the_same(adapter: Path, exported: Path) -> None:
    prompt = "say the film about the sea"
    answer = lightft.load(exported).generate(prompt, max_new_tokens=12)
    assert answer == lightft.load(adapter).generate(prompt, max_new_tokens=12)


def test_the_folder_holds_the_file_its_certificate_and_a_card(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {"model-F32.gguf", "gguf_certificate.json", "README.md"}
    certificate = json.loads((exported / "gguf_certificate.json").read_text())
    assert certificate["agreement"]["rows"] == 256
    assert certificate["agreement"]["largest_logit_gap"] <= 1e-4
    assert certificate["tokens"]["texts"] >= 8
    assert certificate["written"]["bytes"] == (exported / "model-F32.gguf").stat().st_size


def test_llama_cpp_is_told_what_it_asks_for(adapter: Path, exported: Path) -> None:
    config, tokenizer = lightft.load(adapter).model.config, lightft.load(adapter).tokenizer
    assert field(exported, "general.architecture") == "llama"
    assert field(exported, "llama.attention.head_count_kv") == config.num_key_value_heads
    assert field(exported, "llama.rope.freq_base") == pytest.approx(config.rope_parameters["rope_theta"])
    assert field(exported, "tokenizer.ggml.model") == "gpt2"
    assert field(exported, "tokenizer.ggml.pre") == "gpt-2"
    assert field(exported, "tokenizer.ggml.add_bos_token") is True
    assert field(exported, "tokenizer.ggml.add_eos_token") is False
    assert field(exported, "tokenizer.chat_template") == tokenizer.chat_template
    types = field(exported, "tokenizer.ggml.token_type")
    assert {index for index, kind in enumerate(types) if kind == gguf.TokenType.CONTROL} == {
        *tokenizer.added_tokens_decoder
    }


@pytest.mark.parametrize("precision", ["F16", "BF16", "Q8_0"])
def test_weights_are_held_in_the_precision_asked_for(adapter: Path, tmp_path: Path, precision: str) -> None:
    texts = [example.text for example in instructions()] * 22
    out = lightft.export(adapter, to="gguf", out=tmp_path / "out", precision=precision, probe=texts)
    for name, tensor in tensors_of(out).items():
        assert tensor.tensor_type.name == ("F32" if "norm" in name else precision)
    certificate = json.loads((out / "gguf_certificate.json").read_text())
    assert certificate["written"]["file"] == f"model-{precision}.gguf"
    assert certificate["probe"]["random_rows"] == 0


def test_a_tied_output_layer_is_not_written_twice(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer(chat=False)
    config = llama_config(len(tokenizer) + 3)  # more outputs than tokens, as many models have
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    out = lightft.export(
        train(tmp_path / "base", tmp_path / "adapter"), to="gguf", out=tmp_path / "out", precision="F32"
    )
    assert "output.weight" not in tensors_of(out)
    assert field(out, "tokenizer.ggml.tokens")[-1] == f"[PAD{len(tokenizer) + 2}]"


def test_each_head_is_reordered_for_neighbouring_rotation() -> None:
    rows = np.arange(2 * 6 * 1, dtype=np.float32).reshape(12, 1)
    reordered = gguf_file._in_neighbouring_pairs(rows, heads=2)[:, 0]
    assert reordered.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


# --- how a tokenizer splits


def split_by(*steps: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([pre_tokenizers.ByteLevel(add_prefix_space=False)], "gpt-2"),
        ([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)], "smollm"),
        (
            [
                pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ],
            "llama-bpe",
        ),
        ([pre_tokenizers.ByteLevel(add_prefix_space=True)], None),
        ([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)], None),
        ([pre_tokenizers.Metaspace()], None),
    ],
    ids=["gpt-2", "smollm", "llama-3", "space-first", "numbers-whole", "metaspace"],
)
def test_a_way_of_splitting_has_llama_cpps_name_or_none(steps: list[Any], name: str | None) -> None:
    assert name_of_splitting(split_by(*steps)) == name


# --- refused


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (AutoConfig.for_model("gpt2"), "its base is a 'gpt2'"),
        (AutoConfig.for_model("mistral"), "its base is a 'mistral'"),
        (AutoConfig.for_model("llama", attention_bias=True), "its layers have biases"),
        (AutoConfig.for_model("llama", head_dim=32), "do not make up the hidden size"),
        (
            AutoConfig.for_model("llama", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            r"its positions are scaled \('linear'\)",
        ),
    ],
    ids=["gpt2", "mistral", "biases", "head-size", "positions"],
)
def test_another_architecture_is_refused_by_name(config: Any, reason: str) -> None:
    assert re.search(reason, why_not(config, llama_tokenizer(chat=False)))


def test_a_tokenizer_of_another_kind_is_refused_by_name() -> None:
    config = llama_config(300)
    assert why_not(config, llama_tokenizer(chat=True)) is None
    assert "is a WordPiece" in why_not(config, wordpiece_tokenizer())
    assert "is a Unigram" in why_not(config, unigram_tokenizer())
    normalised = llama_tokenizer(chat=False)
    normalised.backend_tokenizer.normalizer = normalizers.NFC()
    assert "changes the text first (NFC)" in why_not(config, normalised)


def test_an_adapter_for_another_task_is_refused_with_the_way_out(tmp_path: Path) -> None:
    base = save_base(Pair("bert", "text-classification"), tmp_path / "base", with_head=False)
    task = "text-classification"
    trainer = LoRATrainer(ModelLoader(str(base), task=task, labels=LABELS[task]), max_steps=1, progress=False)
    adapter = trainer.save(trainer.train(examples(task)), tmp_path / "adapter")
    with pytest.raises(AdapterError, match="is for text-classification; .* Export to 'merged' or 'onnx'"):
        lightft.export(adapter, to="gguf", out=tmp_path / "out" / "gguf")
    assert not (tmp_path / "out").exists()


def test_a_language_model_that_is_no_llama_is_refused_before_it_is_merged(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer(chat=False)
    config = AutoConfig.for_model(
        "gpt2", n_embd=64, n_layer=1, n_head=2, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    adapter = train(tmp_path / "base", tmp_path / "adapter")
    with pytest.raises(
        AdapterError, match="its base is a 'gpt2'.*Export to 'merged', and convert that folder with llama.cpp"
    ):
        lightft.export(adapter, to="gguf", out=tmp_path / "out" / "gguf")
    assert not (tmp_path / "out").exists()


def test_a_file_that_answers_otherwise_is_refused_and_leaves_nothing(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "_in_neighbouring_pairs", lambda values, heads: values)
    with pytest.raises(AdapterError, match=r"In F16, the GGUF file answers \d+\.\d+% of .* Nothing was written"):
        lightft.export(adapter, to="gguf", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_splits_texts_otherwise_is_refused_and_leaves_nothing(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf.GGUFWriter.add_token_merges
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_merges", lambda writer, merges: add(writer, merges[:5]))
    with pytest.raises(AdapterError, match="splits .* into other tokens than the adapter's"):
        lightft.export(adapter, to="gguf", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
