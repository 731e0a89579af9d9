"""Saved runs side by side: scores with intervals, differences with a verdict, and what each run cost."""

from __future__ import annotations

from lightft.comparison.comparing import compare_runs
from lightft.comparison.records import (
    Comparison,
    ComparisonRow,
    MetricInfo,
    RunDifference,
    Score,
    SeedGroup,
    TestSet,
    Verdict,
)

__all__ = [
    "Comparison",
    "ComparisonRow",
    "MetricInfo",
    "RunDifference",
    "Score",
    "SeedGroup",
    "TestSet",
    "Verdict",
    "compare_runs",
]
