"""Several seeds and test examples together: equal to other programs and to formulas by hand where there are some."""

from __future__ import annotations

import math
import warnings
from itertools import permutations

import numpy as np
import pytest
import scipy.stats

from lightft.errors import InvalidSettingError
from lightft.significance.resampling import resampled_scores
from lightft.significance.seeds import (
    seeds_difference,
    seeds_interval,
    two_level_bootstrap,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def answers(runs: int, examples: int = 300, seed: int = 1, skill: float = 0.0) -> list[np.ndarray]:
    """Return (right, 1) of runs that tend to fail on the same examples; the better the more skill."""
    ease = rng(99).normal(1 + skill, 1, examples)
    right = rng(seed).normal(size=(runs, examples)) < ease
    return [np.column_stack([row, np.ones(examples)]).astype(float) for row in right]


def scored(counts: list[np.ndarray], resamples: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([mean(rows.sum(axis=0)) for rows in counts])
    return values, resampled_scores(counts, mean, resamples=resamples, rng=rng())


def with_variances(values: list[float], items: float, interactions: float) -> np.ndarray:
    """Return resampled scores whose common part has exactly one variance, and each seed's own part the other."""
    basis = np.linalg.qr(np.column_stack([np.ones(16), rng().normal(size=(16, len(values) + 1))]))[0][:, 1:].T
    own, common = basis[:-1] * math.sqrt(15 * interactions), basis[-1] * math.sqrt(15 * items)
    return np.array(values)[:, None] + common + own


def test_standard_error_of_a_small_case_by_hand() -> None:
    # s² = 0.0004, of which s²/K is 0.0004/3. B = 0.0003 + 0.00006/3 and C = 0.00006, so that V = 0.0004/3 + 0.0003.
    values = [0.80, 0.82, 0.84]
    found = seeds_interval(values, with_variances(values, items=0.0003, interactions=0.00006), level=0.95)
    assert found.mean == pytest.approx(0.82)
    assert found.standard_error == pytest.approx(math.sqrt(0.0004 / 3 + 0.0003))
    assert found.item_error == pytest.approx(math.sqrt(0.00032))
    assert found.seed_error == pytest.approx(math.sqrt(0.00034 / 3))
    # The share of seeds is 4/13. 1/f = S − 2c²/4 + (106/9) c³/4 − (88/9) S², S = c²/2.
    share, first = 4 / 13, (4 / 13) ** 2 / 2
    freedom = 1 / (first - share**2 / 2 + 106 / 36 * share**3 - 88 / 9 * first**2)
    assert found.degrees_of_freedom == pytest.approx(freedom)
    reach = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(0.0004 / 3 + 0.0003)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.82 - reach, 0.82 + reach))
    assert (found.interval.level, found.interval.resamples, found.interval.undefined) == (0.95, 16, 0)


def test_standard_error_of_a_small_difference_by_hand() -> None:
    # Of a, s² = 0.0004 and C = 0.00006; of b, s² = 0.0002 and C = 0.00002. Nothing is common to all.
    a, b = [0.80, 0.82, 0.84], [0.70, 0.72]
    basis = with_variances([0.0] * 5, items=0.0, interactions=1.0)
    drawn_a = np.array(a)[:, None] + basis[:3] * math.sqrt(0.00006)
    drawn_b = np.array(b)[:, None] + basis[3:] * math.sqrt(0.00002)
    found = seeds_difference(a, drawn_a, b, drawn_b, level=0.9)
    assert found.value == pytest.approx(0.11)
    assert found.item_error == pytest.approx(math.sqrt(0.00006 / 3 + 0.00002 / 2))
    assert found.seed_error == pytest.approx(math.sqrt(0.00034 / 3 + 0.00018 / 2))
    assert found.standard_error == pytest.approx(math.sqrt(0.0004 / 3 + 0.0002 / 2))
    of_a, of_b = 4 / 7, 3 / 7
    first = of_a**2 / 2 + of_b**2
    second = -2 * (of_a**2 / 4 + of_b**2) + 106 / 9 * (of_a**3 / 4 + of_b**3) - 88 / 9 * first**2
    assert found.degrees_of_freedom == pytest.approx(1 / max(first + second, first / 3))
    t = found.value / found.standard_error
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(t, found.degrees_of_freedom))


def test_without_variance_of_examples_it_is_scipys_t_interval() -> None:
    values = rng(3).normal(0.8, 0.02, 4)
    found = seeds_interval(values, np.repeat(values[:, None], 50, axis=1), level=0.9)
    theirs = scipy.stats.ttest_1samp(values, 0.8).confidence_interval(0.9)
    assert found.degrees_of_freedom == pytest.approx(3)
    assert (found.interval.low, found.interval.high) == pytest.approx((theirs.low, theirs.high))


