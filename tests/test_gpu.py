"""What only a GPU can show: the same adapter on CUDA, half precision with loss scaling, 4-bit and 8-bit bases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lightft
from lightft import LoRATrainer, ModelLoader, QLoRATrainer
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.data import TaskData

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
TASK = "token-classification"
SETTINGS = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "progress": False}


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(save_base(Pair("bert", TASK), tmp_path / "base", with_head=False))


def _data() -> TaskData:
    rows = examples(TASK)
    return TaskData(TASK, "made up", LABELS[TASK], rows, rows, rows)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_a_run_on_cuda_reloads_to_the_same_predictions(base: str, tmp_path: Path, dtype: str) -> None:
    data = _data()
    loader = ModelLoader(base, task=TASK, labels=data.labels, dtype=dtype, device="cuda")
    run = LoRATrainer(loader, output_dir=tmp_path / "run", **SETTINGS).fit(data)
    again = lightft.load(tmp_path / "run" / "adapter", device="cuda").predict(data.test)
    assert [prediction.predicted for prediction in again] == [prediction.predicted for prediction in run.predictions]
    assert run.cost["peak_memory_bytes"] > 0


def test_float16_computation_scales_the_loss_and_learns(base: str) -> None:
    data = _data()
    model, tokenizer = ModelLoader(base, task=TASK, labels=data.labels, dtype="float32", device="cuda").load_model()
    trainer = LoRATrainer(model, tokenizer, precision="float16", **{**SETTINGS, "epochs": 20})
    trainer.train(data.train)
    assert trainer.result is not None
    losses = [row["train_loss"] for row in trainer.result.history if "train_loss" in row]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_trains_on_cuda(base: str, tmp_path: Path, quantization: str) -> None:
    data = _data()
    loader = ModelLoader(base, task=TASK, labels=data.labels, device="cuda")
    run = QLoRATrainer(loader, quantization=quantization, output_dir=tmp_path / "run", **SETTINGS).fit(data)
    again = lightft.load(tmp_path / "run" / "adapter", device="cuda").predict(data.test)
    assert [prediction.predicted for prediction in again] == [prediction.predicted for prediction in run.predictions]
