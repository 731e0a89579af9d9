"""What is exported predicts like the adapter it was made from, without lightft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification, pipeline

import lightft
from lightft import LoRATrainer, ModelLoader, QLoRATrainer
from lightft.errors import AdapterError, InvalidSettingError, UnknownNameError
from tests.contracts.architectures import LABELS, Pair, examples, save_base

TASK = "token-classification"


def _adapter(folder: Path, architecture: str = "bert", quantization: str | None = None, adapter: str = "lora") -> Path:
    base = save_base(Pair(architecture, TASK), folder / "base", with_head=False)
    loader = ModelLoader(str(base), task=TASK, labels=LABELS[TASK], dtype="float32")
    settings = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "progress": False, "adapter": adapter}
    trainer = (
        QLoRATrainer(loader, quantization=quantization, **settings) if quantization else LoRATrainer(loader, **settings)
    )
    trained = trainer.train(examples(TASK))
    return trainer.save(trained, folder / "adapter")


def _logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("adapter", ["lora", "head-only", "full"])
def test_the_merged_checkpoint_answers_like_the_adapter(tmp_path: Path, architecture: str, adapter: str) -> None:
    folder = _adapter(tmp_path, architecture, adapter=adapter)
    out = lightft.export(folder, to="merged", out=tmp_path / "merged")
    merged = AutoModelForTokenClassification.from_pretrained(out)
    torch.testing.assert_close(_logits(merged), _logits(lightft.load(folder).model), rtol=0, atol=1e-4)
    assert set(merged.config.label2id) == {"O", "B-LOC", "I-LOC", "B-PER", "I-PER"}
    assert not [module for module in merged.modules() if "lora" in type(module).__module__]


def test_a_4_bit_base_is_merged_as_the_weights_its_bits_stand_for(tmp_path: Path) -> None:
    folder = _adapter(tmp_path, quantization="nf4")
    out = lightft.export(folder, to="merged", out=tmp_path / "merged")
    merged = AutoModelForTokenClassification.from_pretrained(out)
    assert all(parameter.dtype == torch.float32 for parameter in merged.parameters())
    torch.testing.assert_close(_logits(merged), _logits(lightft.load(folder).model), rtol=0, atol=1e-4)


def test_an_8_bit_base_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = _adapter(tmp_path, quantization="int8")
    with pytest.raises(AdapterError, match="its activations are quantised too"):
        lightft.export(folder, to="merged", out=tmp_path / "merged")


def test_the_merged_checkpoint_works_in_a_pipeline(tmp_path: Path) -> None:
    out = lightft.export(_adapter(tmp_path), to="merged", out=tmp_path / "merged")
    answers = pipeline("ner", model=str(out))("anna met bert in rome")
    assert all(answer["entity"].partition("-")[2] in LABELS[TASK] for answer in answers)


def test_an_unknown_format_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="No exporter named 'mergd'. Did you mean 'merged'"):
        lightft.export(tmp_path, to="mergd", out=tmp_path / "out")
    with pytest.raises(InvalidSettingError, match="exists already"):
        lightft.export(tmp_path, to="merged", out=tmp_path)
