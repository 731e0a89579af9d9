"""What only lightft's own plug-ins must keep, beyond the contracts of every plug-in."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

import pytest

import lightft.adapters
import lightft.metrics
import lightft.reports
from lightft.adapters import ADAPTERS
from lightft.contracts.selection import chosen_plugins
from lightft.metrics import METRICS
from lightft.reports import REPORTS

OWN = chosen_plugins(["lightft"])
# These files hold what the plug-ins of a folder share; each other file is one plug-in, or a few that share their counts.
SHARED_FILES = {
    "metrics": {"metric", "scoring", "span_errors", "tables", "evaluate_bridge"},
    "reports": {"report", "method", "pictures", "answers", "columns"},
}


@pytest.mark.parametrize("package", [lightft.metrics, lightft.reports])
def test_every_file_of_the_folder_is_a_plug_in(package: ModuleType) -> None:
    family = package.__name__.rpartition(".")[2]
    registry = {"metrics": METRICS, "reports": REPORTS}[family]
    files = {module.name for module in pkgutil.iter_modules(package.__path__)} - SHARED_FILES[family]
    assert files == {registry[name].__module__.rpartition(".")[2] for name in OWN[family]}
    for file in files:
        assert import_module(f"{package.__name__}.{file}").__doc__


@pytest.mark.parametrize("name", OWN["adapters"])
def test_every_parameter_of_an_adapter_is_explained(name: str) -> None:
    kind = ADAPTERS[name]
    explanation = kind.build.__doc__ or ""
    assert [parameter for parameter in kind.parameters() if f"        {parameter}:" not in explanation] == []
