"""What an exporter is: from an adapter folder to something that works without lightft."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightft.adapters.schema import check_value, schema_of
from lightft.errors import InvalidPluginError, InvalidSettingError, LightFTError, suggest
from lightft.exporters.damage import refuse_damaged
from lightft.registry import Registry

__all__ = ["EXPORTERS", "Exporter", "export", "register"]

Exporter = Callable[..., Path]
"""Called with the adapter folder and the folder to write, which does not exist yet; returns what was written.

Keyword-only parameters with defaults are its options; their annotations are checked."""


def _validated(name: str, exporter: Exporter) -> Exporter:
    if not callable(exporter) or not _takes_two_paths_and_options(inspect.signature(exporter)):
        raise InvalidPluginError(
            f"The exporter {name!r} must be a function of two paths, the adapter folder and the folder to write, and of "
            f"keyword-only options with defaults; {exporter!r} is not."
        )
    return exporter


def _takes_two_paths_and_options(signature: inspect.Signature) -> bool:
    options = _options(signature)
    without_default = [option for option in options.values() if option.default is inspect.Parameter.empty]
    return len(signature.parameters) - len(options) == 2 and not without_default


def _options(signature: inspect.Signature) -> Mapping[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


EXPORTERS: Registry[Exporter] = Registry("exporters", "exporter", _validated)

register = EXPORTERS.register
"""Decorator that registers an exporter under a name."""


def export(adapter: str | Path, *, to: str, out: str | Path, **options: Any) -> Path:
    """Turn an adapter folder into another format.

    Args:
        adapter: a folder that a trainer wrote.
        to: name of an exporter, such as ``"merged"``.
        out: the folder to write; it must not exist.
        options: of the exporter, such as ``dtype="bfloat16"`` of ``"merged"``.

    Raises:
        UnknownNameError: there is no such exporter.
        InvalidSettingError: ``out`` exists, or the exporter has no such option, or not with that value.
        AdapterError: the folder holds no adapter or a damaged one, or the exporter refuses it. Nothing is written then.
        LightFTError: ``out`` cannot be written, such as on a disk that is full.
    """
    exporter, out = EXPORTERS[to], Path(out)
    known = _options(inspect.signature(exporter))
    for name, value in options.items():
        if name not in known:
            raise InvalidSettingError(f"{to!r} has no option {name!r}. {suggest(name, known)}")
        annotation = schema_of(exporter).get(name)
        if annotation is not None:
            check_value(to, name, value, annotation)
    try:
        if out.exists():
            raise InvalidSettingError(f"{out} exists already. Choose another folder, or delete it.")
        refuse_damaged(Path(adapter))
        return exporter(Path(adapter), out, **options)
    except LightFTError:
        # Some are an OSError as well, and have said what there is to say.
        raise
    except OSError as cause:
        raise LightFTError(
            f"{out} was not written: {cause}. Mend that, or name a place that can be written to and has room."
        ) from cause
