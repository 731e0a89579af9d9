"""An event loop in a thread of its own: requests go on while the caller works, and end when it leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["EventLoopThread"]

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class EventLoopThread:
    """Runs asynchronous functions in the background while it is used as a context.

    Leaving it cancels what still runs, awaits ``close()`` and ends the thread. It works where an event loop already runs,
    such as in a notebook.
    """

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close
        self._loop = asyncio.new_event_loop()
        self._started: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="lightft requests", daemon=True)

    def __enter__(self) -> EventLoopThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        # An iterator that was forgotten may be collected in this very thread, which cannot wait for itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def start(self, function: Callable[[Argument], Awaitable[Result]], argument: Argument) -> Future[Result]:
        """Return at once what ``function(argument)`` is going to return."""
        return asyncio.run_coroutine_threadsafe(self._registered(function, argument), self._loop)

    async def _registered(self, function: Callable[[Argument], Awaitable[Result]], argument: Argument) -> Result:
        task: Any = asyncio.current_task()
        self._started.add(task)
        try:
            return await function(argument)
        finally:
            self._started.discard(task)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        # Only these, not asyncio.all_tasks(): each ends its own helpers, which may not have begun and then would complain.
        started = tuple(self._started)
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
        await self._close()
        await self._loop.shutdown_asyncgens()
