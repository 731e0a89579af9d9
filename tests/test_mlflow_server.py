"""MLflow, through a real server with a real store: what arrives, what never does, and what a server that dies costs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from lightft import Example, LoRATrainer, ModelComparator, ModelLoader, Run, TaskData
from lightft.errors import TrackingError
from lightft.tasks import CausalLM
from lightft.tracking import Tracking, log_report, track_run
from lightft.tracking.values import numbers_of, parameters_of
from tests.tiny_models import LABELS, classified_texts, instructions

ROWS = classified_texts(24)
CLASSES = TaskData("text-classification", "made up", LABELS, train=ROWS[:12], validation=ROWS[12:18], test=ROWS[18:])
CANARY = "quetzalcoatl"
"""A word of the data that must not leave unless it is asked for."""


class Server:
    """An MLflow server with a SQLite store, which can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'store.db'}"]
        files = ["--artifacts-destination", str(self.folder / "artifacts")]
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *files, *place],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text(encoding="utf-8")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=1) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def files_that_hold(self, word: str) -> list[str]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.name for path in files if word.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("mlflow"))
    one.start()
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def _ask_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)


@pytest.fixture(scope="module")
def client(server: Server) -> MlflowClient:
    return MlflowClient(server.address)


def run_in(client: MlflowClient, project: str, name: str) -> MlflowRun:
    experiment = client.get_experiment_by_name(project)
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"run_name = '{name}'")
    return found


def trainer(tiny_bert: Path, folder: Path, **arguments: Any) -> LoRATrainer:
    settings: dict[str, Any] = {"epochs": 3, "learning_rate": 1e-2, "batch_size": 4, "progress": False}
    return LoRATrainer(ModelLoader(str(tiny_bert), labels=LABELS), output_dir=folder, **{**settings, **arguments})


def assert_arrived(client: MlflowClient, tracked: MlflowRun, run: Run, folder: Path) -> None:
    """Parameters, curves, results and files of the run are those on disk, each once."""
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params == {
        **{name: str(value) for name, value in parameters_of(run).items()},
        "tracking.texts": "False",
    }
    results = numbers_of(run)
    curves = {name for row in run.history for name in row} - {"step"}
    for name in curves:
        recorded = client.get_metric_history(tracked.info.run_id, name)
        kept = [(row["step"], row[name]) for row in run.history if name in row]
        assert sorted((point.step, point.value) for point in recorded) == sorted(kept), name
    assert {name: tracked.data.metrics[name] for name in results} == pytest.approx(results)
    assert set(tracked.data.metrics) == curves | set(results)
    folder.mkdir()
    downloaded = Path(mlflow.artifacts.download_artifacts(run_id=tracked.info.run_id, dst_path=str(folder)))
    arrived = {path.relative_to(downloaded).as_posix() for path in downloaded.rglob("*") if path.is_file()}
    assert run.path is not None
    adapter = {path.relative_to(run.path).as_posix() for path in (run.path / "adapter").rglob("*")}
    assert arrived == {"run.json", "predictions.jsonl", "report.html", "report.md", *adapter}
    for name in arrived - {"report.html", "report.md"}:
        assert (downloaded / name).read_bytes() == (run.path / name).read_bytes(), name


def test_everything_of_a_run_arrives(client: MlflowClient, tiny_bert: Path, tmp_path: Path) -> None:
    asked = Tracking("mlflow", project="films", options={"mlflow": {"tags": {"team": "search"}}})
    one = trainer(tiny_bert, tmp_path / "lora", track=asked)
    run = one.fit(CLASSES)
    tracked = run_in(client, "films", "lora")
    assert tracked.data.tags["team"] == "search"
    assert_arrived(client, tracked, run, tmp_path / "downloaded")
    for metric, score in run.scores.items():
        found = [tracked.data.metrics[name] for name in (metric, f"{metric}_low", f"{metric}_high")]
        assert found == pytest.approx([score["value"], score["low"], score["high"]])
    # The finished run is neither trained nor sent again.
    assert one.fit(CLASSES, resume=True).to_json() == run.to_json()
    assert run_in(client, "films", "lora").info.end_time == tracked.info.end_time


def test_a_run_of_old_is_sent_beside_one_that_is_open(client: MlflowClient, tiny_bert: Path, tmp_path: Path) -> None:
    run = trainer(tiny_bert, tmp_path / "old", epochs=1).fit(CLASSES)
    mlflow.set_experiment("open")
    with mlflow.start_run() as mine:
        track_run(tmp_path / "old", Tracking("mlflow", project="archive"))
        mlflow.log_metric("of mine", 1.0)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert client.get_run(mine.info.run_id).data.metrics == {"of mine": 1.0}
    assert_arrived(client, run_in(client, "archive", "old"), run, tmp_path / "downloaded")


