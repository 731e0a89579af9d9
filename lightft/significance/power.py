"""How large a difference a test set can show, and how large a test set a difference needs."""

from __future__ import annotations

import math
from statistics import NormalDist

from lightft.errors import InvalidSettingError
from lightft.significance.checks import check_level

__all__ = ["effect_size", "rows_needed", "smallest_detectable_difference"]


def smallest_detectable_difference(standard_error: float, level: float = 0.95, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided test would find with probability ``power``.

    ``(z₍₁₊level₎/₂ + z_power) · SE``, where z are quantiles of the normal distribution (Cohen 1988, "Statistical Power
    Analysis for the Behavioral Sciences"). The chance, below one in a thousand at the usual levels, of finding a
    difference of the wrong sign is left out.

    Args:
        standard_error: of the difference, such as the standard deviation of its resampled values.
        level: confidence of the verdict, 1 − α.
        power: the chance of finding the difference.

    Raises:
        InvalidSettingError: ``level`` or ``power`` is out of range.
    """
    return _reach(level, power) * standard_error


def rows_needed(
    difference: float,
    standard_error: float,
    rows: int,
    level: float = 0.95,
    power: float = 0.8,
    *,
    seed_error: float = 0.0,
) -> float:
    """Return how many examples would show a true difference of this size with probability ``power``.

    The standard error of the test set shrinks with the square root of its size, that of the seeds does not:
    ``n · SE² / ((difference / (z₍₁₊level₎/₂ + z_power))² − SE_seeds²)``, rounded up.

    Args:
        difference: the true difference, of either sign.
        standard_error: of the difference on ``rows`` examples, the part that is due to the examples.
        rows: how many examples ``standard_error`` belongs to.
        level: confidence of the verdict, 1 − α.
        power: the chance of finding the difference.
        seed_error: the part of the standard error that more examples leave as it is.

    Returns:
        A whole number from 1; infinite where no number of examples would do, ``nan`` where an argument is.

    Raises:
        InvalidSettingError: ``level`` or ``power`` is out of range.
    """
    reach = _reach(level, power)
    if math.isnan(difference) or math.isnan(standard_error) or math.isnan(seed_error):
        return math.nan
    allowed_variance = (difference / reach) ** 2 - seed_error**2
    if allowed_variance <= 0:
        return math.inf
    needed = rows * standard_error**2 / allowed_variance
    return max(1.0, float(math.ceil(needed)))


def effect_size(difference: float, standard_error: float, rows: int) -> float:
    """Return the difference in units of what it varies by from one example to the next: ``difference / (SE · √n)``.

    For a mean over examples, such as accuracy, it is Cohen's d_z of the paired differences (Cohen 1988). It does not
    depend on how many examples there are. ``nan`` where nothing varies.

    Args:
        difference: the observed difference.
        standard_error: of the difference on ``rows`` examples.
        rows: how many examples there are.
    """
    if standard_error == 0:
        return math.nan
    return difference / (standard_error * math.sqrt(rows))


def _reach(level: float, power: float) -> float:
    """Return how many standard errors a difference measures that is found with probability ``power``."""
    check_level(level)
    if not 0.5 <= power < 1:
        raise InvalidSettingError(f"power is {power!r}; it is a chance of at least 0.5 and below 1, such as 0.8.")
    normal = NormalDist()
    return normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
