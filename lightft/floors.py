"""The oldest versions lightft trains with; importing this module refuses older ones."""

from __future__ import annotations

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


_refuse_old_versions()
