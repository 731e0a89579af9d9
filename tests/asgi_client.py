"""A client that calls an ASGI application in this process, byte by byte where a test wants it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JSON_HEADERS = {"content-type": "application/json"}


@dataclass
class Reply:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: list[bytes] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)


def call(app: Any, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Send one request; a body that is no bytes is sent as JSON."""
    return asyncio.run(send(app, method, path, body, headers))


async def send(
    app: Any,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    chunks: Sequence[bytes] | None = None,
    pause: float = 0.0,
    leave: asyncio.Event | None = None,
) -> Reply:
    """Send one request within a running event loop.

    Args:
        app: the application.
        method: of HTTP.
        path: what is asked for.
        body: bytes, or what is to become JSON.
        headers: beside the content type of JSON, which they may replace; a value of "" leaves one out.
        chunks: the body in parts, instead of ``body``.
        pause: seconds before each chunk.
        leave: when it is set, the client goes away.
    """
    sent = {**JSON_HEADERS, **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items() if value],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    whole = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    parts = list(chunks) if chunks is not None else [whole]
    reply = Reply()
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if parts:
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        waits = [asyncio.ensure_future(event.wait()) for event in (answered, leave) if event is not None]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return {"type": "http.disconnect"}

    async def take(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            reply.pieces.append(message.get("body", b""))
            reply.body += message.get("body", b"")
            if not message.get("more_body", False):
                answered.set()

    await app(scope, receive, take)
    return reply
