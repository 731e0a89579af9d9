"""Gives pytest the option ``--plugin`` when it is asked to run the contract kit, and does nothing in any other run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pytest_load_initial_conftests"]

# This module is imported at the start of every pytest run where lightft is installed: it must import nothing heavy.


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: Sequence[str]) -> None:
    """Add the option; pytest looks into no conftest of a package named by ``--pyargs`` before it has read its options."""
    if any(argument.replace("/", ".").startswith("lightft.contracts") for argument in args):
        parser.getgroup("lightft").addoption(
            "--plugin",
            action="append",
            metavar="NAME",
            help="plug-ins to try: a registered name, an installed distribution, or 'all' (default: lightft's own)",
        )
