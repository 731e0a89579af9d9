"""Prompt tuning, P-tuning and prefix tuning on every architecture: what works, what is mended, what is refused."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
    get_peft_model,
)
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from lightft.adapters.kind import AdapterUse
from lightft.adapters.prompts import embedding_shape, refusal
from lightft.checkpoint import load_adapter
from lightft.contracts.tiny_models import CONFIGS, PAIRS, Pair
from lightft.errors import AdapterError
from lightft.models import head_modules
from lightft.models.bidirectional import lift_causal_mask
from lightft.models.prompts import mend_virtual_tokens, virtual_tokens
from lightft.models.quiet import quiet_peft
from lightft.models.structure import keep_head_in_float32

KINDS = ("prompt-tuning", "p-tuning", "prefix-tuning")
DECODERS = ("gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi")
WITHOUT_KEYS = ("albert", "distilbert", "mpnet", "deberta", "deberta-v2", "modernbert", "bart", "t5", "xlnet")
WITHOUT_PROMPTS = (
    Pair("bart", "text-classification"),
    Pair("t5", "text-classification"),
    Pair("xlnet", "text-classification"),
)
TASK_TYPES = {"text-classification": "SEQ_CLS", "token-classification": "TOKEN_CLS", "causal-lm": "CAUSAL_LM"}
AUTO = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "causal-lm": transformers.AutoModelForCausalLM,
}
TOKENS = 4


def _is_refused(pair: Pair, kind: str) -> bool:
    return pair.architecture in WITHOUT_KEYS if kind == "prefix-tuning" else pair in WITHOUT_PROMPTS


ALL = [(pair, kind) for pair in PAIRS for kind in KINDS]
# P-tuning calls a model exactly as prompt tuning does; only its own network differs, so a few architectures show it.
FITTING = [
    (pair, kind)
    for pair, kind in [*ALL, *((Pair(name, "causal-lm"), kind) for name in DECODERS for kind in KINDS)]
    if not _is_refused(pair, kind)
    and (kind != "p-tuning" or pair.architecture in ("bert", "modernbert", "t5", "llama"))
]


def _name(value: Any) -> str:
    return str(value)


def _base(architecture: str, task: str, **settings: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(
        architecture, **{**CONFIGS.get(architecture, CONFIGS["llama"]), **settings}, num_labels=3
    )
    torch.manual_seed(0)
    return AUTO[task].from_config(config).eval()


def _attached(base: PreTrainedModel, task: str, kind: str, **settings: Any) -> PeftModel:
    head = head_modules(base)
    keep_head_in_float32(base, head)
    common = {
        "task_type": TASK_TYPES[task],
        "num_virtual_tokens": TOKENS,
        "modules_to_save": list(head) or None,
        **settings,
    }
    config = {
        "prompt-tuning": lambda: PromptTuningConfig(**common, **embedding_shape(base)),
        "p-tuning": lambda: PromptEncoderConfig(encoder_hidden_size=16, **common, **embedding_shape(base)),
        "prefix-tuning": lambda: PrefixTuningConfig(**common),
    }[kind]()
    torch.manual_seed(1)
    with quiet_peft():
        model = get_peft_model(base, config)
    for parameter in model.prompt_encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    mend_virtual_tokens(model)
    return model.eval()


@cache
def _made(pair: Pair, kind: str) -> PeftModel:
    return _attached(_base(pair.architecture, pair.task), pair.task, kind)


def _rows(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    ends = torch.tensor([1]), torch.tensor([2])
    return [torch.cat([ends[0], torch.randint(3, 90, (n - 2,), generator=generator), ends[1]]) for n in lengths]


def _batch(rows: list[Tensor], *, left: bool = False) -> dict[str, Tensor]:
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        where = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[place, where], mask[place, where] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def _logits(model: Any, **inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(**inputs).logits.float()


def _each_alone(model: PeftModel, rows: list[Tensor]) -> list[Tensor]:
    return [_logits(model, **_batch([row]))[0] for row in rows]


@pytest.mark.parametrize(("pair", "kind"), ALL, ids=_name)
def test_exactly_the_known_pairs_are_refused_before_weights_are_loaded(pair: Pair, kind: str) -> None:
    with torch.device("meta"):
        model = _base(pair.architecture, pair.task)
    reason = refusal(kind, AdapterUse(model, TASK_TYPES[pair.task], None))
    assert (reason is not None) == _is_refused(pair, kind)
    assert reason is None or "lora." in reason


@pytest.mark.parametrize(("pair", "kind"), FITTING, ids=_name)
def test_a_text_gets_the_same_logits_in_a_batch_as_alone(pair: Pair, kind: str) -> None:
    rows = _rows(9, 5, 7)
    model = _made(pair, kind)
    together = _logits(model, **_batch(rows))
    assert together.shape[:-1] == ((3,) if pair.task == "text-classification" else (3, 9))
    for logits, row, alone in zip(together, rows, _each_alone(model, rows), strict=True):
        of_text = logits if pair.task == "text-classification" else logits[: len(row)]
        torch.testing.assert_close(of_text, alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("pair", "kind"), [case for case in FITTING if case[1] != "prefix-tuning"], ids=_name)
def test_logits_are_those_of_the_plain_model_called_with_the_prompt_before_the_text(pair: Pair, kind: str) -> None:
    model = _made(pair, kind)
    row = _rows(7)[0]
    with torch.inference_mode():
        prompt = model.prompt_encoder["default"](torch.arange(TOKENS)[None])
        text = model.get_base_model().get_input_embeddings()(row[None])
        plain = model.get_base_model()(
            inputs_embeds=torch.cat([prompt, text], dim=1), attention_mask=torch.ones(1, TOKENS + 7)
        ).logits
    expected = plain if pair.task == "text-classification" else plain[:, TOKENS:]
    torch.testing.assert_close(_logits(model, **_batch([row])), expected)


@pytest.mark.parametrize(("pair", "kind"), FITTING, ids=_name)
def test_the_prompt_and_the_head_learn_and_nothing_else(pair: Pair, kind: str) -> None:
    model = copy.deepcopy(_made(pair, kind)).train()
    model(**_batch(_rows(9, 5, 7))).logits.square().mean().backward()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert [name for name, value in trained.items() if value.grad is None or not value.grad.any()] == []
    heads = {name.partition(".modules_to_save")[0] for name in trained if "prompt_encoder" not in name}
    assert heads == {f"base_model.{name}" for name in head_modules(_base(pair.architecture, pair.task))}
    assert any("prompt_encoder" in name for name in trained)


@pytest.mark.parametrize(("pair", "kind"), FITTING, ids=_name)
def test_a_loaded_adapter_gives_the_same_logits(pair: Pair, kind: str, tmp_path: Path) -> None:
    model = _made(pair, kind)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = load_adapter(_base(pair.architecture, pair.task), tmp_path)
    mend_virtual_tokens(loaded)
    batch = _batch(_rows(9, 5, 7))
    torch.testing.assert_close(_logits(loaded, **batch), _logits(model, **batch), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pair", [pair for pair, kind in FITTING if kind == "prefix-tuning"], ids=str)
def test_learned_keys_change_the_answer(pair: Pair) -> None:
    model = copy.deepcopy(_made(pair, "prefix-tuning"))
    batch = _batch(_rows(9, 5))
    before = _logits(model, **batch)
    torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight)
    assert not torch.allclose(_logits(model, **batch), before, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama"])
def test_an_answer_is_written_the_same_in_a_batch_as_alone(architecture: str, kind: str) -> None:
    model = copy.deepcopy(_made(Pair(architecture, "causal-lm"), kind))
    for parameter in model.get_base_model().parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = _rows(9, 5, 7)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options |= {"output_scores": True, "return_dict_in_generate": True}
    together = model.generate(**_batch(rows, left=True), **options)
    for place, row in enumerate(rows):
        alone = model.generate(**_batch([row]), **options)
        assert together.sequences[place, -6:].tolist() == alone.sequences[0, -6:].tolist()
        torch.testing.assert_close(together.scores[0][place], alone.scores[0][0], atol=1e-4, rtol=1e-4)
        # What is written step by step, from the cache, is what one pass over the whole row says.
        whole = _logits(model, **_batch([alone.sequences[0, :-1]]))
        torch.testing.assert_close(whole[0, -1], alone.scores[-1][0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "camembert", "llama"])
def test_a_bfloat16_base_takes_a_float32_head(architecture: str, kind: str) -> None:
    base = _base(architecture, "token-classification").to(torch.bfloat16)
    model = _attached(base, "token-classification", kind)
    assert torch.isfinite(_logits(model, **_batch(_rows(9, 5)))).all()


@pytest.mark.parametrize("kind", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.architecture in ("gpt2", "mistral")], ids=str)
def test_a_decoder_that_reads_both_ways_takes_virtual_tokens_too(pair: Pair, kind: str) -> None:
    base = _base(pair.architecture, pair.task)
    lift_causal_mask(base)
    model = _attached(base, pair.task, kind)
    rows = _rows(9, 5, 7)
    together = _logits(model, **_batch(rows))
    for logits, row, alone in zip(together, rows, _each_alone(model, rows), strict=True):
        of_text = logits if pair.task == "text-classification" else logits[: len(row)]
        torch.testing.assert_close(of_text, alone, atol=2e-5, rtol=1e-4)


def test_a_text_longer_than_the_rest_of_the_window_does_not_fit() -> None:
    model = _made(Pair("bert", "token-classification"), "prefix-tuning")
    window = model.config.max_position_embeddings
    taken = virtual_tokens(model.peft_config["default"])
    assert taken == TOKENS
    assert _logits(model, **_batch(_rows(window - taken))).shape[1] == window - taken
    with pytest.raises((IndexError, RuntimeError)):
        _logits(model, **_batch(_rows(window - taken + 1)))


def test_lora_takes_no_positions_and_needs_no_mending() -> None:
    config = LoraConfig(task_type="TOKEN_CLS", target_modules=["query"])
    with quiet_peft():
        model = get_peft_model(_base("bert", "token-classification"), config).eval()
    batch = _batch(_rows(9, 5))
    before = _logits(model, **batch)
    mend_virtual_tokens(model)
    assert torch.equal(_logits(model, **batch), before)
    assert virtual_tokens(config) == 0


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        (Pair("llama", "text-classification"), "prompt-tuning"),
        (Pair("bert", "token-classification"), "p-tuning"),
        (Pair("camembert", "token-classification"), "prefix-tuning"),
        (Pair("gpt2", "causal-lm"), "prompt-tuning"),
    ],
    ids=_name,
)
def test_mending_twice_changes_nothing(pair: Pair, kind: str) -> None:
    model = copy.deepcopy(_made(pair, kind))
    batch = _batch(_rows(9, 5, 7))
    before = _logits(model, **batch)
    mend_virtual_tokens(model)
    assert torch.equal(_logits(model, **batch), before)


def test_a_decoder_that_averages_its_positions_is_left_alone() -> None:
    base = _base("eurobert", "text-classification", clf_pooling="late")
    model = _attached(base, "text-classification", "prompt-tuning")
    rows = _rows(9, 5, 7)
    together = _logits(model, **_batch(rows))
    torch.testing.assert_close(together, torch.stack(_each_alone(model, rows)), atol=2e-5, rtol=1e-4)


def test_the_loss_at_the_padding_is_never_given_out() -> None:
    model = _made(Pair("gpt2", "text-classification"), "prompt-tuning")
    with pytest.raises(AdapterError, match="Leave labels out"):
        model(**_batch(_rows(9, 5)), labels=torch.tensor([0, 1]))


@pytest.mark.parametrize("settings", [{"encoder_reparameterization_type": "LSTM"}, {"encoder_dropout": 0.1}])
def test_what_a_prompt_encoder_wrote_is_what_is_loaded(settings: dict[str, Any], tmp_path: Path) -> None:
    base = _base("distilbert", "token-classification")
    model = _attached(base, "token-classification", "p-tuning", **settings)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    loaded = load_adapter(_base("distilbert", "token-classification"), tmp_path)
    mend_virtual_tokens(loaded)
    batch = _batch(_rows(9, 5))
    torch.testing.assert_close(_logits(loaded, **batch), _logits(model, **batch), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "settings"), [("albert", {}), ("electra", {}), ("opt", {"word_embed_proj_dim": 32})]
)
def test_a_prompt_is_as_wide_as_the_embeddings(architecture: str, settings: dict[str, int]) -> None:
    base = _base(architecture, "text-classification", **settings)
    assert embedding_shape(base)["token_dim"] == 32 != base.config.hidden_size
    model = _attached(base, "text-classification", "prompt-tuning", prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB)
    assert _logits(model, **_batch(_rows(9, 5))).shape == (2, 3)


@pytest.mark.parametrize("architecture", ["falcon", "roformer"])
def test_keys_whose_shape_peft_mistakes_are_refused(architecture: str) -> None:
    with torch.device("meta"):
        model = _base(architecture, "text-classification")
    reason = refusal("prefix-tuning", AdapterUse(model, "SEQ_CLS", None))
    assert reason is not None
    assert architecture in reason
