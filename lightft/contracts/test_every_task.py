"""What every task head must keep, so that any adapter on any base can learn it.

A head is tried on sentences of its ``task_type``: with one of two classes (``SEQ_CLS``), with people and places
(``TOKEN_CLS``), or with a text to write (``CAUSAL_LM``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import lightft
from lightft.adapters import AdapterSpec
from lightft.contracts.adapter_cells import Bench
from lightft.contracts.tiny_models import LABELS, examples
from lightft.experiment import LoRATrainer
from lightft.inference import Predictor
from lightft.metrics import METRICS, score_predictions
from lightft.records import Example, Prediction
from lightft.tasks import TASKS, TaskHead

# The built-in task whose sentences a head of that type is tried on.
_KIN = {"SEQ_CLS": "text-classification", "TOKEN_CLS": "token-classification", "CAUSAL_LM": "causal-lm"}


@pytest.fixture(scope="module")
def heads(bench: Bench) -> dict[str, tuple[TaskHead, Predictor]]:
    """Heads with an untrained model each, by name."""
    return {}


@pytest.fixture
def untrained(task_name: str, bench: Bench, heads: dict[str, tuple[TaskHead, Predictor]]) -> Predictor:
    """The head with a model that nobody trained."""
    if task_name not in heads:
        head = head_of(task_name)
        model, tokenizer = head.load_model(bench.loader(kin_of(task_name)))
        heads[task_name] = (head, Predictor(model, tokenizer, head, max_length=48))
    return heads[task_name][1]


def kin_of(task_name: str) -> str:
    """Return the built-in task that is tried on the same sentences."""
    task: Any = TASKS[task_name]
    return _KIN[task.task_type]


def head_of(task_name: str) -> TaskHead:
    """Return the head with the labels of its sentences."""
    return TASKS[task_name](labels=LABELS.get(kin_of(task_name), ()))


def summed_loss(predictor: Predictor, rows: Sequence[Example]) -> float:
    """Return the loss of ``rows`` in one batch."""
    head = predictor.head
    encodings, _ = head.encode(rows, predictor.tokenizer, predictor.max_length)
    batch = head.collate(encodings, predictor.tokenizer)
    labels = batch.pop("labels")
    with torch.inference_mode():
        return float(head.loss(predictor.model(**batch).logits, labels, predictor.model))


def test_head_is_a_frozen_record_with_the_registered_name(task_name: str) -> None:
    head: Any = head_of(task_name)
    assert head.name == task_name
    assert len(type(head).__doc__ or "") > 40
    assert {"labels", "metrics"} <= {field.name for field in dataclasses.fields(head)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        head.labels = ()


def test_metrics_of_the_head_are_registered(task_name: str) -> None:
    head = head_of(task_name)
    assert head.metrics
    assert [name for name in head.metrics if name not in METRICS] == []


def test_every_example_has_rows_in_order_and_within_the_window(task_name: str, untrained: Predictor) -> None:
    rows = examples(kin_of(task_name))
    encodings, counts = untrained.head.encode(rows, untrained.tokenizer, untrained.max_length)
    places = [encoding.example for encoding in encodings]
    assert places == sorted(places)
    assert set(places) == set(range(len(rows)))
    assert all(0 < len(encoding.input_ids) <= untrained.max_length for encoding in encodings)
    assert not any(counts.values())


def test_what_does_not_fit_the_window_is_cut_or_continued_and_counted(task_name: str, untrained: Predictor) -> None:
    rows = examples(kin_of(task_name))
    encodings, counts = untrained.head.encode(rows, untrained.tokenizer, 6)
    assert all(len(encoding.input_ids) <= 6 for encoding in encodings)
    assert {encoding.example for encoding in encodings} == set(range(len(rows)))
    assert any(counts.values()) or len(encodings) > len(rows)


def test_batch_has_the_inputs_and_labels_of_its_rows(task_name: str, untrained: Predictor) -> None:
    encodings, _ = untrained.head.encode(examples(kin_of(task_name)), untrained.tokenizer, untrained.max_length)
    batch = untrained.head.collate(encodings, untrained.tokenizer)
    assert {"input_ids", "attention_mask", "labels"} <= set(batch)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].sum(1).tolist() == [len(encoding.input_ids) for encoding in encodings]
    assert len(batch["labels"]) == len(encodings)


def test_loss_is_a_sum_over_rows_whatever_they_are_batched_with(task_name: str, untrained: Predictor) -> None:
    rows = examples(kin_of(task_name))
    alone = [summed_loss(untrained, [row]) for row in rows]
    assert summed_loss(untrained, rows) == pytest.approx(sum(alone), rel=1e-4)
    assert sum(alone) > 0


def test_predictions_keep_order_and_gold_and_the_mode_of_the_model(task_name: str, untrained: Predictor) -> None:
    rows = examples(kin_of(task_name))
    untrained.model.train()
    try:
        predictions = untrained.predict(rows)
        assert untrained.model.training
    finally:
        untrained.model.eval()
    assert [prediction.id for prediction in predictions] == [row.id for row in rows]
    assert [prediction.gold for prediction in predictions] == [row.target for row in rows]
    assert [Prediction.from_json(prediction.to_json()) for prediction in predictions]


def test_an_answer_does_not_depend_on_the_gold_one_or_on_neighbours(task_name: str, untrained: Predictor) -> None:
    rows = examples(kin_of(task_name))
    together = [prediction.predicted for prediction in untrained.predict(rows)]
    alone = [untrained.predict([dataclasses.replace(row, target=None)])[0].predicted for row in rows]
    assert alone == together


def test_training_lowers_the_loss_and_the_folder_opens_as_the_same_head(
    task_name: str, bench: Bench, tmp_path: Any
) -> None:
    rows = examples(kin_of(task_name))
    trainer = LoRATrainer(
        bench.loader(kin_of(task_name)),
        adapter=AdapterSpec("lora", r=4, dropout=0.0),
        head=head_of(task_name),
        epochs=10,
        batch_size=len(rows),
        learning_rate=1e-2,
        warmup=0.0,
        progress=False,
    )
    predictor = trainer.predictor(trainer.train(rows))
    losses = [row["train_loss"] for row in trainer.result.history] if trainer.result else []
    assert losses[-1] < losses[0]
    opened = lightft.load(trainer.save(predictor.model, tmp_path / "adapter"), device="cpu")
    assert opened.head == trainer.head
    assert opened.predict(rows) == predictor.predict(rows)
    assert set(score_predictions(opened.predict(rows), opened.head.metrics, opened.head.labels)) == set(
        opened.head.metrics
    )
