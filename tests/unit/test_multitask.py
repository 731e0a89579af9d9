"""Tasks that learn together: what they share, what is theirs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lightft
from lightft import AdapterSpec, ModelLoader, TaskData
from lightft.errors import AdapterError, InvalidSettingError
from lightft.multitask import MultiTaskTrainer
from tests.tiny_models import LABELS, TYPES, classified_texts, tagged_texts

QUICK = {"epochs": 1, "batch_size": 4, "progress": False}


def data_of(task: str, rows: Any, labels: tuple[str, ...], size: int = 24) -> TaskData:
    return TaskData(task, task, labels, rows[:size], rows[:6], rows[size : size + 6])


@pytest.fixture
def tasks() -> dict[str, TaskData]:
    return {
        "sentiment": data_of("text-classification", classified_texts(30), LABELS),
        "ner": data_of("token-classification", tagged_texts(30), TYPES),
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def head_shape(stored: dict[str, torch.Tensor]) -> tuple[int, ...]:
    (weight,) = [tensor for name, tensor in stored.items() if name.endswith("classifier.weight")]
    return tuple(weight.shape)


SPECS = [
    AdapterSpec("lora", r=4),
    AdapterSpec("ia3"),
    AdapterSpec("bias-only"),
    AdapterSpec("prompt-tuning", tokens=4),
    AdapterSpec("adalora", r=2, initial_r=4),
    AdapterSpec("pissa", r=4),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_two_tasks_share_the_adapter_and_keep_their_heads(
    spec: AdapterSpec, tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path
) -> None:
    trainer = MultiTaskTrainer(ModelLoader(str(tiny_bert)), adapter=spec, output_dir=tmp_path, **QUICK)
    runs = trainer.fit(tasks)
    assert [run.metrics[0] for run in runs.values()] == ["accuracy", "span_f1"]
    first, second = weights(tmp_path / "sentiment"), weights(tmp_path / "ner")
    shared = {name for name in first if name in second and "classifier" not in name}
    assert shared
    assert all(torch.equal(first[name], second[name]) for name in shared)
    assert head_shape(first) == (2, 64)
    assert head_shape(second) == (5, 64)
    for name, run in runs.items():
        assert lightft.load(tmp_path / name / "adapter").predict(tasks[name].test) == list(run.predictions)


def test_both_tasks_move_the_shared_adapter(tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path) -> None:
    loader, spec = ModelLoader(str(tiny_bert)), AdapterSpec("lora", r=4, dropout=0.0)
    MultiTaskTrainer(loader, adapter=spec, output_dir=tmp_path / "both", learning_rate=1e-2, **QUICK).fit(tasks)
    other = {**tasks, "ner": data_of("token-classification", tagged_texts(40)[10:], TYPES)}
    MultiTaskTrainer(loader, adapter=spec, output_dir=tmp_path / "other", learning_rate=1e-2, **QUICK).fit(other)
    before, after = weights(tmp_path / "both" / "sentiment"), weights(tmp_path / "other" / "sentiment")
    changed = [name for name in before if ".lora_B." in name and not torch.equal(before[name], after[name])]
    # Only the other task's data changed, so that what changed here came from there.
    assert len(changed) == sum(".lora_B." in name for name in before)


def test_full_fine_tuning_of_two_tasks_trains_one_body(
    tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path
) -> None:
    MultiTaskTrainer(ModelLoader(str(tiny_bert)), adapter="full", output_dir=tmp_path, **QUICK).fit(tasks)
    bodies = [load_file(tmp_path / name / "adapter" / "model.safetensors") for name in tasks]
    shared = [name for name in bodies[0] if name in bodies[1] and name.startswith("bert.encoder")]
    assert shared
    assert all(torch.equal(bodies[0][name], bodies[1][name]) for name in shared)


def test_steps_are_drawn_in_proportion_to_the_data_or_to_the_shares_asked_for(
    tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightft import training

    taken: list[str] = []
    step = training._optimiser_step

    def counted(step_: Any, part: Any, *rest: Any) -> Any:
        taken.append(part.course.name)
        return step(step_, part, *rest)

    monkeypatch.setattr(training, "_optimiser_step", counted)
    uneven = {**tasks, "ner": data_of("token-classification", tagged_texts(30), TYPES, size=8)}
    loader = ModelLoader(str(tiny_bert))
    MultiTaskTrainer(loader, output_dir=tmp_path / "a", adapter=AdapterSpec("lora", r=4), **QUICK).fit(uneven)
    assert (taken.count("sentiment"), taken.count("ner")) == (6, 2)
    assert taken != sorted(taken)
    assert taken != sorted(taken, reverse=True)
    taken.clear()
    shares = {"sentiment": 1, "ner": 3}
    MultiTaskTrainer(loader, output_dir=tmp_path / "b", adapter=AdapterSpec("lora", r=4), shares=shares, **QUICK).fit(
        uneven
    )
    assert (taken.count("sentiment"), taken.count("ner")) == (2, 6)


def test_the_best_epoch_is_judged_by_all_tasks(tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path) -> None:
    runs = MultiTaskTrainer(
        ModelLoader(str(tiny_bert)), adapter=AdapterSpec("lora", r=4), output_dir=tmp_path, **{**QUICK, "epochs": 2}
    ).fit(tasks)
    judged = [row for row in runs["ner"].history if "validation_ner_span_f1" in row]
    assert len(judged) == 2
    means = [(row["validation_ner_span_f1"] + row["validation_sentiment_accuracy"]) / 2 for row in judged]
    assert runs["ner"].training["best_epoch"] == means.index(max(means)) + 1


def test_finished_runs_are_returned_on_resume_and_protected_otherwise(
    tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path
) -> None:
    trainer = MultiTaskTrainer(
        ModelLoader(str(tiny_bert)), adapter=AdapterSpec("lora", r=4), output_dir=tmp_path, **QUICK
    )
    runs = trainer.fit(tasks)
    again = trainer.fit(tasks, resume=True)
    assert {name: run.predictions for name, run in again.items()} == {
        name: run.predictions for name, run in runs.items()
    }
    with pytest.raises(InvalidSettingError, match="already holds the runs sentiment, ner"):
        trainer.fit(tasks)


def test_what_cannot_be_shared_is_refused(tasks: dict[str, TaskData], tiny_bert: Path, tmp_path: Path) -> None:
    def trainer(**changes: Any) -> MultiTaskTrainer:
        return MultiTaskTrainer(ModelLoader(str(tiny_bert)), output_dir=tmp_path, **{**QUICK, **changes})

    with pytest.raises(AdapterError, match="share nothing that is trained"):
        trainer(adapter="head-only").fit(tasks)
    with pytest.raises(AdapterError, match="'eva' starts from the data of one task"):
        trainer(adapter="eva").fit(tasks)
    with pytest.raises(InvalidSettingError, match="1 task was given: ner. Give two or more"):
        trainer().fit({"ner": tasks["ner"]})
    with pytest.raises(InvalidSettingError, match="give every task a number above 0"):
        trainer(shares={"ner": 1}).fit(tasks)
    with pytest.raises(InvalidSettingError, match="shares names nerr; the tasks are sentiment, ner"):
        trainer(shares={"nerr": 1}).fit(tasks)
    with pytest.raises(InvalidSettingError, match="Leave validation_metric out"):
        trainer(adapter=AdapterSpec("lora", r=4), validation_metric="accuracy").fit(tasks)
    assert not any(tmp_path.iterdir())
