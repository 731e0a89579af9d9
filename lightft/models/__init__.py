"""Base models: where they come from, how they are held in memory, and what in them is head and what is base."""

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from lightft.models.loader import ModelLoader, Provenance, provenance_of
from lightft.models.quantization import QUANTIZATIONS
from lightft.models.sources import ModelSource, find_model
from lightft.models.structure import count_parameters, head_modules, share_weights
from lightft.models.targets import linear_modules, match_targets

__all__ = [
    "QUANTIZATIONS",
    "ModelLoader",
    "ModelSource",
    "Provenance",
    "count_parameters",
    "find_model",
    "head_modules",
    "linear_modules",
    "match_targets",
    "provenance_of",
    "share_weights",
]
