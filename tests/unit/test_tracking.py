"""Tracking: what of a run goes where, without a server; MLflow against a real one is in test_mlflow_server."""

from __future__ import annotations

import json
import sys
import time
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightft import LoRATrainer, ModelComparator, ModelLoader, Prediction, Run, TaskData, sweep
from lightft.errors import InvalidSettingError, MissingExtraError, TrackingError
from lightft.recipe.reading import recipe_of_text
from lightft.tracking import LiveTracking, Tracking, log_report, track_run
from lightft.tracking.trackers import tracked_run
from lightft.tracking.values import numbers_of, parameters_of
from tests.tiny_models import LABELS, classified_texts

ROWS = classified_texts(24)
DATA = TaskData("text-classification", "made up", LABELS, train=ROWS[:12], validation=ROWS[12:18], test=ROWS[18:])
HISTORY = (
    {"step": 1, "epoch": 1.0, "train_loss": 0.7},
    {"step": 1, "epoch": 1, "validation_accuracy": 0.5},
    {"step": 2, "epoch": 2.0, "train_loss": 0.6},
)


ANSWERS = (Prediction("0", "no", "no"), Prediction("1", "yes", "no"))
"""A run with predictions is sent with a report of it, which takes a while to draw."""


def saved_run(folder: Path, **fields: Any) -> Run:
    run = Run(
        **{
            "name": "a run",
            "task": "text-classification",
            "metrics": ("accuracy",),
            "labels": ("no", "yes"),
            "training": {"epochs": 2, "best_epoch": 1, "steps": 2},
            "data": {"rows": {"train": 2}, "encoding": {"truncated_texts": 1}},
            "cost": {"train_seconds": 1.5},
            "history": HISTORY,
            "scores": {"accuracy": {"value": 0.5, "low": 0.25, "high": 0.75}},
            "path": folder,
            **fields,
        }
    )
    run.save(folder)
    return run


def stop_after(live: LiveTracking, row: dict[str, Any]) -> None:
    live.row(row)
    raise ZeroDivisionError


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def texts_of(folder: Path) -> dict[str, str]:
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag.removesuffix("/text_summary"): events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }


# --- what is asked for


def test_trackers_are_asked_for_by_name() -> None:
    assert Tracking("mlflow").names == ("mlflow",)
    assert Tracking(["tensorboard", "mlflow", "tensorboard"]).names == ("tensorboard", "mlflow")
    with pytest.raises(InvalidSettingError, match="There is no tracker 'mlfow'. Did you mean 'mlflow'"):
        Tracking("mlfow")
    with pytest.raises(InvalidSettingError, match="no tracker 'tensorbord'"):
        Tracking("tensorboard", options={"tensorbord": {}})
    with pytest.raises(InvalidSettingError, match="needs a tracker"):
        Tracking([])
    with pytest.raises(InvalidSettingError, match="has no name"):
        Tracking("mlflow", project="")


