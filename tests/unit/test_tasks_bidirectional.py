"""Heads on decoder-only bases whose causal mask is lifted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.errors import InvalidSettingError
from lightft.tasks import TextClassification, TokenClassification
from tests.tiny_models import LABELS, TYPES, tagged_texts


@pytest.mark.parametrize(
    "head", [TextClassification(LABELS, bidirectional=True), TokenClassification(TYPES, bidirectional=True)]
)
def test_a_bidirectional_decoder_reads_what_comes_after(head: Any, tiny_llama: Path) -> None:
    loader = ModelLoader(str(tiny_llama), dtype="float32")
    model, _ = head.load_model(loader)
    causal, _ = replace(head, bidirectional=False).load_model(loader)
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])

    def first_states(of: Any) -> Tensor:
        with torch.inference_mode():
            return of.base_model(input_ids=ids).last_hidden_state[:, 0]

    assert not torch.allclose(*first_states(model))
    torch.testing.assert_close(*first_states(causal))


def test_a_bidirectional_adapter_is_reopened_bidirectional(tiny_llama: Path, tmp_path: Path) -> None:
    loader = ModelLoader(str(tiny_llama), dtype="float32")
    head = TokenClassification(TYPES, bidirectional=True)
    trainer = LoRATrainer(loader, head=head, epochs=1, learning_rate=1e-2, progress=False)
    model = trainer.train(tagged_texts())
    reopened = lightft.load(trainer.save(model, tmp_path / "adapter"))
    assert reopened.predict(tagged_texts()) == trainer.predict(model, tagged_texts())
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        assert torch.equal(reopened.model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_bidirectional_encoder_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(InvalidSettingError, match="already reads both ways"):
        TextClassification(LABELS, bidirectional=True).load_model(ModelLoader(str(tiny_bert), dtype="float32"))
