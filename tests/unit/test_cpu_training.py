"""What a model computes while it trains on a CPU is what it would compute by its own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightft import AdapterSpec, ModelLoader
from lightft.adapters.attach import attach_adapter
from lightft.cpu_training import attention, sped_up_on_cpu
from lightft.cpu_training.lora_update import _LoRAUpdate

KINDS = [
    AdapterSpec("lora", r=4, dropout=0.0, targets="all"),
    AdapterSpec("rslora", r=4, dropout=0.0, targets="attention"),
    AdapterSpec("dora", r=4, dropout=0.0, targets="attention"),
    AdapterSpec("lora", r=4, dropout=0.0, targets="all", bias="lora_only"),
]


def with_adapter(folder: Path, spec: AdapterSpec, *, dtype: str = "bfloat16", quantization: str | None = None) -> Any:
    loader = ModelLoader(str(folder), task="causal-lm", dtype=dtype, quantization=quantization)
    base, _ = loader.load_model()
    model: Any = attach_adapter(base, "CAUSAL_LM", spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Adapters begin as no change at all; what is compared must change something.
            parameter.data = torch.randn(parameter.shape, generator=generator) * (0.3 if "lora_B" in name else 0.1)
    return model.train()


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 30, (4, 24), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((24, 20, 11, 3)):
        mask[row, length:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits_and_gradients(model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    logits = model(**inputs).logits[inputs["attention_mask"].bool()].float()
    return logits, list(torch.autograd.grad(logits.square().mean(), trained))


def direction_gap(one: list[Tensor], other: list[Tensor]) -> float:
    first, second = (torch.cat([tensor.detach().flatten() for tensor in tensors]) for tensors in (one, other))
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_answers_and_gradients_are_those_of_the_layers_themselves(
    tiny_llama: Path, spec: AdapterSpec, quantization: str | None
) -> None:
    model = with_adapter(tiny_llama, spec, quantization=quantization)
    own_logits, own_gradients = logits_and_gradients(model, batch())
    with sped_up_on_cpu(model):
        logits, gradients = logits_and_gradients(model, batch())
    exact = with_adapter(tiny_llama, spec, dtype="float32", quantization=quantization)
    exact_logits, exact_gradients = logits_and_gradients(exact, batch())
    # Both round to eight bits, in another order; neither may be farther from the unrounded values than the other.
    assert direction_gap([logits], [exact_logits]) < 1.5 * direction_gap([own_logits], [exact_logits]) + 1e-6
    assert direction_gap(gradients, exact_gradients) < 1.5 * direction_gap(own_gradients, exact_gradients) + 1e-6


def test_the_update_and_its_gradients_are_those_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x, of_base, down, up = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 7), (2, 5, 6), (3, 7), (6, 3))
    )
    torch.testing.assert_close(_LoRAUpdate.apply(x, of_base, down, up, 0.5), of_base + 0.5 * x @ down.T @ up.T)

    def update(*tensors: Tensor) -> Tensor:
        updated: Tensor = _LoRAUpdate.apply(*tensors, 0.5)
        return updated

    assert torch.autograd.gradcheck(update, (x, of_base, down, up), eps=1e-3, atol=1e-2, rtol=1e-3)


def test_layers_in_float32_compute_as_they_always_do(tiny_llama: Path) -> None:
    model = with_adapter(tiny_llama, KINDS[0], dtype="float32")
    expected, _ = logits_and_gradients(model, batch())
    with sped_up_on_cpu(model):
        logits, _ = logits_and_gradients(model, batch())
    assert torch.equal(logits, expected)


def test_in_eval_mode_and_afterwards_the_model_is_its_own(tiny_llama: Path) -> None:
    model = with_adapter(tiny_llama, KINDS[0])
    model.eval()
    with torch.no_grad():
        expected = model(**batch()).logits
        with sped_up_on_cpu(model):
            inside = model(**batch()).logits
        after = model(**batch()).logits
    assert torch.equal(after, expected)
    assert torch.equal(inside[batch()["attention_mask"].bool()], expected[batch()["attention_mask"].bool()])
    assert model.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(module) for module in model.modules())


def test_long_texts_keep_the_fused_kernel(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fused: list[int] = []
    own = attention.sdpa_attention_forward
    monkeypatch.setattr(
        attention, "sdpa_attention_forward", lambda *given, **named: (fused.append(1), own(*given, **named))[1]
    )
    model = with_adapter(tiny_llama, KINDS[0])
    with sped_up_on_cpu(model):
        logits_and_gradients(model, batch())
        assert not fused
        monkeypatch.setattr(attention, "_MOST_WEIGHTS", 100)
        logits_and_gradients(model, batch())
    assert len(fused) == model.config.num_hidden_layers


def test_dropout_is_drawn_anew_at_every_pass(tiny_llama: Path) -> None:
    model = with_adapter(tiny_llama, AdapterSpec("lora", r=4, dropout=0.5, targets="all"))
    with sped_up_on_cpu(model):
        first, _ = logits_and_gradients(model, batch())
        second, _ = logits_and_gradients(model, batch())
    assert not torch.equal(first, second)
