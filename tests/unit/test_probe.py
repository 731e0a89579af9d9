"""A probe foretells what a training takes, and leaves no trace of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightft import AdapterSpec, LoRATrainer, ModelLoader, QLoRATrainer, TaskData
from lightft.errors import AdapterError, InvalidSettingError
from lightft.models.structure import share_weights
from lightft.probe import Probe, _Predictions, probe
from lightft.tasks import CausalLM, TextClassification
from lightft.training import _rehearsal
from tests.tiny_models import LABELS, classified_texts, instructions

MEMORY = ("weight_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes")


def texts(rows: int = 40) -> TaskData:
    examples = classified_texts(rows + 20)
    return TaskData(
        "text-classification", "texts", LABELS, examples[:rows], examples[rows : rows + 10], examples[rows + 10 :]
    )


def trainer_on(folder: Path, output: Path | None = None, trainer: Any = LoRATrainer, **settings: Any) -> LoRATrainer:
    loader = ModelLoader(str(folder), task="text-classification", labels=LABELS, dtype="float32")
    quick = {"epochs": 2, "batch_size": 4, "progress": False, "adapter": AdapterSpec("lora", r=4)}
    return trainer(loader, output_dir=output, **{**quick, **settings})


def memory_of(probed: Probe) -> dict[str, int]:
    return {name: getattr(probed, name) for name in MEMORY}


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [
        (LoRATrainer, {}),
        (LoRATrainer, {"gradient_checkpointing": True, "accumulation": 3, "max_tokens": 40}),
        (LoRATrainer, {"adapter": "full", "max_steps": 7}),
        (LoRATrainer, {"adapter": AdapterSpec("adalora", r=2, initial_r=4)}),
        (QLoRATrainer, {}),
        (QLoRATrainer, {"quantization": "int8"}),
    ],
    ids=["lora", "checkpointing", "full", "adalora", "nf4", "int8"],
)
def test_foretold_bytes_and_steps_are_those_of_the_training(
    trainer: Any, settings: dict[str, Any], dropout_bert: Path
) -> None:
    made = trainer_on(dropout_bert, trainer=trainer, **settings)
    foretold = probe(made, texts())
    assert made.result is None
    made.train(texts().train, texts().validation)
    assert memory_of(foretold) == made.result.memory
    assert foretold.steps == made.result.steps


def test_a_probe_leaves_trainer_random_numbers_and_training_as_they_were(dropout_bert: Path) -> None:
    def trained(*, probed: bool) -> tuple[list[Any], dict[str, torch.Tensor]]:
        trainer = trainer_on(dropout_bert)
        before = vars(trainer).copy()
        if probed:
            torch.manual_seed(5)
            expected = torch.rand(3)
            torch.manual_seed(5)
            probe(trainer, texts())
            assert torch.equal(torch.rand(3), expected)
            assert vars(trainer) == before
        model = trainer.train(texts().train, texts().validation)
        return trainer.result.history, {name: one.clone() for name, one in model.named_parameters()}

    (history, weights), (other_history, other_weights) = trained(probed=False), trained(probed=True)
    assert history == other_history
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


@pytest.mark.parametrize("adapter", ["full", "pissa", "bias-only"])
def test_a_probe_does_not_train_a_model_in_memory(adapter: str, tiny_bert: Path) -> None:
    loader = ModelLoader(str(tiny_bert), task="text-classification", labels=LABELS, dtype="float32")
    model, tokenizer = loader.load_model()
    before = share_weights(model, copied=[name for name, _ in model.named_children()]).state_dict()
    probe(LoRATrainer(model, tokenizer, adapter=adapter, batch_size=4, progress=False), texts())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_steps_are_foretold_from_seconds_where_seconds_end_the_training(tiny_bert: Path) -> None:
    endless = probe(trainer_on(tiny_bert, epochs=10**6, max_seconds=1.0), texts())
    assert endless.steps == pytest.approx(1.0 / endless.seconds_per_step, abs=1)
    ample = probe(trainer_on(tiny_bert, epochs=3, max_seconds=1e6), texts())
    assert ample.steps == 3 * 10


def test_the_steps_taken_are_the_largest_and_then_small_middling_and_large() -> None:
    class Row:
        def __init__(self, length: int) -> None:
            self.input_ids = [0] * length

    class Part:
        encodings = [Row(length) for length in range(1, 13)]

    part: Any = Part()
    steps = [(part, [[row]]) for row in (5, 11, 0, 3, 7, 1, 8, 2, 10, 4, 9)] + [(part, [[6], [6], [6]])]
    taken = [micro_batches for _, micro_batches in _rehearsal(steps, 3)]
    # By size: 1 2 3 4 5 6 8 9 10 11 12 tokens and 3 × 7; the largest pass is the one of 12, and thirds have 3, 8 and 12.
    assert taken == [[[11]], [[2]], [[7]], [[11]]]
    assert _rehearsal(steps[:1], 2) == [steps[0]] * 3


def test_seconds_are_those_of_steps_validations_and_test(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def of_each(self: _Predictions, examples: Any, *, validating: bool) -> float:
        asked.append((len(examples), validating))
        return 1000.0 if validating else 50_000.0

    monkeypatch.setattr(_Predictions, "seconds", of_each)
    made = probe(trainer_on(tiny_bert, epochs=4), texts())
    assert asked == [(10, True), (10, False)]
    assert made.steps == 40
    preparing = made.seconds - 40 * made.seconds_per_step - 4 * 1000 - 50_000
    assert 0 < preparing < 60
    cut_off = probe(trainer_on(tiny_bert, epochs=4, max_steps=11), texts())
    preparing = cut_off.seconds - 11 * cut_off.seconds_per_step - 2 * 1000 - 50_000
    assert 0 < preparing < 60


def test_predictions_are_timed_on_some_texts_and_reckoned_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    predicted = []

    class Tokens:
        def __init__(self, count: int) -> None:
            self.input_ids = [0] * count

    class Head(TextClassification):
        def encode(self, examples: Any, tokenizer: Any, max_length: int) -> Any:
            return [Tokens(int(example.id) % 7 + 1) for example in examples], {}

        def predict(self, model: Any, tokenizer: Any, examples: Any, **_: Any) -> Any:
            predicted.append(len(examples))
            now[0] += 0.5 * sum(int(example.id) % 7 + 1 for example in examples)

    monkeypatch.setattr("lightft.probe.time.perf_counter", lambda: now[0])
    answers = _Predictions(None, None, Head(labels=LABELS), 64)
    rows = classified_texts(1000)
    assert answers.seconds(rows, validating=True) == pytest.approx(0.5 * sum(row % 7 + 1 for row in range(1000)))
    assert predicted[0] <= 32
    assert answers.seconds(rows[:20], validating=True) == pytest.approx(0.5 * sum(row % 7 + 1 for row in range(20)))
    assert predicted[1] == 20
    assert answers.seconds((), validating=True) == 0
    assert len(predicted) == 2


def test_the_peak_has_room_for_the_copy_of_the_best_weights(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightft.cost.stopwatch.peak_memory_bytes", lambda device: 7_000_000)
    data = texts()
    kept = probe(trainer_on(tiny_bert), data)
    assert kept.peak_bytes == 7_000_000 + kept.gradient_bytes
    unjudged = TaskData(data.task, data.source, data.labels, data.train, (), data.test)
    assert probe(trainer_on(tiny_bert), unjudged).peak_bytes == 7_000_000


def test_a_language_model_is_probed_with_its_written_answers(tiny_llama: Path) -> None:
    rows = instructions(12)
    data = TaskData("causal-lm", "instructions", (), rows[:8], rows[8:10], rows[10:])
    loader = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32")
    trainer = LoRATrainer(
        loader, adapter=AdapterSpec("lora", r=4), head=CausalLM(max_new_tokens=4), batch_size=4, progress=False
    )
    foretold = probe(trainer, data, steps=1)
    assert foretold.steps == 3 * 2
    assert foretold.seconds > foretold.steps * foretold.seconds_per_step > 0


def test_what_cannot_be_trained_is_refused_before_a_step(tiny_bert: Path) -> None:
    with pytest.raises(InvalidSettingError, match="steps is 0; a probe times 1 step or more"):
        probe(trainer_on(tiny_bert), texts(), steps=0)
    with pytest.raises(AdapterError):
        probe(trainer_on(tiny_bert, adapter=AdapterSpec("lora", r=10_000)), texts())