def test_without_variance_of_seeds_it_is_a_normal_interval() -> None:
    drawn = np.tile(rng(3).normal(0.8, 0.02, 400), (3, 1))
    found = seeds_interval([0.8, 0.8, 0.8], drawn, level=0.99)
    theirs = scipy.stats.norm.interval(0.99, 0.8, drawn[0].std(ddof=1))
    assert found.degrees_of_freedom == math.inf
    assert found.seed_error == 0
    assert (found.interval.low, found.interval.high) == pytest.approx(theirs)


def test_difference_from_a_run_that_never_varies_is_scipys_one_sample_test() -> None:
    values = rng(4).normal(0.8, 0.02, 5)
    found = seeds_difference(values, np.repeat(values[:, None], 9, axis=1), [0.79], np.full((1, 9), 0.79), level=0.95)
    theirs = scipy.stats.ttest_1samp(values, 0.79)
    low, high = theirs.confidence_interval(0.95)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.interval.low + 0.79, found.interval.high + 0.79) == pytest.approx((low, high))


def test_with_many_seeds_the_difference_is_scipys_welch_test() -> None:
    a, b = rng(5).normal(0.80, 0.02, 200), rng(6).normal(0.795, 0.03, 300)
    found = seeds_difference(a, np.repeat(a[:, None], 9, axis=1), b, np.repeat(b[:, None], 9, axis=1), level=0.95)
    theirs = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.degrees_of_freedom == pytest.approx(theirs.df, rel=0.02)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-3)


@pytest.mark.parametrize(("freedom_a", "freedom_b"), [(20, 20), (20, 40), (50, 10**6)])
def test_quantile_agrees_with_welchs_series_to_the_second_order(freedom_a: int, freedom_b: int) -> None:
    """The series of Welch 1947 at its own quantile, where our fixed x = 5 is near to 1.96²."""
    x = scipy.stats.norm.ppf(0.975) ** 2
    a = rng(7).normal(0.8, 0.03, freedom_a + 1)
    b = rng(8).normal(0.8, 0.03, min(freedom_b, 5_000) + 1)
    found = seeds_difference(a, np.repeat(a[:, None], 2, axis=1), b, np.repeat(b[:, None], 2, axis=1), level=0.95)
    variances = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    shares, freedoms = variances / variances.sum(), np.array([len(a) - 1, len(b) - 1])
    first, second, third = ((shares**k / freedoms**m).sum() for k, m in ((2, 1), (2, 2), (3, 2)))
    series = math.sqrt(x) * (
        1
        + (1 + x) / 4 * first
        - (1 + x) / 2 * second
        + (3 + 5 * x + x**2) / 3 * third
        - (15 + 32 * x + 9 * x**2) / 32 * first**2
    )
    ours = scipy.stats.t.ppf(0.975, found.degrees_of_freedom)
    satterthwaites = scipy.stats.t.ppf(0.975, 1 / first)
    assert ours == pytest.approx(series, abs=5e-4)
    assert abs(ours - series) < 0.5 * abs(satterthwaites - series) + 1e-4


def test_variance_is_that_of_the_crossed_analysis_of_variance() -> None:
    """Mean squares of seeds, examples and the rest, as textbooks have them for two crossed random effects."""
    counts = answers(runs=4, examples=500)
    values, drawn = scored(counts, resamples=40_000)
    right = np.array([rows[:, 0] for rows in counts])
    seeds, examples = right.shape
    by_seed, by_example, grand = right.mean(axis=1), right.mean(axis=0), right.mean()
    mean_square_seeds = examples * ((by_seed - grand) ** 2).sum() / (seeds - 1)
    mean_square_examples = seeds * ((by_example - grand) ** 2).sum() / (examples - 1)
    rest = right - by_seed[:, None] - by_example + grand
    mean_square_rest = (rest**2).sum() / ((seeds - 1) * (examples - 1))
    variance = (mean_square_seeds + mean_square_examples - mean_square_rest) / (seeds * examples)
    found = seeds_interval(values, drawn, level=0.95)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=0.02)


