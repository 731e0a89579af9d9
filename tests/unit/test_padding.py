"""A text's answer does not depend on what stands beside it in a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightft import ModelLoader
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.tasks import TextClassification


@pytest.mark.parametrize("architecture", ["xlnet", "bert", "gpt2", "llama", "t5"])
def test_a_text_classifier_answers_alone_as_in_a_batch(architecture: str, tmp_path: Path) -> None:
    task = "text-classification"
    base = save_base(Pair(architecture, task), tmp_path / "base", with_head=True)
    head = TextClassification(LABELS[task])
    model, tokenizer = head.load_model(ModelLoader(str(base), labels=LABELS[task], dtype="float32"))
    encodings, _ = head.encode(examples(task), tokenizer, 48)

    def logits(rows: list) -> torch.Tensor:
        batch = head.collate(rows, tokenizer)
        batch.pop("labels")
        with torch.inference_mode():
            return model(**batch).logits

    alone = torch.cat([logits([row]) for row in encodings])
    torch.testing.assert_close(logits(encodings), alone, atol=1e-5, rtol=1e-4)
    assert alone.std(0).max() > 1e-4
