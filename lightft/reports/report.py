"""What a report is: a function from a comparison to text, named by the suffix of the file it makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from lightft.comparison import Comparison
from lightft.errors import InvalidPluginError
from lightft.registry import Registry

__all__ = ["REPORTS", "Report", "register"]

Report = Callable[[Comparison], str]
"""A pure function: equal comparisons give equal text. Names of runs and labels are untrusted and must be escaped."""


def _validated(name: str, report: Report) -> Report:
    if not callable(report):
        raise InvalidPluginError(f"Report {name!r} is {report!r}. Register a function from a Comparison to text.")
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