@pytest.mark.parametrize("package", ["wandb", "trackio", "mlflow"])
def test_a_missing_package_is_one_sentence_before_training(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    extra = "track" if package == "mlflow" else package
    with pytest.raises(MissingExtraError) as refused:
        LoRATrainer(ModelLoader("anything"), track=["tensorboard", package])
    assert f"needs the package {package}. Install it with: pip install 'lightft[{extra}]'" in str(refused.value)


# --- what of a run goes where


def test_parameters_are_the_same_before_training_and_after(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    planned = replace(run, training={"epochs": 2}, data={"rows": {"train": 2}}, cost={}, history=(), scores={})
    assert parameters_of(planned) == parameters_of(run)
    assert parameters_of(run)["training.epochs"] == 2
    assert parameters_of(run)["data.rows.train"] == 2


def test_parameters_stay_within_the_limits_of_trackers(tmp_path: Path) -> None:
    labels = tuple(f"label {number}" for number in range(2000))
    weights = {"naïve label!": 1.0, "x" * 300: 2.0}
    parameters = parameters_of(saved_run(tmp_path, labels=labels, training={"head": {"class_weights": weights}}))
    assert len(str(parameters["labels"])) == 6000
    assert str(parameters["labels"]).endswith("characters in all, see run.json)")
    assert json.loads(str(parameters["training.head.class_weights"])) == weights
    assert max(map(len, parameters)) < 250


def test_results_are_scores_with_intervals_costs_and_counts(tmp_path: Path) -> None:
    assert numbers_of(saved_run(tmp_path)) == {
        "accuracy": 0.5,
        "accuracy_low": 0.25,
        "accuracy_high": 0.75,
        "train_seconds": 1.5,
        "best_epoch": 1,
        "steps": 2,
        "encoding.truncated_texts": 1,
    }


# --- TensorBoard


def test_tensorboard_shows_curves_scores_and_the_report(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", predictions=ANSWERS)
    track_run(run, "tensorboard")
    shown = scalars(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in shown["train_loss"]] == [1, 2]
    assert [value for _, value in shown["train_loss"]] == pytest.approx([0.7, 0.6])
    assert shown["validation_accuracy"] == [(1, 0.5)]
    assert {name: shown[name] for name in ("accuracy", "accuracy_low", "accuracy_high")} == {
        "accuracy": [(2, 0.5)],
        "accuracy_low": [(2, 0.25)],
        "accuracy_high": [(2, 0.75)],
    }
    texts = texts_of(tmp_path / "run" / "tensorboard")
    assert texts["folder"] == str(tmp_path / "run")
    assert "accuracy 0.500" in texts["report"]


def test_a_trainer_writes_tensorboard_files_while_it_trains(tiny_bert: Path, tmp_path: Path) -> None:
    trainer = LoRATrainer(
        ModelLoader(str(tiny_bert), labels=LABELS),
        output_dir=tmp_path / "lora",
        track=Tracking("tensorboard", options={"tensorboard": {"logging_dir": str(tmp_path / "logs")}}),
        epochs=2,
        learning_rate=1e-2,
        progress=False,
    )
    run = trainer.fit(DATA)
    shown = scalars(tmp_path / "logs" / "lora")
    for name in ("train_loss", "gradient_norm", "validation_accuracy", "validation_roc_auc"):
        rows = [(row["step"], pytest.approx(row[name])) for row in run.history if name in row]
        assert shown[name] == rows
    assert shown["macro_f1_low"] == [(run.history[-1]["step"], pytest.approx(run.scores["macro_f1"]["low"]))]
    # With a tracker and without one it is the same run.
    trainer.track = None
    assert trainer.fit(DATA, resume=True).to_json() == run.to_json()
    assert "track" not in (tmp_path / "lora" / "run.json").read_text(encoding="utf-8")


def test_a_finished_run_is_sent_once(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    track_run(run, "tensorboard")
    before = {path: path.stat().st_size for path in (tmp_path / "run" / "tensorboard").rglob("*")}
    track_run(tmp_path / "run", "tensorboard")
    assert {path: path.stat().st_size for path in (tmp_path / "run" / "tensorboard").rglob("*")} == before
    # Another place is another tracker.
    track_run(run, Tracking("tensorboard", options={"tensorboard": {"logging_dir": str(tmp_path / "logs")}}))
    assert scalars(tmp_path / "logs" / "a run")["accuracy"] == [(2, 0.5)]


def test_an_attempt_that_failed_leaves_nothing_in_the_curves_of_the_next(tmp_path: Path) -> None:
    run = saved_run(tmp_path)
    PartialState(cpu=True)
    with pytest.raises(ZeroDivisionError), LiveTracking(Tracking("tensorboard"), run, tmp_path) as live:
        stop_after(live, {"step": 1, "train_loss": 9.0})
    # Files of one second have no order.
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.05)
    with LiveTracking(Tracking("tensorboard"), run, tmp_path) as live:
        for row in run.history:
            live.row(row)
        live.finish(run)
    assert scalars(tmp_path / "tensorboard")["train_loss"] == [(1, pytest.approx(0.7)), (2, pytest.approx(0.6))]


def test_a_report_of_several_runs_is_sent(tmp_path: Path) -> None:
    runs = [saved_run(tmp_path / name, name=name, predictions=ANSWERS) for name in ("one", "two")]
    log_report(ModelComparator().compare(runs), "tensorboard", folder=tmp_path)
    assert "2 runs compared" in texts_of(tmp_path / "report" / "tensorboard")["report"]


# --- sweeps and recipes


def test_a_sweep_sends_each_run_once(tiny_bert: Path, tmp_path: Path) -> None:
    loader = ModelLoader(str(tiny_bert), labels=LABELS)
    asked = {"seeds": 1, "output_dir": tmp_path, "epochs": 1, "say": lambda line: None}
    (run,) = sweep(loader, ["lora"], DATA, **asked).runs
    assert not (run.path / "tracking.json").exists()
    for _ in range(2):
        sweep(loader, ["lora"], DATA, track="tensorboard", **asked)
        assert scalars(run.path / "tensorboard")["accuracy"] == [(1, pytest.approx(run.scores["accuracy"]["value"]))]


def test_a_sweep_leaves_a_tracker_alone_that_failed(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    away = Tracking("tensorboard", options={"tensorboard": {"logging_dir": str(tmp_path / "logs" / "inside")}})
    loader = ModelLoader(str(tiny_bert), labels=LABELS)
    with pytest.warns(UserWarning, match="it is safe in") as warned:
        result = sweep(
            loader, ["lora"], DATA, seeds=2, output_dir=tmp_path / "runs", track=away, epochs=1, say=lambda line: None
        )
    assert len(result.runs) == 2
    assert len(warned) == 1


def test_a_recipe_names_its_trackers() -> None:
    written = "model: a\ndata: b\nadapters: [lora]\ntrack: [mlflow, tensorboard]\n"
    recipe = recipe_of_text(written)
    assert recipe.track == ("mlflow", "tensorboard")
    assert recipe_of_text(recipe.to_yaml()) == recipe
    with pytest.raises(InvalidSettingError, match="There is no tracker 'mlfow'. Did you mean 'mlflow'"):
        recipe_of_text(written.replace("mlflow", "mlfow"))


# --- what goes wrong


def test_a_run_in_memory_or_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="only in memory"):
        track_run(replace(saved_run(tmp_path), path=None), "tensorboard")


def test_options_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="options of 'mlflow' do not fit.*'colour'"):
        track_run(saved_run(tmp_path), Tracking("mlflow", options={"mlflow": {"colour": "red"}}))


def test_a_tracker_that_fails_does_not_keep_the_run_from_the_others(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a folder should be")
    asked = Tracking(
        ["tensorboard", "wandb"], options={"tensorboard": {"logging_dir": str(tmp_path / "logs" / "inside")}}
    )
    wandb = FakeWandb()
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "wandb", wandb)
        with pytest.raises(TrackingError, match="TensorBoard: NotADirectoryError.*it is safe in"):
            track_run(saved_run(tmp_path / "run"), asked)
    assert wandb.finished == [0]
    sent = json.loads((tmp_path / "run" / "tracking.json").read_text(encoding="utf-8"))
    assert {row["tracker"]: row["complete"] for row in sent} == {"tensorboard": False, "wandb": True}


def test_the_choice_of_a_device_is_left_to_the_next_training(tmp_path: Path) -> None:
    PartialState._reset_state()
    track_run(saved_run(tmp_path), "tensorboard")
    assert PartialState._shared_state == {}


# --- Weights & Biases and Trackio: their packages are played, Accelerate's trackers are real


class FakeArtifact:
    def __init__(self, name: str, type: str) -> None:
        self.name, self.type = name, type
        self.files: dict[str, bytes] = {}

    def add_file(self, path: str, name: str) -> None:
        self.files[name] = Path(path).read_bytes()


class FakeConfig(dict[str, Any]):
    def update(self, values: Mapping[str, Any], allow_val_change: bool) -> None:  # type: ignore[override]
        assert allow_val_change
        super().update(values)


class FakeWandb(types.ModuleType):
    """What Accelerate and lightft use of the package wandb."""

    Artifact = FakeArtifact

    def __init__(self) -> None:
        super().__init__("wandb")
        self.config = FakeConfig()
        self.started: list[dict[str, Any]] = []
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.artifacts: list[FakeArtifact] = []
        self.finished: list[int] = []
        self.id = "the id"
        self.name = ""

    def init(self, project: str, name: str, **options: Any) -> FakeWandb:
        self.started.append({"project": project, "name": name, **options})
        self.name = name
        return self

    def log(self, values: dict[str, Any], step: int | None) -> None:
        self.rows.append((step, values))

    def log_artifact(self, artifact: FakeArtifact) -> None:
        self.artifacts.append(artifact)

    def finish(self, exit_code: int = 0) -> None:
        self.finished.append(exit_code)


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_what_weights_and_biases_and_trackio_are_given(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, package, fake)
    run = saved_run(tmp_path, predictions=ANSWERS)
    track_run(run, Tracking(package, project="films", options={package: {"group": "first"}}))
    assert fake.started == [{"project": "films", "name": "a run", "group": "first"}]
    assert fake.config["training.epochs"] == 2
    assert fake.rows[:3] == [
        (row["step"], {name: value for name, value in row.items() if name != "step"}) for row in HISTORY
    ]
    assert fake.rows[3] == (2, numbers_of(run))
    (artifact,) = fake.artifacts
    assert artifact.name == "a-run"
    assert set(artifact.files) == {"run.json", "predictions.jsonl", "report.html", "report.md"}
    assert artifact.files["run.json"] == (tmp_path / "run.json").read_bytes()
    assert fake.finished == [0]


@pytest.mark.parametrize(
    ("package", "known"),
    [("wandb", {"id": "7", "resume": "allow", "name": "a run"}), ("trackio", {"name": "7", "resume": "must"})],
)
def test_a_run_that_was_cut_off_goes_on_under_its_id(
    package: str, known: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, package, fake)
    run = saved_run(tmp_path)
    sent = {"tracker": package, "project": "lightft", "address": "", "run_id": "7", "parameters": True, "rows": 2}
    (tmp_path / "tracking.json").write_text(json.dumps([{**sent, "complete": False}]))
    track_run(run, package)
    assert fake.started == [{"project": "lightft", **known}]
    assert fake.config == {}
    assert fake.rows == [(2, {"epoch": 2.0, "train_loss": 0.6}), (2, numbers_of(run))]


def test_weights_and_biases_is_told_of_a_training_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    PartialState(cpu=True)
    with pytest.raises(ZeroDivisionError), LiveTracking(Tracking("wandb"), saved_run(tmp_path), tmp_path):
        raise ZeroDivisionError
    assert fake.finished == [1]


def test_each_tracker_has_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, package, FakeWandb())
    for name in ("mlflow", "tensorboard", "trackio", "wandb"):
        assert tracked_run(name, Tracking(name), "a run", tmp_path).tracker == name
