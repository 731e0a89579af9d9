"""Micro-batching: texts of many requests are computed together, with neighbours of like length.

A worker that is idle starts at once, so that a lone request never waits for company. While it computes, texts gather, and
the next batch takes the oldest of them and those most like it in length, as many as compute within the latency budget.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from lightft.records import Answer
from lightft.serving.problems import RefusedError, queue_full
from lightft.serving.settings import ServeSettings

__all__ = ["Batch", "MicroBatcher"]

# A text costs its characters and what stands around it; a call costs as much as this many characters beyond its texts.
_COST_OF_TEXT = 32
_COST_OF_CALL = 400
_CALLS_WORTH = 4
# How much of the measured pace is that of the last batch.
_NEWEST = 0.2
_MOST_ROWS = 128


@dataclass(frozen=True)
class Batch:
    """What became of a batch: its number of texts, and the seconds it took."""

    texts: int
    seconds: float


@dataclass(eq=False)
class _Request:
    model: str
    future: asyncio.Future[list[Answer]]
    answers: list[Any]
    missing: int


@dataclass(eq=False)
class _Row:
    request: _Request
    place: int
    text: str
    cost: int = field(init=False)

    def __post_init__(self) -> None:
        self.cost = len(self.text) + _COST_OF_TEXT


class MicroBatcher:
    """Gathers texts for one worker, which has one base model. It lives in one event loop and needs no locks.

    Args:
        compute: gives the answers of ``(model names, texts)``, one per text, in order.
        worker: runs ``compute`` outside the event loop, one call at a time.
        settings: of the service.
        watch: is told of each batch.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[str], Sequence[str]], list[Answer]],
        worker: Executor,
        settings: ServeSettings,
        watch: Callable[[Batch], None] = lambda batch: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._compute = compute
        self._worker = worker
        self._settings = settings
        self._watch = watch
        self._clock = clock
        self._rows: list[_Row] = []
        self._waiting_cost = 0
        self._seconds_per_cost = 0.0
        self._batch_ends = 0.0
        self._in_batch = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def computing(self) -> int:
        """How many texts are being computed."""
        return self._in_batch

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        return len(self._rows)

    def seconds_to_wait(self) -> float:
        """Estimate how long a request that came now would wait until its computation begins."""
        ahead = self._waiting_cost * self._seconds_per_cost
        return ahead + max(0.0, self._batch_ends - self._clock())

    def retry_after(self) -> int | None:
        """Return the seconds after which to come back, where a request would have to wait too long now; else None."""
        wait = self.seconds_to_wait()
        full = len(self._rows) >= self._settings.queue_texts and wait > self._settings.queue_ms / 1000
        return max(1, math.ceil(wait)) if full or wait > self._settings.deadline_seconds else None

    def answer(self, model: str, texts: Sequence[str]) -> asyncio.Future[list[Answer]]:
        """Return what will hold one answer per text, in order, or a refusal (504) when they come too late.

        Cancelling it takes back what is not computed yet.

        Raises:
            RefusedError: 503 when too many wait.
        """
        seconds = self.retry_after()
        if seconds is not None:
            raise queue_full(seconds)
        loop = asyncio.get_running_loop()
        request = _Request(model, loop.create_future(), [None] * len(texts), len(texts))
        rows = [_Row(request, place, text) for place, text in enumerate(texts)]
        self._rows += rows
        self._waiting_cost += sum(row.cost for row in rows)
        if self._running is None:
            self._running = loop.create_task(self._work())
        deadline = loop.call_later(self._settings.deadline_seconds, self._expire, request)
        request.future.add_done_callback(lambda _: self._settle(request, deadline))
        return request.future

    async def warm_up(self, model: str, texts: Sequence[str]) -> list[Answer]:
        """Answer ``texts`` before there are requests, for as long as that takes, and learn the pace."""
        request = _Request(model, asyncio.get_running_loop().create_future(), [None] * len(texts), len(texts))
        await self._compute_batch([_Row(request, place, text) for place, text in enumerate(texts)])
        return await request.future

    def _expire(self, request: _Request) -> None:
        if not request.future.done():
            request.future.set_exception(_too_late(self._settings.deadline_seconds))

    def _settle(self, request: _Request, deadline: asyncio.TimerHandle) -> None:
        """Forget the deadline, and what still waits of a request that failed or was cancelled."""
        deadline.cancel()
        if not request.missing:
            return
        kept = [row for row in self._rows if row.request is not request]
        self._waiting_cost -= sum(row.cost for row in self._rows if row.request is request)
        self._rows = kept

    async def _work(self) -> None:
        """Compute batches until nothing waits."""
        try:
            while self._rows:
                await self._compute_batch(self._next_batch())
        finally:
            self._running = None

    def _next_batch(self) -> list[_Row]:
        """Take the oldest text out of the queue, and those nearest to it in length that fit into the budget with it."""
        oldest = self._rows[0]
        most = self._most_cost(oldest)
        nearest_first = sorted(self._rows, key=lambda row: abs(row.cost - oldest.cost))
        batch: list[_Row] = []
        longest = 0
        for row in nearest_first[:_MOST_ROWS]:
            longest = max(longest, row.cost)
            if batch and _cost(len(batch) + 1, longest) > most:
                break
            batch.append(row)
        taken = set(map(id, batch))
        self._rows = [row for row in self._rows if id(row) not in taken]
        self._waiting_cost -= sum(row.cost for row in batch)
        return batch

    def _most_cost(self, oldest: _Row) -> float:
        """Return what a batch with ``oldest`` may cost: what fits into the budget.

        Where a call alone takes all of it, short texts would be computed one by one, and the queue would be longest where
        the machine is slowest. So texts that together cost no more than a few calls may go along in any case.
        """
        if not self._seconds_per_cost:
            return math.inf
        within_budget = self._settings.latency_budget_ms / 1000 / self._seconds_per_cost
        return max(within_budget, _cost(1, oldest.cost) + _CALLS_WORTH * _COST_OF_CALL)

    async def _compute_batch(self, batch: Sequence[_Row]) -> None:
        loop = asyncio.get_running_loop()
        cost = _cost(len(batch), max(row.cost for row in batch))
        started = self._clock()
        self._in_batch = len(batch)
        self._batch_ends = started + cost * self._seconds_per_cost
        models, texts = [row.request.model for row in batch], [row.text for row in batch]
        try:
            answers = await loop.run_in_executor(self._worker, self._compute, models, texts)
        except Exception as error:  # whatever a model may raise must not end the service, nor harm the other requests
            await self._after_error(batch, error)
            return
        finally:
            self._in_batch = 0
            self._batch_ends = 0.0
        seconds = self._clock() - started
        self._learn_pace(seconds / cost)
        self._watch(Batch(len(batch), seconds))
        for row, answer in zip(batch, answers, strict=True):
            self._deliver(row, answer)

    async def _after_error(self, batch: Sequence[_Row], error: Exception) -> None:
        """Find the request that a batch failed for: each of its requests is computed alone."""
        requests = list({id(row.request): row.request for row in batch}.values())
        if len(requests) == 1:
            if not requests[0].future.done():
                requests[0].future.set_exception(error)
            return
        for request in requests:
            if not request.future.done():
                await self._compute_batch([row for row in batch if row.request is request])

    @staticmethod
    def _deliver(row: _Row, answer: Answer) -> None:
        request = row.request
        request.answers[row.place] = answer
        request.missing -= 1
        if not request.missing and not request.future.done():
            request.future.set_result(request.answers)

    def _learn_pace(self, measured: float) -> None:
        known = self._seconds_per_cost or measured
        self._seconds_per_cost = known + _NEWEST * (measured - known)


def _cost(rows: int, longest: int) -> int:
    """What a batch costs, in characters: its texts are padded to the longest."""
    return _COST_OF_CALL + rows * longest


def _too_late(seconds: float) -> RefusedError:
    return RefusedError(
        504, "too_late", f"There was no answer within {seconds:g} seconds. Send fewer or shorter texts", ()
    )
