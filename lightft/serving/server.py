"""The service as a process: it listens, and stops without dropping what it accepted."""

from __future__ import annotations

import contextlib
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
from lightft.serving.app import create_app
from lightft.serving.models import ServedModels
from lightft.serving.problems import JSON, RefusedError
from lightft.serving.service import Service
from lightft.serving.settings import ServeSettings

__all__ = ["serve"]

_BACKLOG = 2048
_SECONDS_FOR_HEADERS = 10
_SECONDS_BETWEEN_REQUESTS = 60


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
    """
    settings = settings or ServeSettings()
    app = create_app(models, settings)
    listening = _listen(host, port)
    config = uvicorn.Config(
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
    _log_to_stderr()
    _Server(config, app).run([listening])


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
    """A connection on which the header of a request must come within a time, and no HTTP at all is refused as JSON."""

    _too_slow: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("Any", transport))
        self._too_slow = self.loop.call_later(_SECONDS_FOR_HEADERS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._too_slow is None:
            self._too_slow = self.loop.call_later(_SECONDS_FOR_HEADERS, self.transport.close)

    def on_headers_complete(self) -> None:
        self._header_came()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        del msg
        body = RefusedError(400, "no_http", "This is no HTTP request that can be read", ()).body()
        head = f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[400] + head.encode() + body)
        self.transport.close()

    def _header_came(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None
