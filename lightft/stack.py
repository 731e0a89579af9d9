"""Imports the deep-learning stack: refuses versions that are too old, and leaves out a notice that no user can act on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from packaging.version import Version

from lightft.errors import LightFTError
from lightft.garbage import collected_later

__all__ = ["FLOORS"]

FLOORS = {"torch": "2.10", "transformers": "5.3"}
"""Below these, known security holes in loading checkpoints are open."""


def _refuse_old_versions() -> None:
    for package, floor in FLOORS.items():
        installed = metadata.version(package)
        if Version(installed) < Version(floor):
            raise LightFTError(
                f"lightft trains with {package} {floor} or later, because of security fixes in it; {installed} is "
                f"installed. Run: pip install --upgrade '{package}>={floor}'"
            )


@contextmanager
def compiling_when_first_called() -> Iterator[None]:
    """Let ``torch.compile`` load its compiler when a compiled function is first called, not when it is declared.

    bitsandbytes declares four such functions for devices that it has no kernels for; torch.compile would load all of
    Inductor for them, in every process, for nothing.
    """
    compile_now = torch.compile

    def compile_later(model: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
        if model is None:
            return functools.partial(compile_later, **options)
        compiled = functools.cache(lambda: compile_now(model, **options))
        return functools.wraps(model)(lambda *args, **kwargs: compiled()(*args, **kwargs))

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


@contextmanager
def _without_notices() -> Iterator[None]:
    """Leave out bitsandbytes' notice that a package for faster inference, which training cannot use, is missing."""

    def is_something_else(record: logging.LogRecord) -> bool:
        return "kernels-community" not in record.getMessage()

    notices = logging.getLogger("bitsandbytes.backends.cpu.ops")
    notices.addFilter(is_something_else)
    try:
        yield
    finally:
        notices.removeFilter(is_something_else)


_refuse_old_versions()
with collected_later():
    import torch

    with compiling_when_first_called(), _without_notices():
        import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
