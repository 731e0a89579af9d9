"""Targets by intent mean the same parts of a model on every architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
)
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from lightft import ModelLoader
from lightft.contracts.tiny_models import CONFIGS, VOCABULARY
from lightft.errors import AdapterError
from lightft.models import head_modules, match_targets
from lightft.models.targets import feedforward_outputs, key_value_targets
from tests.tiny_models import LABELS

_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MORE = {
    "falcon": _DECODER,
    "phi3": {**_DECODER, "num_key_value_heads": 2},
    "gpt_neox": _DECODER,
    "xlm": {"vocab_size": VOCABULARY, "emb_dim": 64, "n_layers": 2, "n_heads": 4},
    "mixtral": {**_DECODER, "num_key_value_heads": 2, "num_local_experts": 2},
    "jamba": {
        **_DECODER,
        "num_key_value_heads": 2,
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 4,
        "expert_layer_offset": 3,
        "use_mamba_kernels": False,
    },
}
_QUERY_KEY_VALUE = "attention.self.query attention.self.key attention.self.value"
_GATED = "mlp.gate_proj mlp.up_proj mlp.down_proj"


@dataclass(frozen=True)
class Stack:
    """What a list of two equal blocks holds, in order; the last of ``mlp`` maps back to the hidden size."""

    blocks: str
    attention: str
    query_value: str
    key_value: str
    mlp: str

    def names(self, leaves: str) -> set[str]:
        return {f"{self.blocks}.{number}.{leaf}" for number in range(2) for leaf in leaves.split()}


def _bert_like(prefix: str) -> list[Stack]:
    return [
        Stack(
            f"{prefix}.encoder.layer",
            f"{_QUERY_KEY_VALUE} attention.output.dense",
            "attention.self.query attention.self.value",
            "attention.self.key attention.self.value",
            "intermediate.dense output.dense",
        )
    ]


def _llama_like(blocks: str = "model.layers", out: str = "o_proj", mlp: str = _GATED) -> list[Stack]:
    return [
        Stack(
            blocks,
            f"self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.{out}",
            "self_attn.q_proj self_attn.v_proj",
            "self_attn.k_proj self_attn.v_proj",
            mlp,
        )
    ]


def _fused(blocks: str, attention: str, mlp: str) -> list[Stack]:
    together = attention.split()[0]
    return [Stack(blocks, attention, together, together, mlp)]


def _named(blocks: str, modules: str, letters: str, mlp: str) -> list[Stack]:
    """A stack whose query, key, value and output layers are called ``letters``, in each of ``modules``."""
    q, k, v, o = letters.split()

    def of(*leaves: str) -> str:
        return " ".join(f"{module}.{leaf}" for module in modules.split() for leaf in leaves)

    return [Stack(blocks, of(q, k, v, o), of(q, v), of(k, v), mlp)]


GOLDEN: dict[str, list[Stack]] = {
    "bert": _bert_like("bert"),
    "roberta": _bert_like("roberta"),
    "electra": _bert_like("electra"),
    "distilbert": _named("distilbert.transformer.layer", "attention", "q_lin k_lin v_lin out_lin", "ffn.lin1 ffn.lin2"),
    "mpnet": _named("mpnet.encoder.layer", "attention.attn", "q k v o", "intermediate.dense output.dense"),
    "deberta": [
        Stack(
            "deberta.encoder.layer",
            "attention.self.in_proj attention.self.pos_proj attention.self.pos_q_proj attention.output.dense",
            "attention.self.in_proj",
            "attention.self.in_proj",
            "intermediate.dense output.dense",
        )
    ],
    "deberta-v2": [
        Stack(
            "deberta.encoder.layer",
            "attention.self.query_proj attention.self.key_proj attention.self.value_proj attention.output.dense",
            "attention.self.query_proj attention.self.value_proj",
            "attention.self.key_proj attention.self.value_proj",
            "intermediate.dense output.dense",
        )
    ],
    "modernbert": _fused("model.layers", "attn.Wqkv attn.Wo", "mlp.Wi mlp.Wo"),
    "gpt2": _fused("transformer.h", "attn.c_attn attn.c_proj", "mlp.c_fc mlp.c_proj"),
    "falcon": _fused(
        "transformer.h",
        "self_attention.query_key_value self_attention.dense",
        "mlp.dense_h_to_4h mlp.dense_4h_to_h",
    ),
    "gpt_neox": _fused(
        "gpt_neox.layers", "attention.query_key_value attention.dense", "mlp.dense_h_to_4h mlp.dense_4h_to_h"
    ),
    "phi3": _fused("model.layers", "self_attn.qkv_proj self_attn.o_proj", "mlp.gate_up_proj mlp.down_proj"),
    "opt": _llama_like("model.decoder.layers", "out_proj", "fc1 fc2"),
    "llama": _llama_like(),
    "qwen3": _llama_like(),
    "phi": _llama_like("model.layers", "dense", "mlp.fc1 mlp.fc2"),
    "bart": [
        *_named("model.encoder.layers", "self_attn", "q_proj k_proj v_proj out_proj", "fc1 fc2"),
        *_named("model.decoder.layers", "self_attn encoder_attn", "q_proj k_proj v_proj out_proj", "fc1 fc2"),
    ],
    "t5": [
        *_named(
            "transformer.encoder.block",
            "layer.0.SelfAttention",
            "q k v o",
            "layer.1.DenseReluDense.wi layer.1.DenseReluDense.wo",
        ),
        *_named(
            "transformer.decoder.block",
            "layer.0.SelfAttention layer.1.EncDecAttention",
            "q k v o",
            "layer.2.DenseReluDense.wi layer.2.DenseReluDense.wo",
        ),
    ],
}
OUTSIDE = {"bert": {"bert.pooler.dense"}, "electra": {"electra.embeddings_project"}}
"""Linear layers of the base that stand outside of every block."""
IN_BOTH_TABLES = sorted({*CONFIGS} & {*TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING})
COUNTS = {
    "xlm-roberta": (8, 4, 4, 6),
    "camembert": (8, 4, 4, 6),
    "mistral": (8, 4, 6, 7),
    "qwen2": (8, 4, 6, 7),
    "gemma": (8, 4, 6, 7),
}
"""How many layers are attention, query-value, mlp and last-1-layers."""


@cache
def classifier(architecture: str) -> PreTrainedModel:
    """A tiny random model with two blocks, or two in each half, and a classification head."""
    settings = {**CONFIGS, **MORE}[architecture]
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(architecture, **settings))


def targets(architecture: str, wanted: str | list[str]) -> tuple[str, ...]:
    model = classifier(architecture)
    return match_targets(model, wanted, head_modules(model))


# --- intents


@pytest.mark.parametrize("architecture", GOLDEN)
def test_intents_mean_these_layers(architecture: str) -> None:
    stacks = GOLDEN[architecture]

    def of_all(part: str) -> set[str]:
        return {name for stack in stacks for name in stack.names(getattr(stack, part))}

    assert set(targets(architecture, "attention")) == of_all("attention")
    assert set(targets(architecture, "query-value")) == of_all("query_value")
    assert set(targets(architecture, "mlp")) == of_all("mlp")
    outside = OUTSIDE.get(architecture, set())
    assert set(targets(architecture, "all")) == of_all("attention") | of_all("mlp") | outside


@pytest.mark.parametrize("architecture", GOLDEN)
def test_the_last_layers_are_those_of_each_stack(architecture: str) -> None:
    stacks = GOLDEN[architecture]
    both = {name for stack in stacks for name in stack.names(f"{stack.attention} {stack.mlp}")}
    last = {name for stack in stacks for name in both if name.startswith(f"{stack.blocks}.1.")}
    assert set(targets(architecture, "last-2-layers")) == both
    assert set(targets(architecture, "last-1-layers")) == last
    attention = set(targets(architecture, "attention"))
    assert set(targets(architecture, "attention in last-1-layers")) == attention & last


@pytest.mark.parametrize("architecture", GOLDEN)
def test_parts_for_rescaling_are_keys_values_and_what_ends_the_feedforward(architecture: str) -> None:
    model = classifier(architecture)
    head = head_modules(model)
    stacks = GOLDEN[architecture]
    assert set(key_value_targets(model, head)) == {name for stack in stacks for name in stack.names(stack.key_value)}
    ends = {name for stack in stacks for name in stack.names(stack.mlp.split()[-1])}
    assert set(feedforward_outputs(model, head)) == ends


@pytest.mark.parametrize("architecture", COUNTS)
def test_intents_find_as_many_layers_on_their_relatives(architecture: str) -> None:
    found = [len(targets(architecture, wanted)) for wanted in ("attention", "query-value", "mlp", "last-1-layers")]
    assert tuple(found) == COUNTS[architecture]


def test_every_architecture_of_the_matrix_is_tested_here() -> None:
    assert {*GOLDEN, *COUNTS, "albert", "xlnet"} >= {*CONFIGS}


@pytest.mark.parametrize("architecture", IN_BOTH_TABLES)
def test_query_value_is_what_peft_takes_where_it_knows_the_model(architecture: str) -> None:
    theirs = set(TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[architecture])
    # Of phi peft takes the feed-forward layers too.
    theirs -= {"fc1", "fc2"}
    assert targets(architecture, "query-value") == targets(architecture, sorted(theirs))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "t5"])
def test_key_value_and_feedforward_are_what_peft_takes_for_ia3(architecture: str) -> None:
    model = classifier(architecture)
    inputs = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[architecture]
    layers = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[architecture]
    assert feedforward_outputs(model) == match_targets(model, inputs)
    assert {*key_value_targets(model), *feedforward_outputs(model)} == {*match_targets(model, layers)}


def test_a_shared_block_cannot_be_told_from_the_last_layers() -> None:
    block = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    assert targets("albert", "attention") == tuple(
        f"{block}.attention.{leaf}" for leaf in ("query", "key", "value", "dense")
    )
    assert targets("albert", "query-value") == (f"{block}.attention.query", f"{block}.attention.value")
    assert targets("albert", "mlp") == (f"{block}.ffn", f"{block}.ffn_output")
    with pytest.raises(AdapterError, match="'last-1-layers' cannot .* alone: the 2 layers of Albert.* share 1 block"):
        targets("albert", "last-1-layers")


def test_attention_without_linear_layers_is_said_to_have_none() -> None:
    assert targets("xlnet", "mlp") == GOLDEN_XLNET
    assert targets("xlnet", "last-1-layers") == GOLDEN_XLNET[2:]
    for wanted in ("attention", "query-value"):
        with pytest.raises(AdapterError, match=f"'{wanted}' matches no linear layer of XLNet.* XLNetRelativeAttention"):
            targets("xlnet", wanted)
    with pytest.raises(AdapterError, match="has no key and value projections; .* is in XLNetRelativeAttention"):
        key_value_targets(classifier("xlnet"))


GOLDEN_XLNET = tuple(f"transformer.layer.{number}.ff.layer_{place}" for number in range(2) for place in (1, 2))


def test_experts_that_are_no_linear_layers_are_said_to_be_none() -> None:
    assert len(targets("mixtral", "attention")) == 8
    with pytest.raises(AdapterError, match="'mlp' matches no linear layer of Mixtral.* is in .*MixtralExperts"):
        targets("mixtral", "mlp")
    with pytest.raises(AdapterError, match="has no linear feed-forward layers; .*MixtralExperts"):
        feedforward_outputs(classifier("mixtral"))


def test_a_state_space_layer_is_neither_attention_nor_mlp() -> None:
    assert {name.rpartition(".")[0] for name in targets("jamba", "attention")} == {"model.layers.1.self_attn"}
    assert {name.rpartition(".")[0] for name in targets("jamba", "mlp")} == {
        "model.layers.0.feed_forward",
        "model.layers.1.feed_forward",
    }
    assert "model.layers.0.mamba.in_proj" in targets("jamba", "all")


def test_blocks_may_be_spread_over_parallel_lists() -> None:
    attention = tuple(f"transformer.attentions.1.{leaf}" for leaf in ("q_lin", "k_lin", "v_lin", "out_lin"))
    assert targets("xlm", "last-1-layers") == (*attention, "transformer.ffns.1.lin1", "transformer.ffns.1.lin2")
    assert targets("xlm", "attention in last-1-layers") == attention


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_has_the_same_targets(tiny_bert: Path, quantization: str) -> None:
    plain, _ = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32").load_model()
    packed, _ = ModelLoader(str(tiny_bert), labels=LABELS, quantization=quantization).load_model()
    for wanted in ("all", "attention", "query-value", "mlp", "last-1-layers"):
        assert match_targets(packed, wanted) == match_targets(plain, wanted)
    assert feedforward_outputs(packed) == feedforward_outputs(plain)


# --- several targets, and mistakes


def test_several_targets_are_their_union_in_the_models_order() -> None:
    mixed = targets("bert", ["mlp in last-1-layers", "bert.encoder.layer.0.attention.self.key", "query"])
    assert mixed == (
        "bert.encoder.layer.0.attention.self.query",
        "bert.encoder.layer.0.attention.self.key",
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.intermediate.dense",
        "bert.encoder.layer.1.output.dense",
    )
    assert targets("bert", ["attention", "all", "mlp"]) == targets("bert", "all")
    assert targets("bert", "query in last-1-layers") == ("bert.encoder.layer.1.attention.self.query",)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            "atention",
            "'atention' matches no linear layer of BertForSequenceClassification. Did you mean 'attention'?",
        ),
        ("query_value", "Did you mean 'query-value'?"),
        ("last-four-layers", "Did you mean 'last-N-layers'?"),
        ("qurey", "Did you mean 'query'?"),
        ("q_proj", "Known: all, attention, attention.output.dense, intermediate.dense, key, last-N-layers, mlp,"),
        ("last-3-layers", "asks for 3 layers; BertForSequenceClassification has 2 in bert.encoder.layer."),
        ("last-0-layers", "asks for 0 layers"),
        ("query in mlp", "looks in 'mlp'. What stands there must be the last layers, as in 'query in last-4-layers'"),
        ("pooler.dense in last-1-layers", "matches nothing: no layer of 'pooler.dense' is in the last-1-layers"),
        ("classifier", "The target 'classifier' is part of the head"),
        ([], "There are no targets"),
        (["query", "q_proj"], "'q_proj' matches no linear layer"),
    ],
    ids=str,
)
def test_a_target_that_matches_nothing_is_refused(wanted: str | list[str], message: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(message)):
        targets("bert", wanted)


def test_the_shorter_half_of_an_encoder_decoder_limits_the_last_layers() -> None:
    settings = {**CONFIGS["bart"], "encoder_layers": 3, "decoder_layers": 1}
    model = transformers.BartModel(AutoConfig.for_model("bart", **settings))
    assert {name.split(".")[0] for name in match_targets(model, "last-1-layers")} == {"encoder", "decoder"}
    with pytest.raises(AdapterError, match=re.escape("has 3 in encoder.layers, 1 in decoder.layers")):
        match_targets(model, "last-2-layers")


# --- several towers

_TEXT = {**_DECODER, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 28,
    "patch_size": 14,
}


def gemma3() -> PreTrainedModel:
    config = transformers.Gemma3Config(
        text_config={**_TEXT, "num_hidden_layers": 3}, vision_config=_VISION, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def llava() -> PreTrainedModel:
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", **_TEXT}, vision_config={"model_type": "clip_vision_model", **_VISION}
    )
    return transformers.LlavaForConditionalGeneration(config)


def test_of_several_towers_the_text_tower_is_meant() -> None:
    for model, layers in ((gemma3(), 3), (llava(), 2)):
        text = tuple(f"model.language_model.layers.{number}" for number in range(layers))
        found = match_targets(model, "all")
        assert len(found) == 7 * layers
        assert all(name.startswith(text) for name in found)
        # The vision tower has layers of these names too.
        assert len(match_targets(model, "q_proj")) == layers
        assert len(match_targets(model, "attention")) == 4 * layers
        assert {name.rpartition(".")[2] for name in feedforward_outputs(model)} == {"down_proj"}
        assert all(name.startswith(text[-1]) for name in match_targets(model, "last-1-layers"))


@pytest.mark.parametrize("wanted", ["fc1", "vision_tower", "model.vision_tower.encoder.layers.0.self_attn.q_proj"])
def test_a_target_in_another_tower_is_refused_by_the_towers_name(wanted: str) -> None:
    with pytest.raises(AdapterError, match=r"is in model.vision_tower, .* adapters go on model.language_model"):
        match_targets(gemma3(), wanted)


def test_the_projector_between_towers_is_another_tower() -> None:
    with pytest.raises(AdapterError, match=r"'linear_1' is in model.multi_modal_projector"):
        match_targets(llava(), "linear_1")
