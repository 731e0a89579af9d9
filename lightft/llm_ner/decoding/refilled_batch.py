"""Rows answered in order by a batch that stays full: where one is done, the next enters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence, Sized
from itertools import islice
from typing import Protocol, TypeVar

__all__ = ["done_in_order"]

# Rows that wait for an earlier one to be done, for each row of the batch.
_MOST_AHEAD = 8


class _Row(Protocol):
    @property
    def done(self) -> bool:
        """Whether nothing more is written."""


RowType = TypeVar("RowType", bound=_Row)
Entering = TypeVar("Entering", bound=_Row, contravariant=True)


class _Batch(Protocol[Entering]):
    @property
    def active(self) -> Sized:
        """The rows in it, none of which is done."""

    def enter(self, rows: Sequence[Entering]) -> None:
        """Take rows that are not done."""

    def step(self) -> None:
        """Take all rows through the model once; those that are done leave."""


def done_in_order(waiting: Iterator[RowType], batch: _Batch[RowType], *, most: int) -> Iterator[RowType]:
    """Take all rows through the batch, at most so many at once, and yield each when it and those before it are done.

    A bounded number of rows is read ahead.
    """
    unfinished: deque[RowType] = deque()
    while True:
        room = min(most - len(batch.active), _MOST_AHEAD * most - len(unfinished))
        entering = list(islice(waiting, max(0, room)))
        unfinished.extend(entering)
        batch.enter([row for row in entering if not row.done])
        if not unfinished:
            return
        if batch.active:
            batch.step()
        while unfinished and unfinished[0].done:
            yield unfinished.popleft()
