"""Combining: one adapter made of several, without training."""

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from lightft.combining.combined import METHODS, combine

__all__ = ["METHODS", "combine"]
