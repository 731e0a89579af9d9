"""Adapter sets: several adapters over one base model in memory."""

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from lightft.adapter_sets.adapter_set import AdapterSet, load_adapters

__all__ = ["AdapterSet", "load_adapters"]
