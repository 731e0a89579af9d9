"""Files inside installed packages, named ``package:NAME/path`` and found without running any of the package's code."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lightft.errors import LightFTError

__all__ = ["PREFIX", "path_in_package"]

PREFIX = "package:"


def path_in_package(name: str, error: type[LightFTError]) -> Path:
    """Return the path that ``package:NAME/path`` stands for.

    Args:
        name: with the prefix; NAME is what the package is imported by.
        error: the class of what is raised.

    Raises:
        LightFTError: of class ``error``: the package is not installed, or holds no such path.
    """
    package, _, inner = name.removeprefix(PREFIX).partition("/")
    # Only the top-level name: finding the spec of "a.b" would import "a".
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        distribution = package.replace("_", "-") or "NAME"
        raise error(
            f"{name!r}: no package {package!r} is installed. Install it (pip install --no-deps {distribution}), and write "
            "package:NAME/path with the name it is imported by."
        )
    folders = [Path(location).resolve() for location in spec.submodule_search_locations]
    for folder in folders:
        path = (folder / inner).resolve()
        if path.exists() and path.is_relative_to(folder):
            return path
    beside = (folders[0] / inner).resolve().parent
    is_inside = beside.is_relative_to(folders[0]) and beside.is_dir()
    listed = ", ".join(sorted(path.name for path in beside.iterdir())[:10]) if is_inside else ""
    raise error(
        f"{name!r}: there is no {inner!r} inside {folders[0]}. Check the path after the package's name"
        f"{f'; beside it there is: {listed}' if listed else ''}."
    )
