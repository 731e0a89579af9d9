"""The loop: what a step's gradient is, which epoch is kept, when training stops, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from lightft import AdapterSpec, Example, LoRATrainer, ModelLoader, Prediction
from lightft.adapters.attach import attach_adapter
from lightft.cpu_training.dropout import FastDropout
from lightft.errors import InvalidSettingError, TrainingError, UnknownNameError
from lightft.tasks import TASKS, CausalLM, TaskHead, TextClassification
from lightft.train_config import TrainConfig, TrainingResult
from lightft.training import Course, train_together
from tests.tiny_models import LABELS, TYPES, classified_texts, instructions, tagged_texts

ROWS = {"text-classification": classified_texts, "token-classification": tagged_texts, "causal-lm": instructions}
TASK_LABELS = {"text-classification": LABELS, "token-classification": TYPES, "causal-lm": ()}


def train_alone(
    model: nn.Module,
    tokenizer: Any,
    head: TaskHead,
    train: Sequence[Example],
    validation: Sequence[Example],
    config: TrainConfig,
    *,
    max_length: int,
) -> TrainingResult:
    return train_together([Course(model, head, train, validation, max_length)], tokenizer, config)


@dataclass
class Setting:
    """A task with its model, its head and its data."""

    task: str
    model: PreTrainedModel
    tokenizer: Any
    head: TaskHead
    rows: tuple[Example, ...]

    def adapted(self, *, seed: int = 0) -> Any:
        """Return the model with an adapter that already does something, so that every gradient is there."""
        model = attach_adapter(self.model, self.head.task_type, AdapterSpec("lora", r=4, dropout=0.0), seed=seed)
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.05)
        return model

    def train(self, model: Any, **settings: Any) -> Any:
        config = TrainConfig(
            **{"learning_rate": 1e-3, "epochs": 1, "max_grad_norm": 0.0, "progress": False, "warmup": 0.0, **settings}
        )
        return train_alone(model, self.tokenizer, self.head, self.rows, (), config, max_length=64)


@pytest.fixture(params=list(ROWS), scope="module")
def setting(request: pytest.FixtureRequest, tiny_bert: Path, tiny_llama: Path) -> Setting:
    return open_setting(request.param, tiny_llama if request.param == "causal-lm" else tiny_bert)


def open_setting(task: str, folder: Path, **loading: Any) -> Setting:
    labels = TASK_LABELS[task]
    loader = ModelLoader(str(folder), task=task, labels=labels or None, **{"dtype": "float32", **loading})
    model, tokenizer = loader.load_model()
    head = TASKS[task](labels=labels) if labels else TASKS[task]()
    return Setting(task, model, tokenizer, head, ROWS[task]())


def first_gradients(setting: Setting, **settings: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of one step over all rows, before clipping, as training accumulates them."""
    model = setting.adapted()
    gradients: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda tensor, name=name: gradients.__setitem__(name, tensor.grad.clone())
            )
    result = setting.train(model, **{"batch_size": len(setting.rows), **settings})
    assert result.steps == 1
    return gradients


@pytest.fixture(scope="module")
def whole_step(setting: Setting) -> dict[str, torch.Tensor]:
    """Return the gradients of a step that is not split."""
    return first_gradients(setting)


def gradients_by_hand(setting: Setting) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of the mean cross-entropy over all labels, row by row and in plain torch."""
    model = setting.adapted()
    encodings, _ = setting.head.encode(setting.rows, setting.tokenizer, 64)
    total, labels_seen = torch.zeros(()), 0
    for encoding in encodings:
        logits = model(input_ids=torch.tensor([encoding.input_ids])).logits[0]
        labels = encoding.labels
        if setting.task == "text-classification":
            logits = logits.unsqueeze(0)
        if setting.task == "causal-lm":
            logits, labels = logits[:-1], labels[1:]
        for row, label in zip(logits, labels, strict=True):
            if label != -100:
                total = total - torch.log_softmax(row, -1)[label]
                labels_seen += 1
    (total / labels_seen).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return total.item() / labels_seen, gradients


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of two gradients, relative to the norm of the first."""
    assert set(one) == set(other)
    whole = torch.cat([one[name].flatten() for name in sorted(one)])
    rest = whole - torch.cat([other[name].flatten() for name in sorted(one)])
    return float(rest.norm() / whole.norm())


