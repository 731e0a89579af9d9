"""Provisional: replaced by the calibrated version."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from lightft.significance.intervals import Interval

__all__ = ["SeedsDifference", "SeedsEstimate", "seeds_difference", "seeds_interval"]


@dataclass(frozen=True)
class SeedsEstimate:
    mean: float
    interval: Interval
    standard_error: float
    seed_error: float
    item_error: float
    degrees_of_freedom: float


@dataclass(frozen=True)
class SeedsDifference:
    value: float
    interval: Interval
    p_value: float
    standard_error: float
    seed_error: float
    item_error: float
    degrees_of_freedom: float


def seeds_interval(values: Any, resampled: Any, *, level: float) -> SeedsEstimate:
    values = np.asarray(values)
    seed = values.var(ddof=1) / len(values)
    item = np.nanmean(resampled, axis=0).var(ddof=1)
    error = math.sqrt(seed + item)
    df = (seed + item) ** 2 / max(seed**2 / (len(values) - 1), 1e-300)
    reach = stats.t.ppf((1 + level) / 2, df) * error
    m = float(values.mean())
    return SeedsEstimate(m, Interval(m - reach, m + reach, level, resampled.shape[1]), error, math.sqrt(seed), math.sqrt(item), df)


def seeds_difference(values_a: Any, resampled_a: Any, values_b: Any, resampled_b: Any, *, level: float) -> SeedsDifference:
    parts = [(np.var(v, ddof=1) / len(v), len(v) - 1) for v in (values_a, values_b) if len(v) > 1]
    seed = sum(part for part, _ in parts)
    item = (resampled_a.mean(axis=0) - resampled_b.mean(axis=0)).var(ddof=1)
    error = math.sqrt(seed + item)
    df = (seed + item) ** 2 / max(sum(part**2 / d for part, d in parts), 1e-300)
    value = float(np.mean(values_a) - np.mean(values_b))
    reach = stats.t.ppf((1 + level) / 2, df) * error
    p = float(2 * stats.t.sf(abs(value) / error, df))
    return SeedsDifference(value, Interval(value - reach, value + reach, level, resampled_a.shape[1]), p, error, math.sqrt(seed), math.sqrt(item), df)
