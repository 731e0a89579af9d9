"""Saved runs side by side: scores with intervals, differences with a verdict, and what each run cost."""

from __future__ import annotations

from lightft.comparison.comparing import compare_runs
from lightft.comparison.measuring import IntervalKind
from lightft.comparison.records import (
    ComparedExample,
    Comparison,
    ComparisonRow,
    Method,
    MethodDifference,
    MetricInfo,
    Score,
    TestSet,
    Verdict,
)

__all__ = [
    "ComparedExample",
    "Comparison",
    "ComparisonRow",
    "IntervalKind",
    "Method",
    "MethodDifference",
    "MetricInfo",
    "Score",
    "TestSet",
    "Verdict",
    "compare_runs",
]
