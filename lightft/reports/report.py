"""What a report is: a function from a comparison to text or bytes, named by the suffix of the file it makes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

from lightft.comparison import Comparison
from lightft.errors import InvalidPluginError, InvalidSettingError
from lightft.registry import Registry

__all__ = ["REPORTS", "Report", "register", "save_report"]

Report = Callable[[Comparison], str | bytes]
"""A pure function: equal comparisons give equal text, or bytes where the format is not text.

Names of runs and labels are untrusted and must be escaped. What a comparison holds of examples is shown: ``save`` takes
it out first unless texts were asked for."""


def _validated(name: str, report: Report) -> Report:
    if not callable(report):
        raise InvalidPluginError(
            f"Report {name!r} is {report!r}. Register a function from a Comparison to text or bytes."
        )
    required = [
        parameter.name
        for parameter in inspect.signature(report).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    if len(required) != 1:
        raise InvalidPluginError(
            f"Report {name!r} needs {len(required)} arguments ({', '.join(required)}). A report takes one: the "
            "comparison; give others defaults."
        )
    return report


REPORTS: Registry[Report] = Registry("reports", "report", _validated)
"""Every report by the suffix of its files, without the dot: ``comparison.save("table.md")`` calls ``REPORTS["md"]``."""

register = REPORTS.register
"""Decorator that registers a report: ``@lightft.reports.register("tex")`` above its function."""


def save_report(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison into a file whose suffix says how: a registered report, or ``.json`` for the data.

    Raises:
        InvalidSettingError: no report has the name of the suffix.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind == "json":
        written: str | bytes = json.dumps(comparison.to_json(), indent=2, ensure_ascii=False) + "\n"
    elif kind in REPORTS:
        written = REPORTS[kind](comparison)
    else:
        raise InvalidSettingError(
            f"{path.name!r} does not say which report to write. End it in one of: "
            f"{', '.join(f'.{name}' for name in sorted([*REPORTS, 'json']))}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Half a surrogate pair can be in a name and not in UTF-8; JSON has an escape for it, which Python writes alike.
    path.write_bytes(written.encode(errors="backslashreplace") if isinstance(written, str) else written)
    return path
