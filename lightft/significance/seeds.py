"""Scores over new seeds and new test examples: where a method's lies, and how far apart two methods' are.

A method is trained with K seeds, and every run is scored on the same n test examples. The score of a seed on an example
is taken as a common mean, plus an effect of the seed (variance S), of the example (E), and of the pair (P): what this
seed gets wrong there and others do not. It is the model of several readers who judge the same cases (Obuchowski and
Rockette 1995, "Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests: an ANOVA approach with
dependent observations"). The mean over seeds then varies by ``V = S/K + E/n + P/(Kn)``. Three numbers make V known:

- s², the variance of the K scores (K − 1), is ``S + P/n`` on average.
- B, the variance of the mean over seeds from one resampled test set to the next, is ``E/n + P/(Kn)``.
- C, the variance of a seed's distance from that mean over the same test sets, summed over seeds and divided by K − 1,
  is ``P/n``.

``s²/K + B`` would count P twice, so ``V = s²/K + (B − C/K)``. For the difference of two methods, whose seeds are
independent, B is that of the difference of the means, and s²/K and C/K are sums over the two.

Three seeds know s² badly. A bootstrap of three scores cannot make up for that (see ``two_level_bootstrap``); Student's
t can, where V has f degrees of freedom. With ``d = K − 1`` and ``c = (s²/K)/V`` of each method, Satterthwaite's are
``1/f = h``, ``h = Σ c²/d``. With three seeds they leave intervals of 95 % with 92 % in places. Welch gave the next term
(1947, "The generalization of 'Student's' problem when several different population variances are involved"; Aspin
1948). Written as degrees of freedom it is::

    1/f = h − 2 Σ c²/d² + p Σ c³/d² − q h²
    p = (4/3) (3 + 5x + x²) / (1 + x)
    q = (2/3) (3 + 7x + 2x²) / (1 + x)

Here x is the square of the normal quantile. We take x = 5, between those of 95 % and 99 %, since that covers most evenly
in simulations. f only says which t to take: it may exceed the number of seeds where two variances are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, stdtr, stdtrit

from lightft.errors import InvalidSettingError
from lightft.significance.checks import check_level
from lightft.significance.intervals import Interval, percentile_from_resamples
from lightft.significance.resampling import Array, Score, resampled_scores

__all__ = ["SeedsDifference", "SeedsEstimate", "seeds_difference", "seeds_interval", "two_level_bootstrap"]


@dataclass(frozen=True)
class SeedsEstimate:
    """A method's expected score over new seeds and new test examples; all is ``nan`` where a score is undefined.

    Attributes:
        mean: of the scores.
        interval: of the expected score.
        standard_error: √V, which the interval rests on.
        seed_error: what the luck of training adds to ``item_error``, √((s² − C)/K), or 0 where s² is below C. More
            examples leave it as it is.
        item_error: what the choice of test examples alone does to the mean, √B. It shrinks as 1/√n.
        degrees_of_freedom: of Student's t; infinite where the scores do not vary with the seed.
    """

    mean: float
    interval: Interval
    standard_error: float
    seed_error: float
    item_error: float
    degrees_of_freedom: float


@dataclass(frozen=True)
class SeedsDifference:
    """Expected score of method a minus that of method b; all is ``nan`` where a score is undefined.

    Attributes:
        value: mean score of a minus mean score of b.
        interval: of the expected difference. It leaves out 0 exactly where ``p_value`` is below 1 − level.
        p_value: two-sided, of the hypothesis that the two have the same expected score.
        standard_error: √V, which both rest on.
        seed_error: what the luck of training adds to ``item_error``, √(Σ (s² − C)/K), or 0 where that is negative.
        item_error: what the choice of test examples alone does to the difference, √B.
        degrees_of_freedom: of Student's t; infinite where the scores do not vary with the seed.
    """

    value: float
    interval: Interval
    p_value: float
    standard_error: float
    seed_error: float
    item_error: float
    degrees_of_freedom: float


def seeds_interval(values: Sequence[float] | Array, resampled: Array, *, level: float = 0.95) -> SeedsEstimate:
    """Interval of the expected score of a method over new seeds and new test examples.

    ``mean ± t_f √V``, with V and f as the module says. In simulations with normal effects 95 % cover in 94 % to 96 % of
    cases with three seeds or more, whether seeds vary not at all or three times as much as test sets do. With two seeds
    they cover in 90 % to 96 %: two show that there is a luck of training, hardly how much. Where few examples are wrong,
    scores are skew, and like every interval of a mean ± its error it covers less.

    Args:
        values: shape ``(K,)``, the score of each seed's run; at least two.
        resampled: shape ``(K, R)``, the runs' scores on the same R resampled test sets (``resampled_scores``). Test sets
            where a score is undefined are left out, and counted in the interval.
        level: confidence, between 0 and 1.

    Raises:
        InvalidSettingError: there are fewer than two seeds, the shapes do not fit, or ``level`` is out of range.
    """
    check_level(level)
    scores, drawn = _checked(values, resampled, "values", "resampled")
    if len(scores) < 2:
        raise InvalidSettingError(
            "There is one seed, which says nothing of how seeds vary. Train with two more, or take bootstrap_interval "
            "for this run alone."
        )
    drawn, undefined = _defined(drawn)
    error = _error([(scores, drawn)], drawn.mean(axis=0))
    mean = float(scores.mean()) if np.isfinite(scores).all() else math.nan
    reach = error.reach(level)
    return SeedsEstimate(
        mean=mean,
        interval=Interval(mean - reach, mean + reach, level, drawn.shape[1], undefined),
        standard_error=error.standard_error,
        seed_error=error.seed_error,
        item_error=error.item_error,
        degrees_of_freedom=error.degrees_of_freedom,
    )


def seeds_difference(
    values_a: Sequence[float] | Array,
    resampled_a: Array,
    values_b: Sequence[float] | Array,
    resampled_b: Array,
    *,
    level: float = 0.95,
) -> SeedsDifference:
    """Difference between the expected scores of two methods over new seeds and new test examples, with a t test.

    ``t = (mean of a − mean of b) / √V`` with f degrees of freedom, V and f as the module says. In simulations with normal
    effects, two methods of equal expected score differ at 5 % in 4 % to 6 % of cases with three seeds or more each. Seeds
    of a and b count as independent, even where they have the same number. A method with one seed is held fixed: the
    result then is about this run against the other method, and another seed of it may turn it round.

    Args:
        values_a: shape ``(K_a,)``, the score of each run of a.
        resampled_a: shape ``(K_a, R)``, their scores on R resampled test sets. Test sets where a score of a or b is
            undefined are left out, and counted in the interval.
        values_b: shape ``(K_b,)``.
        resampled_b: shape ``(K_b, R)``, on the same test sets: column r belongs to one test set in both.
        level: confidence, between 0 and 1.

    Returns:
        The difference; interval and p are ``nan`` where nothing varies and yet the two differ.

    Raises:
        InvalidSettingError: neither has two seeds, the shapes do not fit, or ``level`` is out of range.
    """
    check_level(level)
    scores_a, drawn_a = _checked(values_a, resampled_a, "values_a", "resampled_a")
    scores_b, drawn_b = _checked(values_b, resampled_b, "values_b", "resampled_b")
    if drawn_a.shape[1] != drawn_b.shape[1]:
        raise InvalidSettingError(
            f"a is scored on {drawn_a.shape[1]} resampled test sets and b on {drawn_b.shape[1]}. "
            "Score both on the same ones, in one call of resampled_scores."
        )
    if max(len(scores_a), len(scores_b)) < 2:
        raise InvalidSettingError(
            "Both methods have one seed, which says nothing of how seeds vary. Train one of them with two more, or take "
            "paired_bootstrap_difference for the two runs alone."
        )
    drawn, undefined = _defined(np.vstack([drawn_a, drawn_b]))
    drawn_a, drawn_b = drawn[: len(scores_a)], drawn[len(scores_a) :]
    error = _error([(scores_a, drawn_a), (scores_b, drawn_b)], drawn_a.mean(axis=0) - drawn_b.mean(axis=0))
    finite = np.isfinite(scores_a).all() and np.isfinite(scores_b).all()
    value = float(scores_a.mean() - scores_b.mean()) if finite else math.nan
    certain = error.standard_error == 0 and abs(value) > _rounding(scores_a, scores_b)
    reach = math.nan if certain else error.reach(level)
    return SeedsDifference(
        value=value,
        interval=Interval(value - reach, value + reach, level, drawn.shape[1], undefined),
        p_value=math.nan if certain else error.p_value(value),
        standard_error=error.standard_error,
        seed_error=error.seed_error,
        item_error=error.item_error,
        degrees_of_freedom=error.degrees_of_freedom,
    )


def two_level_bootstrap(
    counts_per_seed: Sequence[Array],
    score: Score,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    rng: np.random.Generator,
) -> Interval:
    """Percentile interval of the mean over seeds when seeds and examples are both drawn again; too narrow for few seeds.

    Draws K seeds of the K with replacement, and n examples for all of them, ``resamples`` times. It is here for
    comparison with papers that report it. Drawing from three scores gives a variance of two thirds of s², and ends no
    further out than the best and the worst seed. So intervals called 95 % cover in 84 % of cases with three seeds that
    vary ten times as much as test sets do. Use ``seeds_interval``.

    Args:
        counts_per_seed: K arrays of shape ``(n, k)``; row i belongs to the same example in all.
        score: from sums of shape ``(..., k)`` to scores of shape ``(...)``.
        level: confidence, between 0 and 1.
        resamples: how many times both are drawn.
        rng: source of the draws.

    Raises:
        InvalidSettingError: the shapes differ, ``level`` or ``resamples`` is out of range, or there are no seeds or
            examples.
    """
    check_level(level)
    if not len(counts_per_seed):
        raise InvalidSettingError("There are no seeds to resample. Give the counts of at least one run.")
    drawn = resampled_scores(counts_per_seed, score, resamples=resamples, rng=rng)
    seeds = rng.integers(0, len(drawn), size=drawn.shape)
    return percentile_from_resamples(np.take_along_axis(drawn, seeds, axis=0).mean(axis=0), level)


# The square of the normal quantile at which Welch's second term is taken; see the module.
_SQUARED_QUANTILE = 5.0

# Seeds that err on different examples agree in their scores by luck. s² is not taken as less than that luck alone leaves
# in 19 of 20 cases; otherwise three runs that happen to score the same would be certain.
_LUCKY_AGREEMENT = 0.05


@dataclass(frozen=True)
class _Error:
    standard_error: float
    seed_error: float
    item_error: float
    degrees_of_freedom: float

    def reach(self, level: float) -> float:
        """Return half the width of the interval."""
        return float(stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * self.standard_error

    def p_value(self, value: float) -> float:
        """Return the two-sided p-value of the hypothesis that the expected value is 0."""
        if self.standard_error == 0:
            return 1.0
        return float(2 * stdtr(self.degrees_of_freedom, -abs(value) / self.standard_error))


def _error(methods: Sequence[tuple[Array, Array]], resampled_value: Array) -> _Error:
    """Return the error of a mean, or of a difference of two.

    Args:
        methods: scores, shape ``(K,)``, and scores on resampled test sets, shape ``(K, R)``, of each.
        resampled_value: shape ``(R,)``, the mean or difference on the resampled test sets.
    """
    if len(resampled_value) < 2 or not all(np.isfinite(values).all() for values, _ in methods):
        return _Error(math.nan, math.nan, math.nan, math.nan)
    items = float(resampled_value.var(ddof=1))
    several = [(values, resampled) for values, resampled in methods if len(values) > 1]
    freedoms = [len(values) - 1 for values, _ in several]
    observed = [_variance(values) / len(values) for values, _ in several]
    interactions = [_interaction_variance(resampled) / len(resampled) for _, resampled in several]
    lowest = [
        interaction * float(chdtri(freedom, 1 - _LUCKY_AGREEMENT)) / freedom
        for interaction, freedom in zip(interactions, freedoms, strict=True)
    ]
    seeds = [max(pair) for pair in zip(observed, lowest, strict=True)]
    total = sum(seeds) + max(0.0, items - sum(interactions))
    if total <= _rounding(*(values for values, _ in methods)) ** 2:
        return _Error(0.0, 0.0, 0.0, math.inf)
    return _Error(
        standard_error=math.sqrt(total),
        seed_error=math.sqrt(max(0.0, sum(observed) - sum(interactions))),
        item_error=math.sqrt(items),
        degrees_of_freedom=_degrees_of_freedom([variance / total for variance in seeds], freedoms),
    )


def _variance(values: Array) -> float:
    """Return s², and 0 for equal scores, whatever rounding made of their mean."""
    return 0.0 if np.ptp(values) <= _rounding(values) else float(values.var(ddof=1))


def _interaction_variance(resampled: Array) -> float:
    """Return C, the variance that a seed's score on a test set has apart from the mean over seeds."""
    apart = resampled - resampled.mean(axis=0)
    if np.abs(apart).max() <= _rounding(resampled):
        return 0.0
    return float(apart.var(axis=1, ddof=1).sum()) / (len(resampled) - 1)