def test_no_text_leaves_unless_it_is_asked_for(
    server: Server, client: MlflowClient, tiny_bert: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    films = tuple(Example(row.id, f"{row.text} {CANARY}", row.target) for row in ROWS)
    data = TaskData("text-classification", "made up", LABELS, train=films[:12], validation=(), test=films[12:])
    trainer(tiny_bert, tmp_path / "films", epochs=1, track="mlflow").fit(data)
    chats = tuple(Example(row.id, f"{row.text} {CANARY}", f"{row.target} {CANARY}") for row in instructions())
    writer = LoRATrainer(
        ModelLoader(str(tiny_llama), task="causal-lm"),
        head=CausalLM(max_new_tokens=2),
        output_dir=tmp_path / "chats",
        track="mlflow",
        epochs=1,
        progress=False,
    )
    run = writer.fit(TaskData("causal-lm", "made up", (), train=chats[:8], validation=(), test=chats[8:]))
    (tmp_path / "chats" / "adapter" / "extractor.json").write_text(json.dumps({"examples": [CANARY]}))
    track_run(run, Tracking("mlflow", project="prompts"))
    assert CANARY in (tmp_path / "chats" / "predictions.jsonl").read_text(encoding="utf-8")
    assert [file.path for file in client.list_artifacts(run_in(client, "lightft", "chats").info.run_id)] == [
        "adapter",
        "report.html",
        "report.md",
        "run.json",
    ]
    assert server.files_that_hold(CANARY) == []
    assert server.files_that_hold("train_loss") != []

    track_run(run, Tracking("mlflow", project="with texts", texts=True))
    assert sorted(server.files_that_hold(CANARY)) == ["extractor.json", "predictions.jsonl"]
    assert run_in(client, "with texts", "chats").data.params["tracking.texts"] == "True"


def test_a_comparison_is_a_run_of_its_own(client: MlflowClient, tiny_bert: Path, tmp_path: Path) -> None:
    runs = [trainer(tiny_bert, tmp_path / kind, epochs=1, adapter=kind).fit(CLASSES) for kind in ("lora", "ia3")]
    comparison = ModelComparator().compare(runs, examples=CLASSES.test)
    for name, texts in (("report", False), ("with examples", True)):
        log_report(comparison, Tracking("mlflow", project="films", texts=texts), name=name, folder=tmp_path)
        report = run_in(client, "films", name)
        assert (report.info.status, report.data.params["runs"]) == ("FINISHED", "lora, ia3")
        page = mlflow.artifacts.load_text(f"runs:/{report.info.run_id}/report.html")
        assert (CLASSES.test[0].text in page) == texts
        assert {file.path for file in client.list_artifacts(report.info.run_id)} == {
            f"report.{kind}" for kind in ("html", "md", "csv", "json")
        }


def test_a_training_that_fails_is_shown_as_failed(client: MlflowClient, tiny_bert: Path, tmp_path: Path) -> None:
    def fail(row: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer(tiny_bert, tmp_path / "broken", track="mlflow", callbacks=[fail]).fit(CLASSES)
    assert run_in(client, "lightft", "broken").info.status == "FAILED"
    assert not (tmp_path / "broken" / "tracking.json").exists()


def test_a_server_that_never_answers_costs_no_run(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.warns(
        UserWarning, match="MLflow: MlflowException: .*Not all of the run 'alone' was sent; it is safe in"
    ):
        run = trainer(tiny_bert, tmp_path / "alone", epochs=1, track="mlflow").fit(CLASSES)
    assert Run.load(tmp_path / "alone").to_json() == run.to_json()
    with pytest.raises(TrackingError, match=r"track_run\(.*alone.*\) goes on where this stopped"):
        track_run(run, "mlflow")


def test_a_server_that_dies_half_way_gets_the_rest_later(
    server: Server, client: MlflowClient, tiny_bert: Path, tmp_path: Path
) -> None:
    rows = []

    def kill(row: Any) -> None:
        rows.append(row)
        if len(rows) == 3:
            # Both rows before this one have arrived: no answer is under way.
            run_id = run_in(client, "lightft", "cut").info.run_id
            while not client.get_metric_history(run_id, "validation_accuracy"):
                time.sleep(0.05)
            server.stop()

    with pytest.warns(UserWarning, match="it is safe in"):
        run = trainer(tiny_bert, tmp_path / "cut", track="mlflow", callbacks=[kill]).fit(CLASSES)
    assert len(run.history) == len(rows) == 6
    (sent,) = json.loads((tmp_path / "cut" / "tracking.json").read_text(encoding="utf-8"))
    assert (sent["rows"], sent["complete"]) == (2, False)

    server.start()
    mlflow.set_experiment("of the caller")
    track_run(tmp_path / "cut", "mlflow")
    with mlflow.start_run(run_name="mine"):
        pass
    assert run_in(client, "of the caller", "mine")
    assert_arrived(client, run_in(client, "lightft", "cut"), run, tmp_path / "downloaded")
