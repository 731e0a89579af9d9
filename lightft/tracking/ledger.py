"""What trackers have of a run already, in ``tracking.json`` beside it, so that nothing is sent twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lightft.errors import DataError

__all__ = ["FILE_NAME", "Sent", "remember", "sent_before"]

FILE_NAME = "tracking.json"


@dataclass
class Sent:
    """What one tracker has of a run.

    Attributes:
        tracker: its name.
        project: in which the run is.
        address: of the server or folder; empty where the tracker has but one.
        run_id: under which the tracker knows the run; empty before it does.
        parameters: whether it has the parameters.
        rows: how many rows of the history it has.
        complete: whether it has all.
    """

    tracker: str
    project: str
    address: str
    run_id: str = ""
    parameters: bool = False
    rows: int = 0
    complete: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        """Where the run was sent."""
        return self.tracker, self.project, self.address


def sent_before(folder: Path, tracker: str, project: str, address: str) -> Sent:
    """Return what a tracker has of the run in ``folder``: nothing where it is not told.

    Raises:
        DataError: ``tracking.json`` cannot be read.
    """
    asked = Sent(tracker, project, address)
    return next((sent for sent in _read(folder) if sent.place == asked.place), asked)


def remember(folder: Path, sent: Sent) -> None:
    """Write what a tracker has now."""
    others = [other for other in _read(folder) if other.place != sent.place]
    rows = [asdict(each) for each in (*others, sent)]
    (folder / FILE_NAME).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(folder: Path) -> list[Sent]:
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    try:
        return [Sent(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as cause:
        raise DataError(f"{path} is damaged ({cause}). Delete it; the run is then tracked anew.") from cause
