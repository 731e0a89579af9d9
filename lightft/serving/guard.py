"""The door of the service: what is refused before anything of a request is read or parsed."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping

import anyio
from starlette._utils import get_route_path
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightft.serving.problems import JSON, ClientGoneError, RefusedError
from lightft.serving.settings import ServeSettings

__all__ = ["Guard", "has_key"]

_CLOSE = {"Connection": "close"}
_MOST_DIGITS = 20


class Guard:
    """ASGI middleware: key, header fields, room in the queue, then the size and pace of the body, in this order.

    Args:
        app: what is guarded; it receives each body whole.
        settings: the limits.
        key: what is asked for; None asks for none.
        open_paths: what needs no key.
        endpoints: by path, what answers a POST with a body. It is called from here: FastAPI's way to its routes, through
            three middlewares, router and dependencies, would do nothing more for it.
        admitted_by: refuses a request to one of them when there is no room for it.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        key: bytes | None,
        open_paths: frozenset[str],
        endpoints: Mapping[str, Callable[[Request], Awaitable[Response]]],
        admitted_by: Callable[[str], None],
    ) -> None:
        self._app = app
        self._settings = settings
        self._key = key
        self._open_paths = open_paths
        self._endpoints = endpoints
        self._admit = admitted_by
        self._open_bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or raise a RefusedError."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # What the routes are chosen by: another application may have mounted this one under a path of its own.
        path = get_route_path(scope)
        headers = dict(scope["headers"])
        if path not in self._open_paths and not has_key(headers, self._key):
            raise RefusedError(
                401,
                "key",
                "This service asks for a key. Send it in the header Authorization: Bearer KEY, or X-API-Key: KEY",
                ("header", "authorization"),
                {"WWW-Authenticate": "Bearer"},
            )
        endpoint = self._endpoints.get(path) if scope["method"] == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        self._refuse_by_headers(headers)
        self._admit(path)
        receive = _whole(await self._body(receive), receive)
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def _refuse_by_headers(self, headers: Mapping[bytes, bytes]) -> None:
        kind, _, parameters = headers.get(b"content-type", b"").partition(b";")
        charset = parameters.lower().replace(b" ", b"").replace(b'"', b"").partition(b"charset=")[2]
        if kind.strip().lower() != JSON.encode() or charset not in (b"", b"utf-8") or b"content-encoding" in headers:
            raise RefusedError(
                415,
                "not_json",
                f"The body must be plain JSON in UTF-8: send the header Content-Type: {JSON}, and no Content-Encoding",
                ("header", "content-type"),
                _CLOSE,
            )
        length = headers.get(b"content-length", b"0")
        digits = length.lstrip(b"0") or b"0"
        # uvicorn refuses what is no number; other servers may not. Python reads no number of thousands of digits.
        if not length.isdigit() or len(digits) > _MOST_DIGITS or int(digits) > self._settings.max_body_bytes:
            raise self._too_large()

    async def _body(self, receive: Receive) -> bytes:
        if self._open_bodies >= self._settings.open_bodies:
            raise RefusedError(
                503,
                "too_many_open",
                "Too many requests are being sent. Send it again later",
                (),
                {"Retry-After": "1"} | _CLOSE,
            )
        self._open_bodies += 1
        try:
            # Unlike asyncio.wait_for, this needs no task of its own for each request.
            with anyio.fail_after(self._settings.body_seconds):
                return await self._read(receive)
        except TimeoutError:
            raise RefusedError(
                408,
                "too_slow",
                f"The body was not there within {self._settings.body_seconds:g} seconds. Send it in one go",
                ("body",),
                _CLOSE,
            ) from None
        finally:
            self._open_bodies -= 1

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > self._settings.max_body_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> RefusedError:
        return RefusedError(
            413,
            "body_too_large",
            f"The body is too large. Send at most {self._settings.max_body_bytes:,} bytes at once",
            ("body",),
            _CLOSE,
        )


def has_key(headers: Mapping[bytes, bytes], key: bytes | None) -> bool:
    """Whether a request may pass: there is no key, or it has it. The time this takes does not tell how near it came."""
    if key is None:
        return True
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    given = headers.get(b"x-api-key", bearer.strip() if scheme.lower() == b"bearer" else b"")
    return hmac.compare_digest(given, key)


def _whole(body: bytes, receive: Receive) -> Receive:
    """Return what gives ``body`` at once, and then what else the client does."""
    given = False

    async def receive_whole() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_whole
