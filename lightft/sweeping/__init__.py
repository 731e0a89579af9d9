"""Sweeps: many adapters, several seeds, one comparison."""

from lightft.sweeping.candidates import Candidate, candidates_of, grid
from lightft.sweeping.jobs import Budget
from lightft.sweeping.plan import PlannedCandidate, SweepPlan
from lightft.sweeping.result import FailedRun, SweepResult
from lightft.sweeping.running import plan_sweep, sweep
from lightft.sweeping.search import Range, Search

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
