"""Hands each contract the plug-ins that are to keep it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lightft.contracts.adapter_cells import Bench, cells_of
from lightft.contracts.selection import FAMILIES, OWN, chosen_plugins, describe_choice
from lightft.errors import UnknownNameError
from lightft.metrics import Metric, build_metric

# Tokenizers warn when a process that used their threads is forked.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_CHOSEN = pytest.StashKey[Mapping[str, Sequence[str]]]()
# What a contract asks for as an argument, and the family whose names it then gets one by one.
_ARGUMENTS = {f"{family.removesuffix('s')}_name": family for family in FAMILIES}


def _chosen(config: pytest.Config) -> Mapping[str, Sequence[str]]:
    if _CHOSEN not in config.stash:
        try:
            config.stash[_CHOSEN] = chosen_plugins(config.getoption("plugin", None) or [OWN])
        except UnknownNameError as cause:
            raise pytest.UsageError(str(cause)) from cause
    return config.stash[_CHOSEN]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the contracts of families of which no plug-in is tried."""
    families = {f"test_every_{family.removesuffix('s')}.py": family for family in FAMILIES}
    family = families.get(collection_path.name)
    return True if family is not None and not _chosen(config)[family] else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a contract once for each plug-in, and a contract of training once for each head and precision too."""
    chosen = _chosen(metafunc.config)
    for argument, family in _ARGUMENTS.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, chosen[family])
    if "counting_metric_name" in metafunc.fixturenames:
        # A score that needs all rows together has no totals to add up.
        counting = [name for name in chosen["metrics"] if isinstance(build_metric(name, ("a", "b")), Metric)]
        metafunc.parametrize("counting_metric_name", counting)
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", cells_of(chosen["adapters"]), ids=str)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was tried."""
    terminalreporter.write_line(f"contracts of: {describe_choice(_chosen(config))}")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Where adapters are trained, each once, for all contracts to look at."""
    return Bench(tmp_path_factory.mktemp("adapters"))
