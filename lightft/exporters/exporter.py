"""What an exporter is: from an adapter folder to something that works without lightft."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from lightft.errors import InvalidPluginError, InvalidSettingError
from lightft.registry import Registry

__all__ = ["EXPORTERS", "Exporter", "export", "register"]

Exporter = Callable[[Path, Path], Path]
"""Called with the adapter folder and the folder to write, which does not exist yet; returns what was written."""


def _validated(name: str, exporter: Exporter) -> Exporter:
    if not callable(exporter) or len(inspect.signature(exporter).parameters) != 2:
        raise InvalidPluginError(
            f"The exporter {name!r} must be a function of two paths, the adapter folder and the folder to write; "
            f"{exporter!r} is not."
        )
    return exporter


EXPORTERS: Registry[Exporter] = Registry("exporters", "exporter", _validated)

register = EXPORTERS.register
"""Decorator that registers an exporter under a name."""


def export(adapter: str | Path, *, to: str, out: str | Path) -> Path:
    """Turn an adapter folder into another format.

    Args:
        adapter: a folder that a trainer wrote.
        to: name of an exporter, such as ``"merged"``.
        out: the folder to write; it must not exist.

    Raises:
        UnknownNameError: there is no such exporter.
        InvalidSettingError: ``out`` exists.
    """
    exporter, out = EXPORTERS[to], Path(out)
    if out.exists():
        raise InvalidSettingError(f"{out} exists already. Choose another folder, or delete it.")
    return exporter(Path(adapter), out)
