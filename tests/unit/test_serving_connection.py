"""The service on real connections: what is refused at the door, and what stays open."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest
import uvicorn

from lightft.serving import ServeSettings, create_app
from lightft.serving.server import uvicorn_config
from tests.served_stubs import Held, models

KEY = "a-key-of-some-length"


@contextmanager
def running(answer: Any, settings: ServeSettings) -> Iterator[tuple[Any, int]]:
    """Yield the application and the port on which it listens."""
    app = create_app(models(tagger=answer), settings)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn_config(app, settings))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield app, listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


def connected(port: int) -> closing[HTTPConnection]:
    return closing(HTTPConnection("127.0.0.1", port, timeout=30))


def ask_alone(port: int, body: Any, **headers: str) -> None:
    with connected(port) as connection:
        ask(connection, body, **headers)


def ask(connection: HTTPConnection, body: Any, **headers: str) -> tuple[int, Any]:
    connection.request("POST", "/predict", json.dumps(body), {"Content-Type": "application/json", **headers})
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def wait_for(condition: Any) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


@pytest.fixture
def full() -> Iterator[tuple[Held, Any, int]]:
    """A service with one text in the works and one that waits, and room for no more."""
    held = Held()
    held.go.set()
    settings = ServeSettings(queue_texts=1, queue_ms=1e-6, latency_budget_ms=1e-6, api_key=KEY)
    with running(held, settings) as (app, port):
        held.go.clear()
        batcher = app.state.service.batcher_of("tagger")
        threads = []
        for number in (1, 2):
            threads.append(threading.Thread(target=ask_alone, args=(port, {"text": "a"}), kwargs={"X-API-Key": KEY}))
            threads[-1].start()
            wait_for(lambda number=number: batcher.computing + batcher.waiting == number)
        try:
            yield held, app, port
        finally:
            held.go.set()
            for thread in threads:
                thread.join(30)


def test_a_full_service_refuses_at_the_door_and_keeps_the_connection(full: tuple[Held, Any, int]) -> None:
    held, app, port = full
    with connected(port) as connection:
        for _ in range(3):
            connection.request(
                "POST", "/predict", b"{not even JSON", {"Content-Type": "application/json", "X-API-Key": KEY}
            )
            reply = connection.getresponse()
            [detail] = json.loads(reply.read())["detail"]
            assert (reply.status, detail["type"]) == (503, "queue_full")
            assert int(reply.headers["Retry-After"]) >= 1
        batcher = app.state.service.batcher_of("tagger")
        held.go.set()
        wait_for(lambda: batcher.computing + batcher.waiting == 0)
        assert ask(connection, {"text": "a"}, **{"X-API-Key": KEY}) == (200, {"model": "tagger", "entities": []})
        connection.request("GET", "/metrics", headers={"X-API-Key": KEY})
        assert b'lightft_refusals_total{reason="queue_full"} 3.0' in connection.getresponse().read()


def test_a_full_service_still_asks_for_the_key_and_lives(full: tuple[Held, Any, int]) -> None:
    _, _, port = full
    with connected(port) as connection:
        assert ask(connection, {"text": "a"})[0] == 401
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200


def test_a_refused_body_that_comes_late_or_closes_is_let_pass(full: tuple[Held, Any, int]) -> None:
    _, _, port = full
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nContent-Length: 6\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{head}\r\nabc".encode())
        assert b" 503 " in connection.recv(4096)
        connection.sendall(f"def{head}Connection: close\r\n\r\nabcdef".encode())
        received = b""
        while part := connection.recv(4096):
            received += part
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nConnection: close\r\n" in received


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a service listens that finds nothing."""
    with running(lambda text: [], ServeSettings()) as (_, listens):
        yield listens


def refusal_of(port: int, sent: bytes) -> tuple[int, str]:
    """Send bytes, and return the status and type of what is refused until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(4096):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["detail"][0]["type"]


def test_what_is_no_http_is_refused_in_the_one_shape(port: int) -> None:
    assert refusal_of(port, b"nonsense\r\n\r\n") == (400, "no_http")


HEAD = b"GET /health HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-Much: " + b"x" * 65_600 + b"\r\n\r\n",
        HEAD + b"X-Many: x\r\n" * 6_000 + b"\r\n",
        b"GET /health?" + b"x" * 65_600 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        HEAD + b"X-Much: " + b"x" * 65_600,
    ],
    ids=["one field", "many fields", "address", "without end"],
)
def test_a_large_head_is_refused(port: int, head: bytes) -> None:
    assert refusal_of(port, head) == (431, "head_too_large")


@pytest.mark.parametrize(
    ("first", "second"),
    [(HEAD + b"\r\n", HEAD), (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0\r\n")],
    ids=["the next head", "what follows a body"],
)
def test_nothing_else_that_is_no_body_may_be_large(port: int, first: bytes, second: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(first)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection.sendall(second + b"X-Much: " + b"x" * 65_600)
        received = b""
        while part := connection.recv(4096):
            received += part
    assert b"HTTP/1.1 431 " in received


def test_a_head_within_the_limit_and_a_body_in_small_pieces_are_read(port: int) -> None:
    with connected(port) as connection:
        headers = {f"X-Field-{number}": "x" * 6_000 for number in range(10)}
        assert ask(connection, {"text": "a"}, **headers)[0] == 200
        pieces = iter([b'{"text":"a"}', *[b" "] * 20_000])
        connection.request("POST", "/predict", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
        assert connection.getresponse().status == 200


def test_another_protocol_is_not_gone_over_to(port: int, caplog: pytest.LogCaptureFixture) -> None:
    wish = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    with connected(port) as connection:
        for _ in range(2):
            connection.request("GET", "/health", headers={"Connection": "Upgrade", "Upgrade": "h2c"})
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (200, b'{"status":"alive"}')
    sent = b"POST /predict HTTP/1.1\r\n" + wish + b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n"
    assert refusal_of(port, sent + b'{"text":"a"}') == (400, "upgrade")
    assert "uvicorn" not in caplog.text


def test_a_service_of_other_models_imports_no_torch() -> None:
    code = "import sys, lightft.serving, lightft.portable; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
