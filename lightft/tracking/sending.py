"""Sends runs and reports to trackers, and goes on where an earlier attempt was cut off."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lightft.comparison import Comparison
from lightft.errors import InvalidSettingError, LightFTError, TrackingError
from lightft.records import Run
from lightft.tracking.ledger import Sent, remember, sent_before
from lightft.tracking.settings import TRACKERS, Tracking
from lightft.tracking.trackers import TrackedRun, tracked_run
from lightft.tracking.values import files_of, numbers_of, parameters_of, write_reports

__all__ = ["Sender", "log_report", "track_run"]


def track_run(run: Run | str | Path, track: str | Sequence[str] | Tracking) -> None:
    """Send a finished run: parameters, curves, scores with intervals, costs, a report, its files and its adapter.

    ``tracking.json`` in the run's folder remembers what each tracker has. A run that was sent is not sent again, and one
    that was cut off is completed under the same id.

    Args:
        run: what a trainer's ``fit`` returned, or its folder.
        track: where to.

    Raises:
        TrackingError: a tracker did not take all of it; the same call goes on there.
        MissingExtraError: the tracker's package is not installed.
        InvalidSettingError: there is no such tracker, or the run is in no folder.
        DataError: the folder holds no finished run.
    """
    asked = Tracking.of(track)
    opened = run if isinstance(run, Run) else Run.load(run)
    folder = opened.path
    if folder is None:
        raise InvalidSettingError(f"The run {opened.name!r} is only in memory. Write it first: run.save('runs/NAME').")
    causes = {}
    for tracker in asked.names:
        sender = Sender(tracker, asked, opened.name, folder)
        cause = _failure_of(partial(sender.send, opened))
        remember(folder, sender.sent)
        if cause is not None:
            causes[TRACKERS[tracker].title] = cause
    if causes:
        raise TrackingError(
            f"{_told(causes)} Not all of the run {opened.name!r} was sent; it is safe in {folder}. "
            f"lightft.tracking.track_run({str(folder)!r}, ...) goes on where this stopped."
        ) from next(iter(causes.values()))


def log_report(
    comparison: Comparison, track: str | Sequence[str] | Tracking, *, name: str = "report", folder: str | Path = "runs"
) -> None:
    """Send a comparison as a run of its own, with the report as HTML page, Markdown, table and data.

    Args:
        comparison: what ``compare`` returned. Its examples go with it only where texts were asked for.
        track: where to.
        name: of the tracker's run.
        folder: where TensorBoard's files go.

    Raises:
        TrackingError: a tracker did not take it.
        MissingExtraError: the tracker's package is not installed.
        InvalidSettingError: there is no such tracker.
    """
    asked = Tracking.of(track)
    parameters = {
        "task": comparison.task,
        "metric": comparison.headline,
        "runs": ", ".join(row.name for row in comparison.rows),
        "test_fingerprint": comparison.test_set.fingerprint,
        "tracking.texts": asked.texts,
    }
    causes = {}
    for tracker in asked.names:
        tracked = tracked_run(tracker, asked, name, Path(folder) / name)
        cause = _failure_of(partial(_send_report, comparison, parameters, tracked, texts=asked.texts))
        if cause is not None:
            causes[TRACKERS[tracker].title] = cause
    if causes:
        raise TrackingError(f"{_told(causes)} The report was not sent. Call log_report again.") from next(
            iter(causes.values())
        )


class Sender:
    """Sends one run to one tracker, part by part, and keeps account of what has arrived.

    Args:
        tracker: the tracker's name.
        asked: project, options, and whether texts go along.
        run_name: of the run.
        folder: the run's.
        anew: the run is not there yet; what was sent from the same folder before was another.
    """

    def __init__(self, tracker: str, asked: Tracking, run_name: str, folder: Path, *, anew: bool = False) -> None:
        self._asked = asked
        self._folder = folder
        self._tracked = tracked_run(tracker, asked, run_name, folder)
        place = (tracker, asked.project, self._tracked.address)
        self.sent = Sent(*place) if anew else sent_before(folder, *place)

    def send(self, run: Run) -> None:
        """Send what the tracker does not have yet."""
        if not self.sent.complete:
            self.begin(run)
            self.complete(run)

    def begin(self, run: Run) -> None:
        """Start the run, and store its parameters."""
        self.sent.run_id = self._tracked.start(self.sent.run_id)
        if not self.sent.parameters:
            self._tracked.store({**parameters_of(run), "tracking.texts": self._asked.texts})
            self.sent.parameters = True

    def row(self, row: Mapping[str, Any]) -> None:
        """Send the next row of the history."""
        self._tracked.log({name: value for name, value in row.items() if name != "step"}, int(row["step"]))
        self.sent.rows += 1

    def complete(self, run: Run) -> None:
        """Send the rows that are missing, the results and the files, and end the run."""
        for row in run.history[self.sent.rows :]:
            self.row(row)
        last_step = int(run.history[-1]["step"]) if run.history else 0
        self._tracked.log(numbers_of(run), last_step)
        with tempfile.TemporaryDirectory() as work:
            self._tracked.keep(files_of(run, self._folder, Path(work), texts=self._asked.texts))
        self._tracked.finish()
        self.sent.complete = True

    def give_up(self) -> None:
        """End the run as one that failed."""
        self._tracked.finish(failed=True)


def _send_report(comparison: Comparison, parameters: Mapping[str, Any], tracked: TrackedRun, *, texts: bool) -> None:
    tracked.start("")
    tracked.store(parameters)
    with tempfile.TemporaryDirectory() as work:
        tracked.keep(write_reports(comparison, Path(work), ("html", "md", "csv", "json"), texts=texts))
    tracked.finish()


def _failure_of(call: Callable[[], None]) -> Exception | None:
    """Carry out a call to a tracker's package, and return what it raised; mistakes of the user's are raised.

    It has a thread of its own, for trackers hold the active run per thread: one that the caller has open is not disturbed.
    """
    with _state_of_processes(), ThreadPoolExecutor(max_workers=1) as thread:
        failure = thread.submit(call).exception()
    if isinstance(failure, Exception) and not isinstance(failure, LightFTError):
        return failure
    if failure is not None:
        raise failure
    return None


def _told(causes: Mapping[str, Exception]) -> str:
    return " ".join(f"{title}: {type(cause).__name__}: {str(cause).rstrip('.')}." for title, cause in causes.items())


@contextmanager
def _state_of_processes() -> Iterator[None]:
    """Let Accelerate's log work, which its trackers write to, and leave no choice of device that a training would follow."""
    from accelerate import PartialState

    if PartialState._shared_state:
        yield
        return
    alone = PartialState(cpu=True).num_processes == 1
    try:
        yield
    finally:
        if alone:
            PartialState._reset_state()
