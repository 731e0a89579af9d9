"""Packages that are installed on demand, with what to say when they are not."""

from __future__ import annotations

import importlib
from typing import Any

from lightft.errors import MissingExtraError

__all__ = ["package_of_extra"]


def package_of_extra(package: str, extra: str, need: str) -> Any:
    """Return a package that is imported only where it is used.

    Args:
        package: what to import.
        extra: the optional dependency of lightft that brings it.
        need: what needs it, as the beginning of a sentence: ``"A search needs Optuna"``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as cause:
        raise MissingExtraError(f"{need}. Install it with: pip install 'lightft[{extra}]'") from cause
