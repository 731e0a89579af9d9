"""LoRA and QLoRA on every architecture and head: trained where they should be, and the same after reload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from lightft import AdapterSpec, Example, LoRATrainer, ModelLoader, QLoRATrainer
from lightft.adapters.attach import attach_adapter
from lightft.contracts import reload_in_new_process
from lightft.contracts.support_matrix import write_between
from lightft.contracts.tiny_models import BEYOND, LABELS, PAIRS, Pair, examples, save_base
from lightft.models import head_modules, linear_modules, provenance_of

WRITE_TO = os.environ.get("LIGHTFT_MATRIX_PAGE")
"""A page whose matrix is to be written from what these tests see: `make matrix`."""
ALL = [(pair, with_head) for pair in PAIRS for with_head in (False, True)]


def _name(case: tuple[Pair, bool]) -> str:
    return f"{case[0]}-{'head-in-checkpoint' if case[1] else 'new-head'}"


@dataclass
class Trained:
    """What was seen of one pair, trained for two steps."""

    error: BaseException | None = None
    unmoved: list[str] = field(default_factory=list)
    moved_base: list[str] = field(default_factory=list)
    head: tuple[str, ...] = ()
    new_parameters: frozenset[str] = frozenset()
    adapted: int = 0
    linear: int = 0


PASSED: dict[str, set[Pair]] = {"LoRA": set(), "NF4 QLoRA": set(), "reload": set()}


@pytest.fixture(scope="module", autouse=True)
def matrix_page() -> Iterator[None]:
    """Write the matrix into the page between its markers, when a page is named."""
    yield
    if WRITE_TO is not None:
        write_between(Path(WRITE_TO), "matrix", _matrix())


def _matrix() -> str:
    lines = [
        "| architecture | head | LoRA trains it all | NF4 QLoRA trains | a new process gets equal logits |",
        "|---|---|---|---|---|",
    ]
    for pair in PAIRS:
        marks = " | ".join("yes" if pair in passed else "no" for passed in PASSED.values())
        lines.append(f"| {pair.architecture} | {pair.task.replace('-', ' ')} | {marks} |")
    totals = " | ".join(f"{len(passed)} of {len(PAIRS)}" for passed in PASSED.values())
    return "\n".join([*lines, f"| all | | {totals} |", ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Trained]:
    """Train every pair for two steps, save each run, and note what moved."""
    return {_name(case): _train(case, folder / _name(case)) for case in ALL}


@pytest.fixture(scope="module")
def reloaded(trained: dict[str, Trained], folder: Path) -> dict[str, dict[str, object]]:
    """Load all saved adapters in one new process and compare their logits with those from before."""
    finished = subprocess.run(
        [sys.executable, reload_in_new_process.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


def _train(case: tuple[Pair, bool], folder: Path) -> Trained:
    pair, with_head = case
    seen = Trained()
    base = save_base(pair, folder / "base", with_head=with_head)
    loader = ModelLoader(str(base), task=pair.task, labels=LABELS[pair.task], dtype="float32")
    rows = examples(pair.task)
    try:
        model, tokenizer = loader.load_model()
        provenance = provenance_of(model)
        assert provenance is not None
        seen.new_parameters = provenance.new_parameters
        seen.head = head_modules(model, provenance.new_parameters)
        seen.linear = len(linear_modules(model, seen.head))
        before = {name: value.clone() for name, value in model.named_parameters()}
        settings = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "warmup": 0.0, "progress": False}
        trainer = LoRATrainer(model, tokenizer, **settings)
        adapted = trainer.train(rows, target_modules="all", lora_dropout=0.0)
        fresh = _fresh_adapter(model, pair)
        start = {name: value for name, value in fresh.named_parameters() if value.requires_grad}
        now = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
        assert set(start) == set(now)
        seen.unmoved = [name for name in now if torch.equal(start[name], now[name])]
        seen.moved_base = [name for name, value in model.named_parameters() if not torch.equal(before[name], value)]
        seen.adapted = len({name.rpartition(".lora_A")[0] for name in now if ".lora_A." in name})
        _save(trainer, adapted, rows, folder)
    except Exception as error:
        seen.error = error
    return seen


def _fresh_adapter(model: PreTrainedModel, pair: Pair) -> nn.Module:
    task_type = {"text-classification": "SEQ_CLS", "token-classification": "TOKEN_CLS"}[pair.task]
    return attach_adapter(model, task_type, AdapterSpec("lora", dropout=0.0), seed=0)


def _save(trainer: LoRATrainer, adapted: nn.Module, rows: tuple[Example, ...], folder: Path) -> None:
    trainer.save(adapted, folder / "adapter")
    batch = trainer.head.collate(trainer.head.encode(rows, trainer.tokenizer, 48)[0], trainer.tokenizer)
    batch.pop("labels")
    with torch.inference_mode():
        logits = adapted(**batch).logits
    torch.save({"batch": batch, "logits": logits}, folder / "seen.pt")


@pytest.mark.parametrize("case", ALL, ids=_name)
def test_lora_trains_every_adapter_and_the_whole_head_and_nothing_else(
    case: tuple[Pair, bool], trained: dict[str, Trained]
) -> None:
    seen = trained[_name(case)]
    if seen.error is not None:
        raise seen.error
    assert seen.adapted == seen.linear > 0
    assert seen.head
    assert seen.unmoved == []
    assert seen.moved_base == []
    outside = [name for name in seen.new_parameters if not any(name.startswith(f"{part}.") for part in seen.head)]
    assert outside == []
    PASSED["LoRA"].add(case[0])


@pytest.mark.parametrize("case", ALL, ids=_name)
def test_a_new_process_gets_the_same_logits(case: tuple[Pair, bool], reloaded: dict[str, dict[str, object]]) -> None:
    assert reloaded[_name(case)] == {"equal": True}
    PASSED["reload"].add(case[0])


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_nf4_qlora_takes_a_step_with_a_float32_head(pair: Pair, tmp_path: Path) -> None:
    base = save_base(pair, tmp_path / "base", with_head=False)
    loader = ModelLoader(str(base), task=pair.task, labels=LABELS[pair.task])
    trainer = QLoRATrainer(loader, epochs=2, batch_size=8, learning_rate=1e-2, warmup=0.0, progress=False)
    adapted = trainer.train(examples(pair.task), lora_dropout=0.0)
    quantized = [name for name, module in adapted.named_modules() if type(module).__name__ == "Linear4bit"]
    assert quantized
    trainable = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    assert all(value.dtype == torch.float32 for value in trainable.values())
    # B starts at zero, so that any other value shows that its gradient arrived.
    still_zero = [name for name, value in trainable.items() if ".lora_B." in name and not value.any()]
    assert still_zero == []
    assert trainer.result is not None
    assert trainer.result.steps == 2
    PASSED["NF4 QLoRA"].add(pair)


def test_the_matrix_has_the_promised_pairs() -> None:
    inside = [pair for pair in PAIRS if pair.architecture not in BEYOND]
    assert len(inside) == 37
    assert {pair.architecture for pair in PAIRS} >= set(BEYOND)
