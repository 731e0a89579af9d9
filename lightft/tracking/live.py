"""A run that is tracked while it is trained; what goes wrong with a tracker is told when the run is safe on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from lightft.errors import TrackingError
from lightft.records import Run
from lightft.tracking.ledger import remember
from lightft.tracking.sending import Sender, track_run
from lightft.tracking.settings import Tracking

__all__ = ["LiveTracking", "catch_up"]


class LiveTracking:
    """Sends the history of a training row by row, and at its end the rest.

    Each tracker has a thread of its own, so that training never waits for a server. Once a call fails, that tracker gets
    nothing more until the end; then what it lacks is sent in one go. Leaving the block without ``finish`` ends the
    trackers' runs as failed.

    Args:
        asked: where to; None tracks nothing.
        planned: the run as far as it is known before training: name and settings.
        folder: where the run will be written.
    """

    def __init__(self, asked: Tracking | None, planned: Run, folder: Path) -> None:
        self._asked = asked
        self._planned = planned
        self._folder = folder
        self._lines: list[_Line] = []
        if asked is not None:
            self._lines = [_Line(Sender(name, asked, planned.name, folder, anew=True)) for name in asked.names]

    def __enter__(self) -> LiveTracking:
        for line in self._lines:
            line.send(partial(line.sender.begin, self._planned))
        return self

    def row(self, row: Mapping[str, Any]) -> None:
        """Send a row of the history; a callback of the training."""
        for line in self._lines:
            line.send(partial(line.sender.row, row))

    def finish(self, run: Run) -> None:
        """Send the rest of the run, which is on disk by now; warn of what does not arrive."""
        for line in self._lines:
            line.send(partial(line.sender.complete, run))
            line.close()
            remember(self._folder, line.sender.sent)
        if self._asked is not None and not all(line.sender.sent.complete for line in self._lines):
            # A server that was away may be back.
            catch_up(run, self._asked)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for line in self._lines:
            if not line.is_closed:
                line.send(line.sender.give_up)
                line.close()


class _Line:
    """The thread through which everything goes to one tracker, in order, until something fails."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.is_closed = False
        self._failed = False
        self._thread = ThreadPoolExecutor(max_workers=1)

    def send(self, call: Callable[[], None]) -> None:
        """Have a call carried out after those before it, unless one of them failed."""
        self._thread.submit(self._carry_out, call)

    def close(self) -> None:
        """Wait until everything is carried out."""
        self._thread.shutdown()
        self.is_closed = True

    def _carry_out(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        self._failed = True
        call()
        self._failed = False


def catch_up(run: Run, asked: Tracking) -> bool:
    """Send what trackers lack of a finished run, and only warn where that fails: a run is worth more than its copy.

    Returns:
        Whether they have all.
    """
    try:
        track_run(run, asked)
    except TrackingError as error:
        warnings.warn(str(error), stacklevel=2)
        return False
    return True
