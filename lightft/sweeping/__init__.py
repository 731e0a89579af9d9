"""Sweeps: many adapters, several seeds, one comparison."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightft.sweeping.budget import Budget
from lightft.sweeping.candidates import Candidate, candidates_of, grid
from lightft.sweeping.search import Range, Search

if TYPE_CHECKING:
    from lightft.sweeping.plan import PlannedCandidate, SweepPlan
    from lightft.sweeping.result import FailedRun, SweepResult
    from lightft.sweeping.running import plan_sweep, sweep

# Loaded at first use: what is to be trained can be said, and mistakes in it found, without torch.
_HOME = {
    "FailedRun": "lightft.sweeping.result",
    "PlannedCandidate": "lightft.sweeping.plan",
    "SweepPlan": "lightft.sweeping.plan",
    "SweepResult": "lightft.sweeping.result",
    "plan_sweep": "lightft.sweeping.running",
    "sweep": "lightft.sweeping.running",
}

__all__ = [
    "Budget",
    "Candidate",
    "FailedRun",
    "PlannedCandidate",
    "Range",
    "Search",
    "SweepPlan",
    "SweepResult",
    "candidates_of",
    "grid",
    "plan_sweep",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lightft.sweeping' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