def test_variance_is_that_of_statsmodels_mixed_model() -> None:
    pandas = pytest.importorskip("pandas")
    models = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    seeds, examples = 4, 30
    effects = rng(12).normal(0, 0.6, (seeds, 1)) + rng(13).normal(0, 1, examples)
    scores = effects + rng(14).normal(0, 1, (seeds, examples))
    place = np.indices(scores.shape)
    table = pandas.DataFrame({"score": scores.ravel(), "seed": place[0].ravel(), "example": place[1].ravel()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = models.MixedLM.from_formula(
            "score ~ 1",
            groups=np.ones(len(table)),
            vc_formula={"seed": "0 + C(seed)", "example": "0 + C(example)"},
            data=table,
        ).fit(reml=True)
    counts = [np.column_stack([row, np.ones(examples)]) for row in scores]
    found = seeds_interval(*scored(counts, resamples=40_000), level=0.95)
    # A resampled mean varies by (n − 1)/n of what a new sample's does.
    assert found.standard_error == pytest.approx(float(fit.bse["Intercept"]), rel=1 / examples)


def test_swapping_the_methods_turns_the_difference() -> None:
    values, drawn = scored([*answers(3), *answers(4, seed=2, skill=0.2)])
    there = seeds_difference(values[:3], drawn[:3], values[3:], drawn[3:], level=0.95)
    back = seeds_difference(values[3:], drawn[3:], values[:3], drawn[:3], level=0.95)
    assert back.value == pytest.approx(-there.value)
    assert (back.interval.low, back.interval.high) == pytest.approx((-there.interval.high, -there.interval.low))
    assert (back.p_value, back.degrees_of_freedom) == pytest.approx((there.p_value, there.degrees_of_freedom))


def test_order_of_seeds_makes_no_difference() -> None:
    values, drawn = scored(answers(3))
    orders = [seeds_interval(values[list(order)], drawn[list(order)], level=0.95) for order in permutations(range(3))]
    for found in orders[1:]:
        assert found.standard_error == pytest.approx(orders[0].standard_error, rel=1e-12)
        assert found.interval.low == pytest.approx(orders[0].interval.low, rel=1e-12)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_p_is_below_the_threshold_exactly_where_the_interval_leaves_out_zero(level: float) -> None:
    verdicts = set()
    for skill in np.linspace(-0.6, 0.6, 25):
        values, drawn = scored([*answers(3), *answers(3, seed=2, skill=float(skill))], resamples=200)
        found = seeds_difference(values[:3], drawn[:3], values[3:], drawn[3:], level=level)
        leaves_out_zero = found.interval.low > 0 or found.interval.high < 0
        assert leaves_out_zero == (found.p_value < 1 - level)
        verdicts.add(leaves_out_zero)
    assert verdicts == {True, False}


def test_a_method_with_one_seed_is_held_fixed() -> None:
    values, drawn = scored([*answers(3), *answers(1, seed=2)])
    found = seeds_difference(values[:3], drawn[:3], values[3:], drawn[3:], level=0.95)
    seeds = values[:3].var(ddof=1) / 3
    apart = drawn[:3] - drawn[:3].mean(axis=0)
    interactions = apart.var(axis=1, ddof=1).sum() / 2 / 3
    items = (drawn[:3].mean(axis=0) - drawn[3]).var(ddof=1)
    assert found.standard_error == pytest.approx(math.sqrt(seeds + items - interactions))


def test_seeds_that_agree_by_luck_are_not_certain() -> None:
    """Three runs of each method score the same, though they err on different examples."""
    right = np.ones((6, 90))
    for run in range(6):
        right[run, 10 * run : 10 * run + (10 if run < 3 else 5)] = 0
    values, drawn = scored([np.column_stack([row, np.ones(90)]) for row in right])
    found = seeds_difference(values[:3], drawn[:3], values[3:], drawn[3:], level=0.95)
    assert np.ptp(values[:3]) == np.ptp(values[3:]) == 0
    assert found.standard_error > 0
    assert found.p_value > 1e-6
    assert found.seed_error == 0


def test_more_examples_leave_the_seed_error_as_it_is() -> None:
    values = [0.80, 0.82, 0.84]
    few = seeds_interval(values, with_variances(values, items=0.0004, interactions=0.00004), level=0.95)
    many = seeds_interval(values, with_variances(values, items=0.0001, interactions=0.00001), level=0.95)
    assert many.item_error == pytest.approx(few.item_error / 2)
    assert few.seed_error**2 + few.item_error**2 == pytest.approx(few.standard_error**2)
    assert many.seed_error**2 + many.item_error**2 == pytest.approx(many.standard_error**2)


def test_undefined_resamples_are_left_out_of_all_runs_and_counted() -> None:
    values, drawn = scored(answers(6), resamples=100)
    with_holes = drawn.copy()
    with_holes[0, 3] = with_holes[1, 7] = with_holes[4, 7] = with_holes[5, 8] = np.nan
    kept = np.delete(drawn, [3, 7, 8], axis=1)
    holes = seeds_difference(values[:3], with_holes[:3], values[3:], with_holes[3:], level=0.95)
    clean = seeds_difference(values[:3], kept[:3], values[3:], kept[3:], level=0.95)
    assert holes.p_value == clean.p_value
    assert (holes.interval.resamples, holes.interval.undefined) == (97, 3)
    one = seeds_interval(values[:3], with_holes[:3], level=0.95)
    assert (one.interval.resamples, one.interval.undefined) == (98, 2)


@pytest.mark.parametrize("undefined", [math.nan, math.inf])
def test_undefined_score_gives_an_undefined_result(undefined: float) -> None:
    values, drawn = scored(answers(6), resamples=50)
    values[1] = undefined
    one = seeds_interval(values[:3], drawn[:3], level=0.95)
    two = seeds_difference(values[:3], drawn[:3], values[3:], drawn[3:], level=0.95)
    for number in (one.mean, one.interval.low, one.standard_error, two.value, two.p_value, two.interval.high):
        assert math.isnan(number)


def test_no_defined_resample_gives_the_mean_without_an_interval() -> None:
    values, drawn = scored(answers(3), resamples=50)
    found = seeds_interval(values, np.full_like(drawn, np.nan), level=0.95)
    assert found.mean == pytest.approx(values.mean())
    assert math.isnan(found.interval.low)
    assert (found.interval.resamples, found.interval.undefined) == (0, 50)


def test_nothing_varies_and_all_agree_gives_certainty() -> None:
    ones = np.ones((3, 20))
    assert seeds_interval([1, 1, 1], ones, level=0.95).interval.low == 1
    tie = seeds_difference([0.3] * 3, 0.3 * ones, [0.3] * 3, 0.3 * ones, level=0.95)
    assert (tie.p_value, tie.interval.low, tie.interval.high) == (1, 0, 0)


def test_nothing_varies_and_yet_two_methods_differ_gives_no_p() -> None:
    found = seeds_difference([1] * 3, np.ones((3, 20)), [0] * 3, np.zeros((3, 20)), level=0.95)
    assert found.value == 1
    assert math.isnan(found.p_value)
    assert math.isnan(found.interval.low)


@pytest.mark.parametrize(
    ("values", "drawn", "words"),
    [
        ([0.8], np.ones((1, 9)), "one seed"),
        ([0.8, 0.9], np.ones((3, 9)), r"shape \(2,\) and resampled \(3, 9\)"),
        ([0.8, 0.9], np.ones(9), r"\(K, R\)"),
        ([0.8, 0.9], np.ones((2, 1)), "at least 2"),
        ([], np.ones((0, 9)), "at least one seed"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(values: list[float], drawn: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidSettingError, match=words):
        seeds_interval(values, drawn, level=0.95)


def test_methods_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="9 resampled test sets and b on 8"):
        seeds_difference([0.8, 0.9], np.ones((2, 9)), [0.8, 0.9], np.ones((2, 8)), level=0.95)
    with pytest.raises(InvalidSettingError, match="paired_bootstrap_difference"):
        seeds_difference([0.8], np.ones((1, 9)), [0.9], np.ones((1, 9)), level=0.95)
    with pytest.raises(InvalidSettingError, match="level is 95"):
        seeds_difference([0.8, 0.9], np.ones((2, 9)), [0.8, 0.9], np.ones((2, 9)), level=95)


def test_two_level_bootstrap_varies_by_seeds_and_examples() -> None:
    counts = answers(5, examples=400)
    values, drawn = scored(counts)
    found = two_level_bootstrap(counts, mean, resamples=20_000, rng=rng())
    # A pair of draws is the same seed where one draw pairs with itself (1 in 5), or where two agree (1 in 5 of the rest).
    same, different = 1 / 5 + 4 / 5 / 5, 4 / 5 * 4 / 5
    covariance = np.cov(drawn)
    items = same * covariance.diagonal().mean() + different * covariance[~np.eye(5, dtype=bool)].mean()
    expected = 2 * 1.96 * math.sqrt(items + values.var() / 5)
    assert found.high - found.low == pytest.approx(expected, rel=0.05)
    assert found.resamples == 20_000


def test_two_level_bootstrap_of_one_seed_draws_examples_alone() -> None:
    counts = answers(1)
    drawn = resampled_scores(counts, mean, resamples=5_000, rng=rng())[0]
    found = two_level_bootstrap(counts, mean, resamples=5_000, rng=rng())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    with pytest.raises(InvalidSettingError, match="no seeds"):
        two_level_bootstrap([], mean, rng=rng())
