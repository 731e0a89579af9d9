"""An explanation shows, before training, exactly what training would train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForTokenClassification,
)

from lightft import AdapterSpec, ModelLoader
from lightft.adapters.attach import attach_adapter
from lightft.adapters.explaining import Explanation, TrainedModule, explain_adapter
from lightft.errors import AdapterError
from lightft.models import count_parameters
from tests.tiny_models import LABELS

HEAD = 2 * 64 + 2


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    model, _ = ModelLoader(str(folder), **{"labels": LABELS, "dtype": "float32", **settings}).load_model()
    return model


def gpt2() -> PreTrainedModel:
    return GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=96,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def sizes(explanation: Explanation, what: str) -> dict[str, int]:
    return {row.module: row.parameters for row in explanation.rows if row.what == what}


# --- what is shown


def test_lora_is_its_rank_times_both_sides_of_each_layer_and_the_whole_head(tiny_bert: Path) -> None:
    explanation = explain_adapter(AdapterSpec("lora", r=4), load(tiny_bert))
    adapters = sizes(explanation, "adapter")
    assert len(adapters) == 2 * 6 + 1
    assert adapters["bert.encoder.layer.0.attention.self.query"] == 4 * (64 + 64)
    assert adapters["bert.encoder.layer.1.intermediate.dense"] == 4 * (64 + 128)
    assert sizes(explanation, "head") == {"classifier": HEAD}
    shapes = {row.module: row.shape for row in explanation.rows}
    assert shapes["bert.encoder.layer.0.intermediate.dense"] == (128, 64)
    assert shapes["classifier"] == (2, 64)


def test_fused_transposed_layers_are_shown_as_they_are_stored() -> None:
    explanation = explain_adapter(AdapterSpec("lora", r=4, targets="query-value"), gpt2())
    assert explanation.rows[0] == TrainedModule(
        "transformer.h.0.attn.c_attn", "adapter", (64, 3 * 64), 4 * (64 + 3 * 64)
    )
    assert sizes(explanation, "head") == {"score": 2 * 64}


@pytest.mark.parametrize(
    "spec",
    [
        AdapterSpec("lora"),
        AdapterSpec("lora", targets="attention in last-1-layers", bias="all"),
        AdapterSpec("dora"),
        AdapterSpec("adalora"),
        AdapterSpec("vera", r=8),
        AdapterSpec("ia3"),
        AdapterSpec("pissa"),
        AdapterSpec("prompt-tuning"),
        AdapterSpec("p-tuning"),
        AdapterSpec("bias-only"),
        AdapterSpec("head-only"),
        AdapterSpec.of(LoraConfig(r=2, target_modules=["query", "value"])),
    ],
    ids=lambda spec: spec.kind,
)
def test_the_rows_are_what_peft_counts_as_trainable(tiny_bert: Path, spec: AdapterSpec) -> None:
    base = load(tiny_bert)
    explanation = explain_adapter(spec, base)
    adapted = attach_adapter(base, "SEQ_CLS", spec)
    assert isinstance(adapted, PeftModel)
    trainable, with_the_frozen_copy_of_the_head = adapted.get_nb_trainable_parameters()
    assert sum(row.parameters for row in explanation.rows) == explanation.trainable == trainable
    assert explanation.total == with_the_frozen_copy_of_the_head - HEAD
    assert len({(row.module, row.what) for row in explanation.rows}) == len(explanation.rows)


def test_every_module_is_a_module_of_the_model_that_was_given(tiny_llama: Path) -> None:
    for model in (load(tiny_llama), load(tiny_llama, task="causal-lm", labels=None)):
        names = {name for name, _ in model.named_modules()}
        for kind in ("lora", "ia3", "full"):
            assert {row.module for row in explain_adapter(AdapterSpec(kind), model).rows} <= names


def test_a_complete_language_model_has_no_head_in_the_table(tiny_llama: Path) -> None:
    explanation = explain_adapter(AdapterSpec("lora"), load(tiny_llama, task="causal-lm", labels=None))
    assert {row.what for row in explanation.rows} == {"adapter"}
    assert len(explanation.rows) == 2 * 7


def test_a_head_of_several_layers_is_shown_layer_by_layer(tiny_bert: Path) -> None:
    settings = BertConfig.from_pretrained(tiny_bert).to_dict() | {"model_type": "roberta"}
    explanation = explain_adapter(AdapterSpec("head-only"), RobertaForSequenceClassification(RobertaConfig(**settings)))
    assert sizes(explanation, "head") == {"classifier.dense": 64 * 64 + 64, "classifier.out_proj": HEAD}
    assert len(explanation.rows) == 2


def test_parts_of_the_base_that_the_checkpoint_lacked_are_head(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=96, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    from tests.tiny_models import wordpiece_tokenizer

    wordpiece_tokenizer().save_pretrained(tmp_path)
    assert set(sizes(explain_adapter(AdapterSpec("lora"), load(tmp_path)), "head")) == {
        "bert.pooler.dense",
        "classifier",
    }


def test_full_shows_every_weight_of_the_base_and_the_head_apart(tiny_bert: Path) -> None:
    base = load(tiny_bert)
    explanation = explain_adapter(AdapterSpec("full"), base)
    assert explanation.trainable == explanation.total == count_parameters(base)[1]
    assert sum(row.parameters for row in explanation.rows) == explanation.total
    assert {row.what for row in explanation.rows} == {"base", "head"}
    assert sizes(explanation, "base")["bert.encoder.layer.0.attention.self.query"] == 64 * 64 + 64
    assert sizes(explanation, "head") == {"classifier": HEAD}


def test_biases_are_rows_of_their_own(tiny_bert: Path) -> None:
    explanation = explain_adapter(AdapterSpec("lora", r=2, targets="query", bias="lora_only"), load(tiny_bert))
    query = "bert.encoder.layer.0.attention.self.query"
    assert sizes(explanation, "adapter")[query] == 2 * (64 + 64)
    assert sizes(explanation, "bias")[query] == 64
    assert len(sizes(explanation, "bias")) == 2


def test_a_prompt_stands_beside_the_model(tiny_bert: Path) -> None:
    explanation = explain_adapter(AdapterSpec("prompt-tuning", tokens=5), load(tiny_bert))
    assert explanation.rows[-1] == TrainedModule("prompt_encoder", "prompt", (5, 64), 5 * 64)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_layer_is_shown_unpacked(tiny_bert: Path, quantization: str) -> None:
    spec = AdapterSpec("lora")
    plain = explain_adapter(spec, load(tiny_bert))
    assert explain_adapter(spec, load(tiny_bert, quantization=quantization, dtype="auto")) == plain


# --- the model, and its task


def test_looking_changes_neither_the_model_nor_what_is_drawn_next(tiny_bert: Path) -> None:
    base = load(tiny_bert)
    before = {name: value.clone() for name, value in base.named_parameters()}
    flags = [value.requires_grad for value in base.parameters()]
    structure = str(base)
    state = torch.random.get_rng_state()
    for kind in ("lora", "pissa", "full", "bias-only"):
        explain_adapter(AdapterSpec(kind), base)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert str(base) == structure
    assert [value.requires_grad for value in base.parameters()] == flags
    assert all(torch.equal(before[name], value) for name, value in base.named_parameters())


def test_the_task_is_told_by_the_class_or_by_the_caller() -> None:
    config = BertConfig(
        vocab_size=96, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128
    )
    spec = AdapterSpec("lora")
    assert explain_adapter(spec, BertForSequenceClassification(config)).trainable > 0
    with pytest.raises(AdapterError, match="A BertModel does not tell its task"):
        explain_adapter(spec, BertModel(config))
    assert sizes(explain_adapter(spec, BertModel(config), task_type="FEATURE_EXTRACTION"), "head") == {}


# --- the printed table


def test_equal_blocks_are_one_line(tiny_bert: Path) -> None:
    spec = AdapterSpec("lora", r=4, targets="query-value")
    model = load(tiny_bert)
    assert str(spec.explain(model)).splitlines() == [
        "module                                          weight  modules  trained   what",
        "bert.encoder.layer.{0..1}.attention.self.query  64x64   x2       512 each  adapter",
        "bert.encoder.layer.{0..1}.attention.self.value  64x64   x2       512 each  adapter",
        "classifier                                      2x64    x1       130       head",
        f"lora trains 2,178 of {count_parameters(model)[1] + 4 * 512:,} parameters (2.54 %).",
    ]


def test_blocks_that_differ_stay_apart() -> None:
    def row(layer: str, size: int = 8) -> TrainedModule:
        return TrainedModule(layer, "adapter", (4, 4), size)

    layers = [row(f"h.{number}.attn") for number in (0, 1, 2, 5)] + [row("h.3.attn", 16)]
    experts = [row(f"h.{number}.experts.{expert}.up") for number in range(2) for expert in range(3)]
    ragged = [row("a.0.b.0"), row("a.0.b.1"), row("a.1.b.0")]
    printed = str(Explanation("lora", (*layers, *experts, *ragged), 1000, 10_000)).splitlines()
    assert [line.split()[0] for line in printed[1:-1]] == [
        "h.{0..2,5}.attn",
        "h.3.attn",
        "h.{0..1}.experts.{0..2}.up",
        "a.0.b.0",
        "a.0.b.1",
        "a.1.b.0",
    ]
    assert [line.split()[2] for line in printed[1:-1]] == ["x4", "x1", "x6", "x1", "x1", "x1"]
    assert printed[-1] == "lora trains 1,000 of 10,000 parameters (10 %)."


def test_a_number_that_is_the_same_everywhere_is_left_as_it_is() -> None:
    config = T5Config(vocab_size=96, d_model=64, num_layers=3, num_heads=4, d_ff=128, d_kv=16)
    printed = str(AdapterSpec("lora", targets="q").explain(T5ForTokenClassification(config)))
    assert "\ntransformer.encoder.block.{0..2}.layer.0.SelfAttention.q " in printed


def test_an_explanation_is_plain_data_without_folding(tiny_bert: Path) -> None:
    explanation = AdapterSpec("lora", targets="attention").explain(load(tiny_bert))
    data = json.loads(json.dumps(explanation.to_json()))
    assert [
        TrainedModule(row["module"], row["what"], tuple(row["shape"]), row["parameters"]) for row in data["rows"]
    ] == [*explanation.rows]
    assert (data["kind"], data["trainable"], data["total"]) == ("lora", explanation.trainable, explanation.total)
