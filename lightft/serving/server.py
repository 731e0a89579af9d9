"""The service as a process: it listens, and stops without dropping what it accepted."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import signal
import socket
import sys
from asyncio import BaseTransport, TimerHandle
from collections.abc import Iterator
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lightft.errors import InvalidSettingError
from lightft.garbage import what_stays_set_aside
from lightft.portable.heap import keep_freed_memory, share_one_heap
from lightft.serving.app import create_app
from lightft.serving.guard import has_key
from lightft.serving.models import ServedModels
from lightft.serving.problems import JSON, RefusedError, queue_full
from lightft.serving.service import GENERATE, PREDICT, Service
from lightft.serving.settings import ServeSettings

__all__ = ["serve", "uvicorn_config"]

_BACKLOG = 2048
# Models give way to other threads at each of their hundreds of operations. While the other thread has much to do, each time
# costs as long as Python lets a thread go on: by default 5 ms.
_SECONDS_BETWEEN_THREADS = 0.0005
_LARGEST_BLOCK_KEPT = 16 * 2**20
_MOST_KEPT = 32 * 2**20
_SECONDS_FOR_HEADERS = 10
_SECONDS_BETWEEN_REQUESTS = 60
_MOST_HEAD_BYTES = 65_536
_CLOSE = {"Connection": "close"}


def serve(
    models: ServedModels, settings: ServeSettings | None = None, *, host: str = "127.0.0.1", port: int = 8000
) -> None:
    """Serve ``models`` until the process is told to stop (SIGTERM, SIGINT); accepted work is then finished.

    Args:
        models: what to serve.
        settings: the limits.
        host: the address to listen on; other machines reach the service only at another one than 127.0.0.1.
        port: 0 takes any that is free.

    Raises:
        InvalidSettingError: the address cannot be listened on.
        ModelLoadError: a model cannot compute.
    """
    settings = settings or ServeSettings()
    with what_stays_set_aside():
        app = create_app(models, settings)
        with _listen(host, port) as listening:
            _log_to_stderr()
            sys.setswitchinterval(_SECONDS_BETWEEN_THREADS)
            _keep_memory_for_passes(models)
            _Server(uvicorn_config(app, settings), app).run([listening])


def uvicorn_config(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """Return how uvicorn is to run ``app``, which ``create_app`` made."""
    return uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_SECONDS_BETWEEN_REQUESTS,
        timeout_graceful_shutdown=max(1, round(settings.stop_seconds)),
    )


def _keep_memory_for_passes(models: ServedModels) -> None:
    """Let each pass have the memory of the one before; an ONNX model says by itself how much that is."""
    share_one_heap()
    if any(facts.runtime == "torch" for facts in models.values()):
        keep_freed_memory(_LARGEST_BLOCK_KEPT, _MOST_KEPT)


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as cause:
        listening.close()
        raise InvalidSettingError(
            f"The service cannot listen on {host}, port {port}: {cause}. Choose others with --host and --port."
        ) from cause
    return listening


def _log_to_stderr() -> None:
    """Write the service's own lines as they are, and uvicorn's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("lightft.serving", logging.INFO), ("uvicorn.error", logging.WARNING)):
        named = logging.getLogger(name)
        named.handlers = [handler]
        named.setLevel(level)
        named.propagate = False


class _Server(uvicorn.Server):
    """A server that says where it listens, and ends with status 0 when it was told to."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._service: Service = app.state.service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Before the application's own start, whose failure uvicorn would write down with all its frames.
        await self._service.start()
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        logging.getLogger("lightft.serving").info(
            json.dumps(
                {"serving": list(self._service.models), "url": url, "demo": f"{url}/demo", "docs": f"{url}/docs"}
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals; unlike uvicorn, do not send them to the process again afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Connection(HttpToolsProtocol):
    """A connection on which the head of a request must be small and come within a time, and refusals are JSON."""

    _too_slow: TimerHandle | None = None
    _refused = False
    # Received since the last head or piece of a body ended: of a head, of trailers, or of nothing that HTTP knows.
    _unfinished_bytes = 0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Any", transport))
        self._service: Service = cast("Any", self.config.app).state.service
        self._too_slow = self.loop.call_later(_SECONDS_FOR_HEADERS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self._unfinished_bytes > _MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_and_close(_head_too_large())

    def on_message_begin(self) -> None:
        self._refused = False
        super().on_message_begin()
        if self._too_slow is None:
            self._too_slow = self.loop.call_later(_SECONDS_FOR_HEADERS, self.transport.close)

    def on_headers_complete(self) -> None:
        self._header_came()
        self._unfinished_bytes = 0
        refusal = self._refusal_of_head()
        if self.transport.is_closing():
            self._refused = True
        elif refusal is not None:
            self._refuse_and_close(refusal)
        elif not self._refuse_at_the_door():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished_bytes = 0
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        del msg
        self._refuse_and_close(RefusedError(400, "no_http", "This is no HTTP request that can be read", (), _CLOSE))

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a server may answer in HTTP/1.1 whoever would rather go on in another protocol."""

    def _refuse_and_close(self, refusal: RefusedError) -> None:
        self._refused = True
        self._service.observation.refusal(refusal.kind)
        if not self._is_answering():
            self.transport.write(_as_bytes(refusal))
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refusal_of_head(self) -> RefusedError | None:
        # A colon, a space and the end of the line go with each field.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > _MOST_HEAD_BYTES:
            return _head_too_large()
        if self.parser.should_upgrade() and self.parser.get_method() == b"POST":
            # The parser takes what follows for the other protocol, so that the body would be lost.
            message = "This service speaks HTTP/1.1 alone. Send the request without the header Upgrade"
            return RefusedError(400, "upgrade", message, ("header", "upgrade"), _CLOSE)
        return None

    def _refuse_at_the_door(self) -> bool:
        """Answer 503 when there is no room, and return whether that was so.

        The guard would refuse it too. But at twenty times of what a core can compute, making a request out of each refusal
        takes the time in which the others should be answered.
        """
        if self._is_answering():
            return False
        path = self.url.decode("latin-1")
        if self.parser.get_method() != b"POST" or path not in (PREDICT, GENERATE):
            return False
        seconds = self._service.retry_after(path)
        if seconds is None or not has_key(dict(self.headers), self._service.key):
            return False
        self._refused = True
        keep = self.parser.should_keep_alive()
        self.transport.write(_full(seconds, keep))
        self._service.observation.refused_at_the_door(path)
        if not keep:
            self.transport.close()
        self.on_response_complete()
        return True

    def _header_came(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None


@functools.lru_cache(maxsize=64)
def _full(seconds: int, keep_alive: bool) -> bytes:
    refusal = queue_full(seconds)
    refusal.headers |= {} if keep_alive else _CLOSE
    return _as_bytes(refusal)


def _head_too_large() -> RefusedError:
    message = f"The head of the request is too large. Send at most {_MOST_HEAD_BYTES:,} bytes before its body"
    return RefusedError(431, "head_too_large", message, ("header",), _CLOSE)


def _as_bytes(refusal: RefusedError) -> bytes:
    """Return the whole HTTP answer."""
    body = refusal.body()
    headers = {"Content-Type": JSON, "Content-Length": str(len(body)), **refusal.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[refusal.status] + lines.encode() + b"\r\n" + body
