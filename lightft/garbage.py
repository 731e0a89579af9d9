"""When Python looks for garbage: not while everything that is made stays, and not among what will stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collected_later", "what_stays_set_aside"]


@contextmanager
def collected_later() -> Iterator[None]:
    """Import or load within this: of the many objects that are made then, looking for garbage would find next to none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def what_stays_set_aside() -> Iterator[None]:
    """Within this, garbage is looked for among new objects only.

    To look through all that the deep-learning packages make takes part of a second, in which a service answers nobody.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
