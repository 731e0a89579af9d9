"""What goes on in a service: figures for Prometheus, and a line of JSON for each request, without its text."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightft.serving.micro_batch import Batch
from lightft.serving.problems import ClientGoneError, RefusedError, stopping

__all__ = ["Observation", "Observed"]

logger = logging.getLogger("lightft.serving")

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# A method may be any word; what a client makes up is not written down.
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_SECONDS_BETWEEN_LINES = 1.0
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Observation:
    """The figures of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._at_the_door: dict[str, int] = {}
        self._door_line: asyncio.TimerHandle | None = None
        self._requests = Counter("lightft_requests", "Requests answered", ("route", "status"), registry=self.registry)
        self._seconds = Histogram(
            "lightft_request_seconds",
            "From the first byte to the last",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refusals = Counter("lightft_refusals", "Requests refused, by reason", ("reason",), registry=self.registry)
        self._gone = Counter("lightft_clients_gone", "Clients that did not wait for the answer", registry=self.registry)
        self._texts = Counter("lightft_texts", "Texts answered", registry=self.registry)
        self._tokens = Counter("lightft_tokens_written", "Tokens written", registry=self.registry)
        self._batch_texts = Histogram(
            "lightft_batch_texts", "Texts computed together", buckets=_SIZES, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "lightft_batch_seconds", "Seconds a batch computed", buckets=_SECONDS, registry=self.registry
        )

    def watch_queue(self, waiting: Callable[[], int], computing: Callable[[], int]) -> None:
        """Show how many texts and conversations wait, and how many texts are being computed."""
        Gauge("lightft_queue_texts", "Texts and conversations that wait", registry=self.registry).set_function(waiting)
        Gauge("lightft_computing_texts", "Texts that are being computed", registry=self.registry).set_function(
            computing
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refusal(self, reason: str) -> None:
        """Count a request that was refused."""
        self._refusals.labels(reason).inc()

    def refused_at_the_door(self, route: str) -> None:
        """Count a request that was refused before anything was made of it: in passing, there may be very many."""
        self._at_the_door[route] = self._at_the_door.get(route, 0) + 1
        if self._door_line is None:
            loop = asyncio.get_running_loop()
            self._door_line = loop.call_later(_SECONDS_BETWEEN_LINES, self.settle_the_door)

    def settle_the_door(self) -> None:
        """Put what was refused at the door since the last time into the figures, and into one line of the log."""
        if self._door_line is not None:
            self._door_line.cancel()
            self._door_line = None
        if not self._at_the_door:
            return
        refused = sum(self._at_the_door.values())
        logger.info(json.dumps({"time": round(time.time(), 3), "status": 503, "refused": refused}))
        for route, count in self._at_the_door.items():
            self._requests.labels(route, "503").inc(count)
            self._refusals.labels("queue_full").inc(count)
        self._at_the_door.clear()

    def client_gone(self) -> None:
        """Count a client that did not wait for its answer."""
        self._gone.inc()

    def batch(self, batch: Batch) -> None:
        """Count a batch."""
        self._batch_texts.observe(batch.texts)
        self._batch_seconds.observe(batch.seconds)

    def answered(self, texts: int = 0, tokens: int = 0) -> None:
        """Count what was answered."""
        self._texts.inc(texts)
        self._tokens.inc(tokens)

    def page(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        self.settle_the_door()
        return generate_latest(self.registry)


class Observed:
    """ASGI middleware that gives each request an id, counts and logs it, and lets no exception reach the client.

    Args:
        app: what is observed.
        observation: where it is counted.
        routes: the paths there are; any other is counted as one, since a path may hold anything.
    """

    def __init__(self, app: ASGIApp, observation: Observation, routes: Callable[[], frozenset[str]]) -> None:
        self._app = app
        self._observation = observation
        self._routes = routes
        self._prefix = secrets.token_hex(4)
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        self._number += 1
        request_id = f"{self._prefix}-{self._number}"
        facts: dict[str, Any] = {}
        scope["lightft"] = facts
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except RefusedError as refusal:
            facts["reason"] = refusal.kind
            await refusal.response()(scope, receive, send_with_id)
        except ClientGoneError:
            self._observation.client_gone()
        except asyncio.CancelledError:
            # The service stops, and has waited for this as long as it was told to.
            facts["reason"] = stopping().kind
            if not status:
                await stopping().response()(scope, receive, send_with_id)
            raise
        except Exception as error:  # the last door: nothing of an exception may leave by it
            facts |= _without_message(error)
            if not status:
                await _UNFORESEEN.response()(scope, receive, send_with_id)
        finally:
            # A client that went away is sent nothing: 499, as nginx calls it.
            self._write_down(scope, request_id, status or 499, time.perf_counter() - started)

    def _write_down(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        facts: Mapping[str, Any] = scope["lightft"]
        path = get_route_path(scope)
        route = path if path in self._routes() else "unknown"
        if facts.get("reason") == "queue_full":
            self._observation.refused_at_the_door(route)
            return
        self._observation.request(route, status, seconds)
        if "reason" in facts:
            self._observation.refusal(facts["reason"])
        method = scope["method"] if scope["method"] in _METHODS else "other"
        line = {"id": request_id, "method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2)}
        level = logging.ERROR if status == 500 else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, json.dumps({"time": round(time.time(), 3), **line, **facts}, ensure_ascii=False))


_UNFORESEEN = RefusedError(
    500,
    "internal",
    "The service failed at this request. Its log says where, under the id in the header X-Request-Id",
    (),
)


def _without_message(error: Exception) -> dict[str, Any]:
    """Return the kind of an error and where it was raised; its message may hold a text."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return {"error": type(error).__name__, "at": [f"{frame.filename}:{frame.lineno}" for frame in frames]}
