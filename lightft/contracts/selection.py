"""Which plug-ins the contract kit tries: by registered name, by the distribution that declares them, or all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from lightft.adapters import ADAPTERS
from lightft.errors import UnknownNameError, suggest
from lightft.exporters import EXPORTERS
from lightft.metrics import METRICS
from lightft.registry import Registry
from lightft.reports import REPORTS
from lightft.tasks import TASKS

__all__ = ["FAMILIES", "OWN", "chosen_plugins", "describe_choice"]

FAMILIES: Mapping[str, Registry[Any]] = {
    "adapters": ADAPTERS,
    "tasks": TASKS,
    "metrics": METRICS,
    "reports": REPORTS,
    "exporters": EXPORTERS,
}
OWN = "lightft"
"""The distribution whose plug-ins need no entry points."""


def chosen_plugins(wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of each family that ``wanted`` means, sorted.

    Args:
        wanted: names of plug-ins in any family, names of distributions, or ``"all"``.

    Raises:
        UnknownNameError: one of them is neither.
    """
    declared = {family: _declared(family) for family in FAMILIES}
    distributions = {name for of_plugin in declared.values() for name in of_plugin.values()} | {OWN}
    for name in wanted:
        names = {known for registry in FAMILIES.values() for known in registry}
        if name != "all" and _plain(name) not in distributions and name not in names:
            raise UnknownNameError(
                f"No plug-in and no distribution with plug-ins is named {name!r}. {suggest(name, names | distributions)}"
            )
    return {
        family: tuple(name for name in registry if _is_wanted(name, declared[family], wanted))
        for family, registry in FAMILIES.items()
    }


def describe_choice(chosen: Mapping[str, Sequence[str]]) -> str:
    """Return one line that names what is tried, family by family."""
    parts = [f"{family} {', '.join(names)}" for family, names in chosen.items() if names]
    left = [family for family, names in chosen.items() if not names]
    return "; ".join([*parts, *([f"no {', no '.join(left)}"] if left else [])])


def _is_wanted(name: str, declared: Mapping[str, str], wanted: Sequence[str]) -> bool:
    return bool({"all", name, declared.get(name, OWN)} & {*wanted, *map(_plain, wanted)})


def _declared(family: str) -> dict[str, str]:
    """Return, by plug-in, the distribution that declares it as an entry point."""
    return {
        entry.name: _plain(entry.dist.name)
        for entry in entry_points(group=f"lightft.{family}")
        if entry.dist is not None
    }


def _plain(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
