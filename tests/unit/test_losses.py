"""Losses of the classification heads: the numbers of torch and scikit-learn, and settings that are refused by name."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional

import lightft
from lightft import Example, LoRATrainer, ModelLoader, Span, TaskData
from lightft.errors import DataError, InvalidSettingError
from lightft.tasks import CausalLM, LearnsFromTraining, TextClassification, TokenClassification
from lightft.tasks.losses import balanced_weights, summed_cross_entropy, summed_focal_loss
from tests.tiny_models import LABELS, TYPES, classified_texts, tagged_texts

NO_MODEL = nn.Identity()
HEADS = (TextClassification, TokenClassification)


def random_batch(seed: int, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Return logits (6, 9, classes), and labels (6, 9) of which a third carry no loss."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(6, 9, classes, generator=generator)
    labels = torch.randint(classes, (6, 9), generator=generator)
    return logits, labels.masked_fill(torch.rand(6, 9, generator=generator) < 1 / 3, -100)


# --- against torch


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(seed: int, smoothing: float, weighted: bool) -> None:
    logits, labels = random_batch(seed)
    weight = torch.rand(5, generator=torch.Generator().manual_seed(seed)) if weighted else None
    labelled = labels >= 0
    theirs = functional.cross_entropy(
        logits[labelled], labels[labelled], weight=weight, label_smoothing=smoothing, reduction="none"
    ).sum()
    ours = summed_cross_entropy(logits, labels, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_without_focus_is_cross_entropy(weighted: bool) -> None:
    logits, labels = random_batch(0)
    weight = torch.arange(5) / 2 if weighted else None
    torch.testing.assert_close(
        summed_focal_loss(logits, labels, gamma=0.0, weight=weight),
        functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weight, reduction="sum"),
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_the_papers_formula(gamma: float) -> None:
    logits, labels = random_batch(1)
    weight = np.array([0.5, 1.0, 2.0, 3.0, 0.0])
    exponentials = np.exp(logits.double().numpy())
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    expected = sum(
        -weight[label] * (1 - probabilities[place][label]) ** gamma * math.log(probabilities[place][label])
        for place, label in np.ndenumerate(labels.numpy())
        if label >= 0
    )
    ours = summed_focal_loss(logits, labels, gamma=gamma, weight=torch.tensor(weight).float())
    assert float(ours) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_a_label_the_model_is_certain_of_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    summed_focal_loss(logits, torch.tensor([0, 0]), gamma=gamma).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1, 0] < 0 <= logits.grad[0, 0].abs() < 1e-3


def test_focal_loss_counts_easy_labels_less_than_hard_ones() -> None:
    easy, hard = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    gold = torch.tensor([0])

    def share(gamma: float) -> float:
        easy_loss, hard_loss = (float(summed_focal_loss(logits, gold, gamma=gamma)) for logits in (easy, hard))
        return easy_loss / hard_loss

    assert share(2.0) < share(1.0) < share(0.0)


# --- weights


@pytest.mark.parametrize("seed", range(5))
def test_balanced_weights_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c", "d"], p=[0.9, 0.06, 0.03, 0.01], size=400)
    present = np.unique(labels)
    theirs = dict(zip(present, compute_class_weight("balanced", classes=present, y=labels), strict=True))
    assert balanced_weights({**Counter(labels.tolist()), "absent": 0}) == pytest.approx(theirs)


@pytest.mark.parametrize("square_root", [False, True])
def test_weights_from_the_data_average_one_over_its_labels(square_root: bool) -> None:
    counts = {"O": 9000, "person": 700, "work": 12}
    weights = balanced_weights(counts, square_root=square_root)
    assert sum(counts[name] * weights[name] for name in counts) == pytest.approx(9712)
    ratio = weights["work"] / weights["O"]
    assert ratio == pytest.approx(math.sqrt(9000 / 12) if square_root else 9000 / 12)
    assert balanced_weights({}, square_root=square_root) == {}


@pytest.mark.parametrize("setting", ["balanced", "sqrt-balanced"])
def test_a_text_weighs_as_its_class_does_in_the_training_data(setting: str) -> None:
    train = [Example(str(row), "film", LABELS[row % 4 == 0]) for row in range(8)] + [Example("unlabelled", "film")]
    head = TextClassification(labels=(*LABELS, "never seen"), class_weights=setting).fitted(train)
    frequencies = np.array([6, 2])
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=np.repeat([0, 1], frequencies))
    if setting == "sqrt-balanced":
        expected = np.sqrt(expected) / np.average(np.sqrt(expected), weights=frequencies)
    logits, labels = random_batch(0, classes=3)
    theirs = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), weight=torch.tensor([*expected, 1.0]).float(), reduction="sum"
    )
    torch.testing.assert_close(head.loss(logits, labels, NO_MODEL), theirs)


def test_a_word_weighs_as_its_type_does_and_both_tags_of_a_type_alike() -> None:
    train = tagged_texts()
    head = TokenClassification(labels=(*TYPES, "ORG"), class_weights="balanced").fitted(train)
    text_of = [example.text.split() for example in train]
    found = Counter(
        {"anna": "PER", "berg": "PER", "bert": "PER", "rome": "LOC", "new": "LOC", "york": "LOC"}.get(word, "O")
        for words in text_of
        for word in words
    )
    types, labels = np.unique([name for name, count in found.items() for _ in range(count)], return_inverse=True)
    weight = dict(zip(types, compute_class_weight("balanced", classes=np.arange(3), y=labels), strict=True))
    by_output = [weight["O"], weight["LOC"], weight["LOC"], weight["PER"], weight["PER"], 1.0, 1.0]
    logits, golds = random_batch(2, classes=7)
    theirs = functional.cross_entropy(
        logits.flatten(0, 1), golds.flatten(), weight=torch.tensor(by_output).float(), reduction="sum"
    )
    torch.testing.assert_close(head.loss(logits, golds, NO_MODEL), theirs)


def test_weights_by_name_hold_for_the_classes_named_and_are_one_elsewhere() -> None:
    logits, labels = random_batch(3)
    head = TokenClassification(labels=TYPES, class_weights={"PER": 3, "O": 0.5})
    assert head.fitted(tagged_texts()) is head
    theirs = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), weight=torch.tensor([0.5, 1, 1, 3, 3]), reduction="sum"
    )
    torch.testing.assert_close(head.loss(logits, labels, NO_MODEL), theirs)


def test_weights_and_focus_work_together() -> None:
    logits, labels = random_batch(4, classes=2)
    head = TextClassification(labels=LABELS, loss_function="focal", focal_gamma=1.5, class_weights={"positive": 4.0})
    expected = summed_focal_loss(logits, labels, gamma=1.5, weight=torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(head.loss(logits, labels, NO_MODEL), expected)


def test_weights_of_the_data_need_the_data() -> None:
    logits, labels = random_batch(0, classes=2)
    head = TextClassification(labels=LABELS, class_weights="balanced")
    with pytest.raises(InvalidSettingError, match=r"class_weights='balanced' are computed from the training data"):
        head.loss(logits, labels, NO_MODEL)
    fitted = head.fitted(classified_texts())
    fitted.loss(logits, labels, NO_MODEL)
    with pytest.raises(InvalidSettingError, match="which this head has not seen"):
        replace(fitted, label_smoothing=0.1).loss(logits, labels, NO_MODEL)


def test_gold_that_the_head_does_not_know_is_refused_before_it_is_counted() -> None:
    head = TokenClassification(labels=TYPES, class_weights="balanced")
    with pytest.raises(DataError, match="Example 'a' has entities of type ORG"):
        head.fitted([Example("a", "anna", (Span(0, 4, "ORG"),))])


# --- settings


def test_computed_weights_are_no_setting() -> None:
    head = TextClassification(labels=LABELS, class_weights="balanced")
    fitted = head.fitted(classified_texts())
    assert fitted == head
    assert fitted is not head
    assert fitted.class_weights == "balanced"


def test_the_heads_of_two_tasks_learn_from_training_and_the_third_does_not() -> None:
    assert isinstance(TextClassification(labels=LABELS), LearnsFromTraining)
    assert isinstance(TokenClassification(labels=TYPES), LearnsFromTraining)
    assert not isinstance(CausalLM(), LearnsFromTraining)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_function": "focl"}, "No loss function named 'focl'. Did you mean 'focal'"),
        ({"focal_gamma": -1.0}, r"focal_gamma is -1.0; it must be 0 or more"),
        ({"focal_gamma": math.nan}, r"focal_gamma is nan"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it is a share, from 0 to below 1"),
        ({"label_smoothing": -0.1}, r"label_smoothing is -0.1"),
        ({"label_smoothing": 0.1, "loss_function": "focal"}, r"only 'cross-entropy' has it. Leave one of the two out"),
        ({"class_weights": "balance"}, "No class weights named 'balance'. Did you mean 'balanced'"),
        ({"class_weights": {"positve": 2.0}}, "class_weights names 'positve', which is no class. Did you mean"),
        ({"class_weights": {"positive": -2.0}}, "class_weights gives 'positive' the weight -2.0; it must be 0 or more"),
        ({"class_weights": {"positive": math.inf}}, "the weight inf"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(head: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        head(labels=LABELS, **settings)


def test_entity_types_and_o_have_weights_and_tags_do_not() -> None:
    TokenClassification(labels=TYPES, class_weights={"O": 0.1, "PER": 2.0})
    with pytest.raises(InvalidSettingError, match="class_weights names 'B-PER', which is no class"):
        TokenClassification(labels=TYPES, class_weights={"B-PER": 2.0})
    with pytest.raises(InvalidSettingError, match="class_weights names 'O', which is no class"):
        TextClassification(labels=LABELS, class_weights={"O": 2.0})


# --- in a training


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": "balanced"},
        {"class_weights": {"positive": 3, "negative": 0.5}},
        {"loss_function": "focal", "focal_gamma": 1.0, "class_weights": "sqrt-balanced"},
        {"label_smoothing": 0.2},
    ],
)
def test_a_run_records_the_settings_and_not_the_weights(
    settings: dict[str, Any], tiny_bert: Path, tmp_path: Path
) -> None:
    rows = classified_texts()
    data = TaskData("text-classification", "made up", LABELS, rows, rows, rows)
    head = TextClassification(labels=LABELS, **settings)
    loader = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32")

    def trainer() -> LoRATrainer:
        return LoRATrainer(loader, head=head, epochs=1, output_dir=tmp_path / "run", progress=False)

    run = trainer().fit(data)
    for file, path in (("run.json", ("training", "head")), ("adapter/lightft.json", ("head",))):
        recorded = json.loads((tmp_path / "run" / file).read_text())
        for part in path:
            recorded = recorded[part]
        assert settings.items() <= recorded.items()
        assert set(recorded) == {
            "metrics", "bidirectional", "loss_function", "focal_gamma", "label_smoothing", "class_weights",
        }  # fmt: skip
    assert trainer().fit(data, resume=True).scores == run.scores
    assert lightft.load(tmp_path / "run" / "adapter").head == head


def test_a_weight_moves_the_model_towards_its_class(tiny_bert: Path) -> None:
    rows = classified_texts(32)
    train = [row for number, row in enumerate(rows) if row.target == "negative" or number % 8 == 1]

    def mean_probability(weights: Any) -> float:
        loader = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32")
        head = TextClassification(labels=LABELS, class_weights=weights)
        trainer = LoRATrainer(loader, head=head, epochs=1, learning_rate=1e-3, progress=False)
        predictions = trainer.predict(trainer.train(train), rows)
        return float(np.mean([(prediction.probabilities or {})["positive"] for prediction in predictions]))

    assert mean_probability(None) < mean_probability("sqrt-balanced") < mean_probability("balanced")
