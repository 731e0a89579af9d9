"""The service as a process: it starts, answers, finishes what it accepted, and says in a sentence why it will not start."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lightft import LoRATrainer, ModelLoader
from lightft.cli import main
from tests.tiny_models import TYPES, tagged_texts

KEY = "the-key-of-the-test"
LIGHTFT = [sys.executable, "-c", "import sys; from lightft.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def adapter(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    loader = ModelLoader(str(tiny_bert), task="token-classification", labels=TYPES, dtype="float32")
    trainer = LoRATrainer(loader, epochs=1, batch_size=8, progress=False)
    return trainer.save(trainer.train(tagged_texts()), tmp_path_factory.mktemp("runs") / "news" / "adapter")


class Service:
    """A running service, and what it wrote so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.port = 0
        started = threading.Event()

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                self.lines.append(line)
                if '"serving"' in line:
                    self.port = urlsplit(json.loads(line)["url"]).port or 0
                    started.set()
            started.set()

        self._reader = threading.Thread(target=read)
        self._reader.start()
        assert started.wait(280)
        assert self.port, "".join(self.lines)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"content-type": "application/json", "x-api-key": KEY, **headers}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        reply = connection.getresponse()
        content = json.loads(reply.read())
        connection.close()
        return reply.status, content

    def end(self) -> int:
        status = self.process.wait(60)
        self._reader.join(60)
        return status


@contextmanager
def service(*arguments: str) -> Iterator[Service]:
    command = [*LIGHTFT, "serve", *arguments, "--port", "0", "--threads", "1"]
    environment = {**os.environ, "LIGHTFT_API_KEY": KEY}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


def raw(port: int, sent: bytes) -> bytes:
    """Send bytes and return all that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_a_service_answers_and_finishes_what_it_accepted(adapter: Path, tiny_llama: Path) -> None:
    # Long enough to be in the works when the signal comes.
    long = " ".join(["anna met bert in rome"] * 4000)
    with service(str(adapter), f"writer={tiny_llama}") as running:
        assert running.ask("GET", "/ready") == (200, {"status": "ready"})
        assert running.ask("GET", "/models", **{"x-api-key": "wrong"})[0] == 401
        status, answer = running.ask("POST", "/predict", {"texts": ["anna met bert", "rome"]})
        assert (status, answer["model"], len(answer["results"])) == (200, "news", 2)
        assert raw(running.port, b"nonsense\r\n\r\n").endswith(b'"type":"no_http"}]}')

        # A client that sends half a body and goes away is nobody's loss.
        with socket.create_connection(("127.0.0.1", running.port)) as leaves:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
            leaves.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert running.ask("GET", "/health") == (200, {"status": "alive"})

        replies: list[tuple[int, Any]] = []
        asking = threading.Thread(target=lambda: replies.append(running.ask("POST", "/predict", {"text": long})))
        asking.start()
        _wait_until_computing(running)
        with _writing(running) as rest:
            running.process.send_signal(signal.SIGTERM)
            assert b'"done":true' in rest()
        asking.join(60)
        assert replies[0][0] == 200
        assert running.end() == 0
        with pytest.raises(ConnectionRefusedError):
            running.ask("GET", "/health")
    logged = "".join(running.lines)
    assert "Traceback" not in logged
    assert KEY not in logged
    assert "anna" not in logged


@contextmanager
def _writing(running: Service) -> Iterator[Callable[[], bytes]]:
    """Let the service write, and yield what gives all that comes after the first piece."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    body = json.dumps({"model": "writer", "prompt": "say", "max_new_tokens": 200, "stream": True})
    connection.request("POST", "/generate", body, {"content-type": "application/json", "x-api-key": KEY})
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.readline().startswith(b"data: ")
    yield reply.read
    connection.close()


def _wait_until_computing(running: Service) -> None:
    """Wait until the service has read one request more than it has answered."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    for _ in range(2000):
        connection.request("GET", "/metrics", headers={"x-api-key": KEY})
        if b"lightft_computing_texts 1.0" in connection.getresponse().read():
            connection.close()
            return
    raise AssertionError("the request was never computed")


def test_a_damaged_adapter_is_a_sentence_and_status_2(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy_with_half_of(adapter, tmp_path / "broken", "adapter_model.safetensors")
    assert main(["serve", str(folder)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"lightft: {folder}/adapter_model.safetensors is damaged")
    assert len(said.err.splitlines()) == 1


def test_a_model_that_opens_but_cannot_compute_is_a_sentence_and_status_2(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}", encoding="utf-8")
    command = [*LIGHTFT, "serve", str(folder), "--port", "0", "--threads", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("lightft: The model 'broken' cannot be asked anything")
    assert len(ended.stderr.splitlines()) == 1


def test_a_folder_without_a_model_is_a_sentence_and_status_2(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path / "nowhere", _copy_with_half_of(adapter, tmp_path / "broken", "lightft.json")):
        assert main(["serve", str(folder)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("lightft: ")
        assert len(said.err.splitlines()) == 1


def test_a_port_that_is_taken_is_a_sentence_and_status_2(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(adapter), "--port", port]) == 2
    said = capsys.readouterr().err
    assert f"port {port}" in said
    assert len(said.splitlines()) == 1


def _copy_with_half_of(adapter: Path, folder: Path, name: str) -> Path:
    shutil.copytree(adapter, folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    return folder