def test_a_step_has_the_gradient_of_the_mean_loss_per_label(
    setting: Setting, whole_step: dict[str, torch.Tensor]
) -> None:
    loss, by_hand = gradients_by_hand(setting)
    assert difference(by_hand, whole_step) < 1e-5
    model = setting.adapted()
    result = setting.train(model, batch_size=len(setting.rows))
    assert result.history[0]["train_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 4, "accumulation": 4},
        {"batch_size": 1, "accumulation": 16, "max_tokens": 64},
        {"max_tokens": 1},
        {"gradient_checkpointing": True},
        {"by_length": False, "max_tokens": 100, "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_how_a_step_is_split_does_not_change_its_gradient(
    setting: Setting, whole_step: dict[str, torch.Tensor], settings: dict[str, Any]
) -> None:
    assert difference(whole_step, first_gradients(setting, **settings)) < 1e-5


def test_every_row_is_seen_once_per_epoch(setting: Setting) -> None:
    result = setting.train(setting.adapted(), epochs=3, batch_size=5)
    rows = len(setting.rows)
    assert result.rows == 3 * rows
    assert result.steps == 3 * -(-rows // 5)
    encodings, _ = setting.head.encode(setting.rows, setting.tokenizer, 64)
    assert result.tokens == 3 * sum(len(encoding.input_ids) for encoding in encodings)
    assert result.padded_tokens >= result.tokens


def test_cross_entropy_is_torchs_own_summed(setting: Setting) -> None:
    torch.manual_seed(0)
    encodings, _ = setting.head.encode(setting.rows, setting.tokenizer, 64)
    labels = setting.head.collate(encodings, setting.tokenizer)["labels"]
    logits = torch.randn(*labels.shape, 7)
    labels = torch.where(labels >= 0, labels % 7, labels)
    ours = setting.head.loss(logits, labels, setting.model)
    kept = (logits[:, :-1], labels[:, 1:]) if setting.task == "causal-lm" else (logits, labels)
    counted = kept[1] != -100
    assert 0 < counted.sum() < counted.numel() or setting.task == "text-classification"
    assert ours.item() == pytest.approx(
        float(functional.cross_entropy(kept[0][counted], kept[1][counted])) * int(counted.sum()), rel=1e-5
    )


def test_long_gradients_are_scaled_down_to_max_grad_norm_and_logged_unscaled(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    gradients = first_gradients(setting)
    norm = float(torch.cat([value.flatten() for value in gradients.values()]).norm())
    result = setting.train(setting.adapted(), batch_size=len(setting.rows), max_grad_norm=1e-3)
    assert result.history[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1 / 2, 1, 1, 1, 1, 1]),
        ("linear", [1 / 2, 1, 1, 3 / 4, 2 / 4, 1 / 4]),
        ("cosine", [1 / 2, 1, 1, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_the_learning_rate_warms_up_and_decays(
    tiny_bert: Path, schedule: str, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = open_setting("text-classification", tiny_bert)
    used: list[float] = []
    step = torch.optim.AdamW.step

    def noting(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    rows = len(setting.rows)
    setting.train(setting.adapted(), batch_size=rows, epochs=6, schedule=schedule, warmup=0.3, learning_rate=0.5)
    assert used == pytest.approx([0.5 * factor for factor in expected], rel=1e-6)


def test_weight_decay_spares_biases_and_norms(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = open_setting("text-classification", tiny_bert)
    decay: dict[int, float] = {}
    step = torch.optim.AdamW.step

    def noting(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        decay.update(
            {parameter.ndim: group["weight_decay"] for group in self.param_groups for parameter in group["params"]}
        )
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    setting.train(setting.adapted(), weight_decay=0.25)
    assert decay == {1: 0.0, 2: 0.25}


def test_the_same_seed_gives_the_same_adapter_to_the_last_bit_even_with_dropout(dropout_bert: Path) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 3)  # what was drawn before must not matter
        setting = open_setting("text-classification", dropout_bert)
        trainer = LoRATrainer(setting.model, setting.tokenizer, epochs=2, batch_size=4, seed=seed, progress=False)
        model = trainer.train(setting.rows, setting.rows, lora_dropout=0.2)
        return {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}

    first, second, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_dropout_is_on_in_training_and_off_after_it(dropout_bert: Path) -> None:
    setting = open_setting("text-classification", dropout_bert)
    model = setting.adapted()
    modes: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            assert not isinstance(module, FastDropout)
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    setting.train(model)
    assert modes
    assert all(modes)
    assert not any(module.training for module in model.modules())
    assert any(isinstance(module, FastDropout) for module in model.modules())


@dataclass(frozen=True)
class Scripted(TextClassification):
    """A classifier whose validation accuracy follows a script, and that notes the weights it was asked with."""

    metrics: tuple[str, ...] = ("accuracy",)
    script: tuple[float, ...] = ()
    seen: list[dict[str, torch.Tensor]] = field(default_factory=list, compare=False)

    def predict(self, model: Any, tokenizer: Any, examples: Sequence[Example], **_: Any) -> list[Prediction]:
        self.seen.append({name: value.clone() for name, value in model.named_parameters() if value.requires_grad})
        right = round(self.script[len(self.seen) - 1] * len(examples))
        wrong_of = {LABELS[0]: LABELS[1], LABELS[1]: LABELS[0]}
        return [
            Prediction(
                example.id, example.target, str(example.target) if place < right else wrong_of[str(example.target)]
            )
            for place, example in enumerate(examples)
        ]


def scripted_training(tiny_bert: Path, script: tuple[float, ...], **settings: Any) -> tuple[Any, Any, Scripted]:
    setting = open_setting("text-classification", tiny_bert)
    head = Scripted(labels=LABELS, script=script)
    config = TrainConfig(**{"learning_rate": 1e-2, "epochs": len(script), "progress": False, **settings})
    model = setting.adapted()
    result = train_alone(model, setting.tokenizer, head, setting.rows, setting.rows[:10], config, max_length=64)
    return model, result, head


@pytest.mark.parametrize(
    ("script", "best"),
    [((0.5, 0.9, 0.2), 2), ((0.9, 0.5, 0.4), 1), ((0.1, 0.2, 0.3), 3), ((0.5, 0.8, 0.8), 2)],
    ids=str,
)
def test_the_weights_of_the_best_epoch_are_kept(tiny_bert: Path, script: tuple[float, ...], best: int) -> None:
    model, result, head = scripted_training(tiny_bert, script)
    assert (result.best_epoch, result.best_score) == (best, pytest.approx(max(script)))
    assert [row["validation_accuracy"] for row in result.history if "validation_accuracy" in row] == pytest.approx(
        script
    )
    now = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert all(torch.equal(now[name], value) for name, value in head.seen[best - 1].items())
    others = [weights for epoch, weights in enumerate(head.seen, 1) if epoch != best]
    assert not any(all(torch.equal(now[name], value) for name, value in weights.items()) for weights in others)


def test_a_lower_perplexity_is_better(tiny_llama: Path) -> None:
    setting = open_setting("causal-lm", tiny_llama)
    trainer = LoRATrainer(
        setting.model, setting.tokenizer, epochs=4, learning_rate=2e-2, schedule="constant", progress=False
    )
    trainer.train(setting.rows[:6], setting.rows[6:])
    result = trainer.result
    assert result is not None
    scores = [row["validation_perplexity"] for row in result.history if "validation_perplexity" in row]
    assert result.best_score == min(scores)
    assert result.best_epoch == scores.index(min(scores)) + 1


def test_the_best_score_is_what_evaluating_the_kept_model_gives(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    noise = [Example(example.id, example.text, LABELS[int(example.id) % 3 == 0]) for example in setting.rows]
    trainer = LoRATrainer(
        setting.model,
        setting.tokenizer,
        epochs=6,
        learning_rate=3e-2,
        schedule="constant",
        batch_size=4,
        progress=False,
        seed=3,
    )
    model = trainer.train(setting.rows, noise, validation_metric="roc_auc")
    result = trainer.result
    assert result is not None
    scores = [row["validation_roc_auc"] for row in result.history if "validation_roc_auc" in row]
    assert max(scores) > scores[-1], "the last epoch must not be the best for this test to say anything"
    assert trainer.evaluate(model, noise)["roc_auc"] == pytest.approx(result.best_score, abs=1e-12)
    assert result.best_score == max(scores)


def test_patience_ends_training(tiny_bert: Path) -> None:
    _, result, head = scripted_training(tiny_bert, (0.5, 0.9, 0.8, 0.7, 1.0), patience=2)
    assert len(head.seen) == 4
    assert result.best_epoch == 2
    _, result, head = scripted_training(tiny_bert, (0.5, 0.9, 0.8, 0.7, 1.0))
    assert result.best_epoch == 5


def test_without_validation_the_last_epoch_is_kept(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    result = setting.train(setting.adapted(), epochs=3)
    assert (result.best_epoch, result.best_score) == (3, None)


def test_a_misspelt_validation_metric_is_refused_before_the_first_step(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    seen: list[Any] = []
    trainer = LoRATrainer(
        setting.model, setting.tokenizer, validation_metric="acuracy", callbacks=[seen.append], progress=False
    )
    with pytest.raises(UnknownNameError, match=r"No metric named 'acuracy'. Did you mean 'accuracy'"):
        trainer.train(setting.rows, setting.rows)
    assert seen == []


def test_a_validation_metric_that_is_undefined_is_refused_by_name(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    one_class = [example for example in setting.rows if example.target == LABELS[0]]
    trainer = LoRATrainer(setting.model, setting.tokenizer, validation_metric="roc_auc", progress=False)
    with pytest.raises(TrainingError, match="'roc_auc' is undefined on the validation split"):
        trainer.train(setting.rows, one_class)


def test_a_loss_that_is_not_finite_stops_training(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    with torch.no_grad():
        setting.model.bert.encoder.layer[1].output.dense.bias[0] = float("nan")
    model = setting.adapted()
    before = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
    with pytest.raises(TrainingError, match=r"The loss became nan. Lower learning_rate \(now 0.001\)"):
        setting.train(model)
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_callbacks_see_every_row_and_may_end_training(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    seen: list[dict[str, Any]] = []

    def stop_after_second_epoch(row: Any) -> bool:
        return row["epoch"] >= 2

    trainer = LoRATrainer(
        setting.model,
        setting.tokenizer,
        epochs=5,
        batch_size=1,
        callbacks=[lambda row: seen.append(dict(row)), stop_after_second_epoch],
        progress=False,
    )
    trainer.train(setting.rows, setting.rows)
    assert trainer.result is not None
    assert seen == trainer.result.history
    steps = [row["step"] for row in seen if "train_loss" in row]
    assert steps == [10, 16, 20, 30, 32]
    assert [row["epoch"] for row in seen if "validation_accuracy" in row] == [1, 2]


def test_a_callback_can_end_training_without_validation(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    trainer = LoRATrainer(
        setting.model, setting.tokenizer, epochs=5, callbacks=[lambda row: row["epoch"] >= 2], progress=False
    )
    trainer.train(setting.rows)
    assert trainer.result is not None
    assert trainer.result.best_epoch == 2


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_can_be_turned_off(tiny_bert: Path, capfd: pytest.CaptureFixture[str], progress: bool) -> None:
    setting = open_setting("text-classification", tiny_bert)
    capfd.readouterr()
    setting.train(setting.adapted(), progress=progress)
    written = capfd.readouterr()
    assert written.out == ""
    assert (f"{len(setting.rows)}/{len(setting.rows)}" in written.err) is progress
    assert (written.err == "") is not progress


def test_rows_without_gold_are_left_out_and_counted(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    setting.rows = (*setting.rows[:5], Example("a", "film"), Example("b", "sea"))
    result = setting.train(setting.adapted())
    assert result.counts == {"rows_without_labels": 2}
    assert result.rows == 5
    setting.rows = (Example("a", "film"),)
    with pytest.raises(TrainingError, match="None of the 1 training examples has a gold answer"):
        setting.train(setting.adapted())


def test_a_model_without_trainable_parameters_is_refused(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    with pytest.raises(TrainingError, match="No parameter of the model is trainable"):
        setting.train(setting.model.requires_grad_(False))


def test_answers_that_do_not_fit_are_counted(tiny_llama: Path) -> None:
    setting = open_setting("causal-lm", tiny_llama)
    encodings, _ = setting.head.encode(setting.rows, setting.tokenizer, 10**6)
    longer = sum(len(encoding.input_ids) > 24 for encoding in encodings)
    config = TrainConfig(learning_rate=1e-3, epochs=1, progress=False)
    result = train_alone(setting.adapted(), setting.tokenizer, CausalLM(), setting.rows, (), config, max_length=24)
    assert 0 < longer < len(setting.rows)
    assert result.counts["truncated_texts"] == longer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "There is no setting 'learning_rat'. Did you mean 'learning_rate'?"),
        ({"epoch": 3}, "There is no setting 'epoch'. Did you mean 'epochs'?"),
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must lie between 0 and 1"),
        ({"learning_rate": 3}, "learning_rate is 3"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"schedule": "linea"}, "No schedule named 'linea'. Did you mean 'linear'?"),
        ({"precision": "bf16"}, "No precision named 'bf16'"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        TrainConfig.from_settings(settings)
    assert message in str(caught.value)


def test_settings_of_one_training_are_checked_too(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    with pytest.raises(InvalidSettingError, match="Did you mean 'batch_size'"):
        LoRATrainer(setting.model, setting.tokenizer).train(setting.rows, batchsize=3)
    with pytest.raises(InvalidSettingError, match="float16' needs a GPU"):
        LoRATrainer(setting.model, setting.tokenizer, progress=False).train(setting.rows, precision="float16")


def test_bfloat16_computation_keeps_float32_weights_and_answers(tiny_bert: Path) -> None:
    setting = open_setting("text-classification", tiny_bert)
    exact, rounded = first_gradients(setting), first_gradients(setting, precision="bfloat16")
    assert 1e-5 < difference(exact, rounded) < 0.1, "it did compute in bfloat16"
    settings = {"precision": "bfloat16", "epochs": 3, "learning_rate": 1e-2, "progress": False}
    trainer = LoRATrainer(setting.model, setting.tokenizer, **settings)
    model = trainer.train(setting.rows, setting.rows, validation_metric="roc_auc")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert trainer.result is not None
    assert trainer.evaluate(model, setting.rows)["roc_auc"] == trainer.result.best_score
    ids = torch.tensor([setting.tokenizer("a good film")["input_ids"]])
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, type(model).forward(model, input_ids=ids).logits)
