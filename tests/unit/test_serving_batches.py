"""Batches across requests: order, company, deadlines, and what one request can do to another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lightft.serving.micro_batch import Batch, MicroBatcher
from lightft.serving.problems import RefusedError
from lightft.serving.settings import ServeSettings


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Upper:
    """Answers with the text in capitals; waits for ``go``, and fails on what holds ``poison``."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.models: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, models: Sequence[str], texts: Sequence[str]) -> list[Any]:
        self.batches.append(list(texts))
        self.models.append(list(models))
        self.go.wait(10)
        if any("poison" in text for text in texts):
            raise ZeroDivisionError("poison")
        return [text.upper() for text in texts]


def batches_of(
    worker: ThreadPoolExecutor, run: Callable[[MicroBatcher, Upper], Awaitable[None]], **settings: Any
) -> tuple[Upper, list[Batch]]:
    model, seen = Upper(), []

    async def go() -> None:
        # Time stands still, so that the pace is what a test says it is.
        await run(MicroBatcher(model, worker, ServeSettings(**settings), seen.append, clock=lambda: 0.0), model)

    asyncio.run(go())
    return model, seen


def start(batcher: MicroBatcher, *texts: str, model: str = "m") -> asyncio.Future[list[Any]]:
    return batcher.answer(model, texts)


async def fill_behind(
    batcher: MicroBatcher, model: Upper, *requests: tuple[str, ...]
) -> list[asyncio.Future[list[Any]]]:
    """Let ``requests`` wait behind one that is being computed."""
    model.go.clear()
    start(batcher, "the one in front")
    await asyncio.sleep(0.02)
    tasks = [start(batcher, *texts) for texts in requests]
    await asyncio.sleep(0)
    return tasks


def test_a_lone_request_starts_at_once(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        assert await batcher.answer("m", ["one", "two"]) == ["ONE", "TWO"]

    model, seen = batches_of(worker, run)
    assert model.batches == [["one", "two"]]
    assert [batch.texts for batch in seen] == [2]


def test_requests_that_wait_are_computed_together_and_each_gets_its_own(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        tasks = await fill_behind(batcher, model, ("a", "bb"), ("ccc",), ("dd", "e", "f"))
        model.go.set()
        assert await asyncio.gather(*tasks) == [["A", "BB"], ["CCC"], ["DD", "E", "F"]]

    model, _ = batches_of(worker, run)
    assert len(model.batches) == 2
    assert sorted(model.batches[1]) == ["a", "bb", "ccc", "dd", "e", "f"]


def test_a_batch_takes_the_oldest_and_its_neighbours_in_length(worker: ThreadPoolExecutor) -> None:
    long, short = "x" * 4000, "y" * 40

    async def run(batcher: MicroBatcher, model: Upper) -> None:
        await batcher.answer("m", ["measure the pace"])
        # What the budget allows: two long texts, or all short ones.
        batcher._seconds_per_cost = 0.025 / 9000
        tasks = await fill_behind(batcher, model, (short,), (long,), (short,), (long,), (short,))
        model.go.set()
        await asyncio.gather(*tasks)

    model, _ = batches_of(worker, run, latency_budget_ms=25)
    assert [[len(text) for text in batch] for batch in model.batches[2:]] == [[40, 40, 40], [4000, 4000]]


def test_long_texts_that_are_beyond_the_budget_go_alone(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        await batcher.answer("m", ["measure the pace"])
        batcher._seconds_per_cost = 1.0
        tasks = await fill_behind(batcher, model, ("a" * 2000,), ("b" * 2000,))
        model.go.set()
        await asyncio.gather(*tasks)

    model, _ = batches_of(worker, run, deadline_seconds=1e9)
    assert [len(batch) for batch in model.batches[2:]] == [1, 1]


def test_short_texts_go_together_even_where_one_alone_is_beyond_the_budget(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        await batcher.answer("m", ["measure the pace"])
        batcher._seconds_per_cost = 1.0
        tasks = await fill_behind(batcher, model, *[("a" * 40,)] * 40)
        model.go.set()
        await asyncio.gather(*tasks)

    model, _ = batches_of(worker, run, deadline_seconds=1e9, queue_texts=100)
    assert [len(batch) for batch in model.batches[2:]] == [23, 17]


def test_models_of_one_base_share_a_batch(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        model.go.clear()
        first = start(batcher, "in front", model="a")
        await asyncio.sleep(0.02)
        others = [start(batcher, "x", model="a"), start(batcher, "y", model="b")]
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, *others)

    model, _ = batches_of(worker, run)
    assert model.models[1] == ["a", "b"]


def test_what_is_cancelled_is_not_computed(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        gone, stays = await fill_behind(batcher, model, ("gone", "gone too"), ("stays",))
        assert batcher.waiting == 3
        gone.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        model.go.set()
        assert await stays == ["STAYS"]

    model, _ = batches_of(worker, run)
    assert model.batches == [["the one in front"], ["stays"]]


def test_what_is_late_is_refused_and_not_computed(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        [late] = await fill_behind(batcher, model, ("late",))
        with pytest.raises(RefusedError) as refused:
            await late
        assert refused.value.status == 504
        model.go.set()
        await asyncio.sleep(0.05)
        assert batcher.waiting == 0

    model, _ = batches_of(worker, run, deadline_seconds=0.1)
    assert model.batches == [["the one in front"]]


def test_a_request_that_fails_harms_no_other(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        first, bad, last = await fill_behind(batcher, model, ("a", "b"), ("poison", "c"), ("d",))
        model.go.set()
        assert await first == ["A", "B"]
        assert await last == ["D"]
        with pytest.raises(ZeroDivisionError):
            await bad
        assert await batcher.answer("m", ["afterwards"]) == ["AFTERWARDS"]

    batches_of(worker, run)


def test_a_queue_is_full_when_it_is_long_and_slow(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        await batcher.answer("m", ["measure the pace"])
        batcher._seconds_per_cost = 0.001
        tasks = await fill_behind(batcher, model, ("a",), ("b",))
        with pytest.raises(RefusedError) as refused:
            await batcher.answer("m", ["c"])
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) >= 1
        model.go.set()
        await asyncio.gather(*tasks)
        assert await batcher.answer("m", ["c"]) == ["C"]

    batches_of(worker, run, queue_texts=2, queue_ms=10)


def test_a_long_queue_that_is_fast_is_not_full(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        await batcher.answer("m", ["measure the pace"])
        batcher._seconds_per_cost = 1e-9
        tasks = await fill_behind(batcher, model, *[("a",)] * 20)
        model.go.set()
        assert await asyncio.gather(*tasks) == [["A"]] * 20

    batches_of(worker, run, queue_texts=2)


def test_what_would_be_too_late_is_refused_at_once(worker: ThreadPoolExecutor) -> None:
    async def run(batcher: MicroBatcher, model: Upper) -> None:
        await batcher.answer("m", ["measure the pace"])
        batcher._seconds_per_cost = 1.0
        await fill_behind(batcher, model)
        assert (batcher.retry_after() or 0) > 60
        model.go.set()

    batches_of(worker, run, deadline_seconds=60)
