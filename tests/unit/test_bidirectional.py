"""Decoder-only models that read both ways, against the same model called with an explicit mask."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from lightft.contracts.tiny_models import CONFIGS, PAIRS, Pair
from lightft.errors import InvalidSettingError
from lightft.models import head_modules, share_weights
from lightft.models.bidirectional import lift_causal_mask
from lightft.models.quiet import quiet_peft

DECODERS = ("gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi")
LIFTED = [pair for pair in PAIRS if pair.architecture in DECODERS]
OTHERS = [pair for pair in PAIRS if pair.architecture not in DECODERS]
AUTO = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
}
SLIDING = {
    "mistral": {"sliding_window": 4},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "gemma2": {"sliding_window": 4},
    "gemma3_text": {"sliding_window": 4, "num_hidden_layers": 6},
}
LLAMA = Pair("llama", "token-classification")


def _model(pair: Pair, attention: str | None = None, **settings: Any) -> PreTrainedModel:
    known = CONFIGS.get(pair.architecture, CONFIGS["gemma"])
    config = AutoConfig.for_model(pair.architecture, **{**known, **settings}, num_labels=3)
    torch.manual_seed(0)
    return AUTO[pair.task].from_config(config, attn_implementation=attention).eval()


def _states(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    with torch.inference_mode():
        return model.base_model(input_ids=ids, **inputs)[0].float()


def _ids(length: int, seed: int = 3) -> Tensor:
    return torch.randint(3, 90, (1, length), generator=torch.Generator().manual_seed(seed))


def _first_changes(model: Any, **inputs: Any) -> bool:
    ids = _ids(8)
    other = ids.clone()
    other[0, -1] = 3 if ids[0, -1] != 3 else 4
    return not torch.equal(_states(model, ids, **inputs)[:, 0], _states(model, other, **inputs)[:, 0])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pair", LIFTED, ids=str)
def test_the_first_position_sees_the_last_token_once_the_mask_is_lifted(pair: Pair, attention: str) -> None:
    model = _model(pair, attention)
    unpadded = torch.ones(1, 8, dtype=torch.long)
    assert not _first_changes(model, attention_mask=unpadded)
    lift_causal_mask(model)
    assert _first_changes(model, attention_mask=unpadded)
    assert _first_changes(model)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pair", [pair for pair in LIFTED if pair.architecture != "opt"], ids=str)
def test_a_lifted_model_equals_the_causal_one_given_a_full_mask(pair: Pair, attention: str) -> None:
    model = _model(pair, attention)
    ids = torch.nn.functional.pad(_ids(7), (0, 2))
    read = torch.tensor([[1] * 7 + [0] * 2])
    # Zeros are added to what may be seen. OPT alone takes no ready mask: it counts positions in the one it is given.
    full = torch.zeros(1, 1, 9, 9)
    full[..., 7:] = torch.finfo(torch.float32).min
    expected = _states(model, ids, attention_mask=full)
    lift_causal_mask(model)
    torch.testing.assert_close(_states(model, ids, attention_mask=read)[:, :7], expected[:, :7])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pair", LIFTED, ids=str)
def test_padding_does_not_change_the_answer_to_a_text(pair: Pair, attention: str) -> None:
    model = _model(pair, attention)
    lift_causal_mask(model)
    ids = _ids(6)
    padded = torch.nn.functional.pad(ids, (0, 4))
    read = torch.tensor([[1] * 6 + [0] * 4])
    with torch.inference_mode():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        beside = model(input_ids=padded, attention_mask=read).logits
    torch.testing.assert_close(alone, beside[:, :6] if pair.task == "token-classification" else beside)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("architecture", SLIDING)
def test_a_sliding_window_reaches_to_either_side(architecture: str, padding: int) -> None:
    """Every layer slides, so that one explicit mask says it all."""
    settings = {**SLIDING[architecture], "layer_types": None, "num_hidden_layers": 2}
    if architecture != "mistral":
        settings["layer_types"] = ["sliding_attention"] * 2
    if architecture == "qwen2":
        settings["max_window_layers"] = 0
    model = _model(Pair(architecture, "text-classification"), "eager", **settings)
    ids = torch.nn.functional.pad(_ids(10), (0, padding))
    read = torch.tensor([[1] * 10 + [0] * padding])
    places = torch.arange(10 + padding)
    seen = ((places[:, None] - places[None]).abs() <= 4) & read.bool()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
    expected = _states(model, ids, attention_mask=mask)
    lift_causal_mask(model)
    torch.testing.assert_close(_states(model, ids, attention_mask=read)[:, :10], expected[:, :10])


@pytest.mark.parametrize("architecture", SLIDING)
def test_layers_of_both_kinds_are_lifted_and_a_cache_changes_nothing(architecture: str) -> None:
    model = _model(Pair(architecture, "text-classification"), **SLIDING[architecture])
    lift_causal_mask(model)
    ids = _ids(10)
    read = torch.ones_like(ids)
    assert _first_changes(model)
    torch.testing.assert_close(
        _states(model, ids, attention_mask=read, use_cache=True), _states(model, ids, attention_mask=read)
    )


@pytest.mark.parametrize("pair", LIFTED, ids=str)
def test_a_cache_is_not_kept_and_if_asked_for_changes_nothing(pair: Pair) -> None:
    model = _model(pair)
    lift_causal_mask(model)
    ids = _ids(7)
    read = torch.ones_like(ids)
    with torch.inference_mode():
        plain = model.base_model(input_ids=ids, attention_mask=read)
    assert plain.past_key_values is None
    torch.testing.assert_close(
        _states(model, ids, attention_mask=read, use_cache=True), plain.last_hidden_state.float()
    )


@pytest.mark.parametrize("pair", OTHERS, ids=str)
def test_an_architecture_without_a_causal_mask_says_so(pair: Pair) -> None:
    with pytest.raises(InvalidSettingError, match="no causal mask to lift"):
        lift_causal_mask(_model(pair))


def test_an_architecture_whose_mask_stays_is_refused_and_left_as_it_was() -> None:
    settings = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4}
    pair = Pair("gpt_neo", "token-classification")
    config = AutoConfig.for_model("gpt_neo", vocab_size=96, hidden_size=64, bos_token_id=1, eos_token_id=2, **settings)
    torch.manual_seed(0)
    model = AUTO[pair.task].from_config(config).eval()
    ids = _ids(7)
    before, used_cache = _states(model, ids), model.config.use_cache
    with pytest.raises(InvalidSettingError, match="reads only backwards by its design"):
        lift_causal_mask(model)
    assert torch.equal(_states(model, ids), before)
    assert model.config.use_cache == used_cache


def test_lifting_twice_changes_nothing() -> None:
    model = _model(LLAMA)
    lift_causal_mask(model)
    before = _states(model, _ids(7))
    lift_causal_mask(model)
    assert torch.equal(_states(model, _ids(7)), before)


def test_a_model_in_training_stays_in_training() -> None:
    model = _model(LLAMA).train()
    lift_causal_mask(model)
    assert model.training


@pytest.mark.parametrize("pair", LIFTED, ids=str)
def test_a_copy_over_the_same_memory_is_lifted_too_and_so_is_an_adapter_on_it(pair: Pair) -> None:
    model = _model(pair)
    lift_causal_mask(model)
    shared = share_weights(model, copied=head_modules(model))
    assert torch.equal(_states(shared, _ids(7)), _states(model, _ids(7)))
    linear = "c_attn" if pair.architecture == "gpt2" else "q_proj"
    config = LoraConfig(
        task_type={"text": "SEQ_CLS", "token": "TOKEN_CLS"}[pair.task.partition("-")[0]], target_modules=[linear]
    )
    config.fan_in_fan_out = pair.architecture == "gpt2"
    with quiet_peft():
        adapted = get_peft_model(shared, config).eval()
    read = torch.ones(1, 7, dtype=torch.long)
    with torch.inference_mode():
        # A fresh LoRA adds nothing, so only a mask that came back could tell the two apart.
        assert torch.equal(
            adapted(input_ids=_ids(7), attention_mask=read).logits, model(input_ids=_ids(7), attention_mask=read).logits
        )


def test_lifting_a_copy_leaves_the_model_it_was_made_of_causal() -> None:
    model = _model(LLAMA)
    lift_causal_mask(share_weights(model, copied=()))
    assert not _first_changes(model)


@pytest.mark.parametrize("pair", LIFTED, ids=str)
def test_a_saved_model_is_lifted_again_after_loading(pair: Pair, tmp_path: Path) -> None:
    model = _model(pair)
    lift_causal_mask(model)
    before = _states(model, _ids(7))
    model.save_pretrained(tmp_path)
    loaded = AUTO[pair.task].from_pretrained(tmp_path).eval()
    lift_causal_mask(loaded)
    assert _first_changes(loaded)
    torch.testing.assert_close(_states(loaded, _ids(7)), before)


def test_gradients_reach_every_layer_from_the_first_position() -> None:
    model = copy.deepcopy(_model(LLAMA))
    lift_causal_mask(model)
    ids = _ids(6)
    model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0].sum().backward()
    last = model.get_input_embeddings().weight.grad[ids[0, -1]]
    assert last.abs().sum() > 0