def _degrees_of_freedom(shares: Sequence[float], freedoms: Sequence[int]) -> float:
    """Return f, given the shares of V that each method's seeds have and the degrees of freedom of each."""
    x = _SQUARED_QUANTILE
    pairs = list(zip(shares, freedoms, strict=True))
    first = sum(c**2 / v for c, v in pairs)
    second = (
        -2 * sum(c**2 / v**2 for c, v in pairs)
        + 4 / 3 * (3 + 5 * x + x**2) / (1 + x) * sum(c**3 / v**2 for c, v in pairs)
        - 2 / 3 * (3 + 7 * x + 2 * x**2) / (1 + x) * first**2
    )
    # The series is cut short; with two seeds what it leaves out may turn the sum negative.
    inverse = max(first + second, first / 3)
    return 1 / inverse if inverse > 0 else math.inf


def _checked(values: Sequence[float] | Array, resampled: Array, name: str, name_resampled: str) -> tuple[Array, Array]:
    scores, drawn = np.asarray(values, dtype=np.float64), np.asarray(resampled, dtype=np.float64)
    if scores.ndim != 1 or drawn.ndim != 2 or len(scores) != len(drawn) or not len(scores):
        raise InvalidSettingError(
            f"{name} has shape {scores.shape} and {name_resampled} {drawn.shape}; they are (K,) and (K, R), a row for each "
            "of at least one seed."
        )
    if drawn.shape[1] < 2:
        raise InvalidSettingError(
            f"{name_resampled} holds {drawn.shape[1]} resampled test sets; it takes at least 2, and 10,000 "
            "give steady numbers."
        )
    return scores, drawn


def _defined(resampled: Array) -> tuple[Array, int]:
    """Return the columns in which every score is a finite number, and how many others there are."""
    defined = np.isfinite(resampled).all(axis=0)
    return resampled[:, defined], int(np.count_nonzero(~defined))


def _rounding(*values: Array) -> float:
    """Return what equal means may differ by."""
    return 1e-12 * max(float(np.abs(scores).max()) for scores in values)
