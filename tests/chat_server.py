"""A server of OpenAI's chat protocol on this machine, which answers, waits, refuses, babbles or dies as it is told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request, as it arrived."""

    number: int
    """How many came before it."""
    path: str
    key: str
    body: dict[str, Any]

    @property
    def question(self) -> str:
        """The last message."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Reply:
    """What the server does about a request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """How long it takes before the first byte."""
    seconds_per_byte: float = 0.0
    cut: bool = False
    """Close the connection in the middle of the body."""
    die: bool = False
    """Say nothing, and take no connection any more."""


def saying(text: str | None, *, finish_reason: str = "stop", logprobs: Any = None, **how: Any) -> Reply:
    """Return an answer as vLLM and others write it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
        "logprobs": logprobs,
    }
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}
    return Reply(json.dumps(body).encode(), **how)


def refusing(status: int, message: str = "no", *, wait: str = "0.01") -> Reply:
    """Return an error as vLLM and others write it, to be tried again after so many seconds."""
    body = {"error": {"message": message, "type": "some", "param": None, "code": None}}
    return Reply(json.dumps(body).encode(), status=status, headers={"Retry-After": wait})


class ChatServer:
    """Runs while it is used as a context; ``script`` tells what to do about each request."""

    def __init__(self, script: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._script = script
        self._at_once = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._http = _HTTP(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Take no connection any more."""
        self._http.shutdown()
        self._http.server_close()

    def reply(self, path: str, key: str, body: dict[str, Any]) -> Reply:
        """Count a request, and return what the script says about it, after the time it takes."""
        with self._lock:
            asked = Asked(len(self.asked), path, key, body)
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        reply = self._script(asked)
        self.wait(reply.seconds)
        return reply

    def finished(self) -> None:
        """Count the end of a request: it was answered, but for the last byte."""
        with self._lock:
            self._at_once -= 1

    def wait(self, seconds: float) -> bool:
        """Wait, but not beyond the end of the server; returns whether that came."""
        return self._ended.wait(seconds) if seconds else self._ended.is_set()


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the client closed."""


def _handler_of(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.reply(self.path, self.headers["Authorization"].removeprefix("Bearer "), body)
            if reply.die:
                server.finished()
                server.stop()
                self._hang_up()
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if reply.cut:
                self.wfile.write(reply.body[: len(reply.body) // 2])
                server.finished()
                self._hang_up()
            elif reply.seconds_per_byte:
                self._write_slowly(reply)
            else:
                # Counted before the client can have seen the end, and so sent another request.
                server.finished()
                self.wfile.write(reply.body)

        def _write_slowly(self, reply: Reply) -> None:
            for place in range(len(reply.body)):
                if server.wait(reply.seconds_per_byte):
                    break
                self.wfile.write(reply.body[place : place + 1])
            server.finished()

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
