"""Imports the deep-learning stack: refuses versions that are too old, and leaves out a notice that no user can act on."""

from __future__ import annotations

import logging
from importlib import metadata

from packaging.version import Version

from lightft.errors import LightFTError

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


def _import_bitsandbytes_quietly() -> None:
    """Import bitsandbytes without its notice that a package for faster inference, which training cannot use, is missing."""

    def is_something_else(record: logging.LogRecord) -> bool:
        return "kernels-community" not in record.getMessage()

    notices = logging.getLogger("bitsandbytes.backends.cpu.ops")
    notices.addFilter(is_something_else)
    try:
        import bitsandbytes  # noqa: F401
    finally:
        notices.removeFilter(is_something_else)


_refuse_old_versions()
_import_bitsandbytes_quietly()
