"""How large the files of an adapter are, and how many numbers they hold."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open

__all__ = ["folder_bytes", "stored_numbers"]


def folder_bytes(folder: Path, pattern: str = "*") -> int:
    """Return the size of the files in ``folder`` whose names match ``pattern``."""
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())


def stored_numbers(folder: Path) -> int:
    """Return how many numbers the tensors in the safetensors files of ``folder`` hold."""
    return sum(_numbers_in(file) for file in folder.glob("*.safetensors"))


def _numbers_in(file: Path) -> int:
    with safe_open(file, "pt") as opened:
        # An opened file is no dictionary: it has keys but cannot be iterated over itself.
        names = list(opened.keys())
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in names)
