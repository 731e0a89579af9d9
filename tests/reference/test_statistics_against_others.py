"""Our intervals, tests and powers against those of scipy, statsmodels, mlxtend, scikit-learn, sacrebleu and seqeval."""

from __future__ import annotations

import math
import warnings
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import seqeval.metrics
from mlxtend.evaluate import mcnemar as mlxtend_mcnemar
from mlxtend.evaluate import mcnemar_table
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from seqeval.scheme import IOB2
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower, TTestPower

from lightft.significance import (
    auc_interval,
    bca_from_resamples,
    bca_interval,
    benjamini_hochberg_adjusted,
    delong_test,
    effect_size,
    holm_adjusted,
    jackknife_scores,
    joint_randomization,
    mcnemar_exact,
    mcnemar_mid_p,
    paired_bootstrap_difference,
    resampled_scores,
    rows_needed,
    smallest_detectable_difference,
)

TYPES = ("LOC", "ORG", "PER")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / totals[..., 1]


def f1(totals: np.ndarray) -> np.ndarray:
    return 2 * totals[..., 0] / (totals[..., 1] + totals[..., 2])


# --- the bootstrap


def tags_of(spans: set[tuple[int, int, str]], words: int) -> list[str]:
    tags = ["O"] * words
    for start, end, label in spans:
        tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
    return tags


def random_spans(source: np.random.Generator, words: int) -> set[tuple[int, int, str]]:
    """Return spans of one to three words, no two of which touch the same word."""
    spans, start = set(), 0
    while start < words:
        end = min(words, start + int(source.integers(1, 4)))
        if source.random() < 0.3:
            spans.add((start, end, TYPES[int(source.integers(3))]))
        start = end
    return spans


def with_errors(source: np.random.Generator, spans: set[tuple[int, int, str]]) -> set[tuple[int, int, str]]:
    """Return the spans, some of them lost and some of another type."""
    kept = [span for span in sorted(spans) if source.random() < 0.85]
    return {
        (start, end, TYPES[int(source.integers(3))] if source.random() < 0.1 else label) for start, end, label in kept
    }


def test_resampled_scores_equal_seqevals_on_the_same_sentences() -> None:
    source, sentences, runs = rng(3), 120, 3
    words = source.integers(3, 15, sentences)
    gold = [random_spans(source, int(count)) for count in words]
    predicted = [[with_errors(source, spans) for spans in gold] for _ in range(runs)]
    # Beside the counts, a column for each sentence: its sum is how often the sentence was drawn.
    counts = [
        np.hstack(
            [
                [[len(a & b), len(b), len(a)] for a, b in zip(gold, answers, strict=True)],
                np.eye(sentences),
            ]
        )
        for answers in predicted
    ]
    drawn = []

    def noting_what_was_drawn(totals: np.ndarray) -> np.ndarray:
        drawn.append(totals[:, 0, 3:].astype(int))
        return f1(totals)

    ours = resampled_scores(counts, noting_what_was_drawn, resamples=40, rng=rng())
    for resample, times in enumerate(np.concatenate(drawn)):
        assert times.sum() == sentences
        places = np.repeat(np.arange(sentences), times)
        truth = [tags_of(gold[place], int(words[place])) for place in places]
        for run, answers in enumerate(predicted):
            answer = [tags_of(answers[place], int(words[place])) for place in places]
            theirs = seqeval.metrics.f1_score(truth, answer, mode="strict", scheme=IOB2)
            assert ours[run, resample] == pytest.approx(theirs, abs=1e-12)


SKEWED = np.column_stack([rng(5).lognormal(0, 1.2, 60), np.ones(60)])


def test_bca_interval_equals_scipys() -> None:
    ours = bca_interval(SKEWED, mean, resamples=40_000, rng=rng())
    theirs = scipy.stats.bootstrap(
        (SKEWED[:, 0],), np.mean, n_resamples=40_000, method="BCa", batch=2000, rng=rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    # Three standard errors of the difference between two such ends.
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)
    # The correction is larger than that.
    percentile = np.quantile(resampled_scores([SKEWED], mean, resamples=40_000, rng=rng())[0], 0.975)
    assert ours.high - percentile > 0.08 * width


def test_bca_of_the_very_same_resamples_equals_scipys() -> None:
    given = scipy.stats.bootstrap((SKEWED[:, 0],), np.mean, n_resamples=5000, method="BCa", batch=500, rng=rng(1))
    ours = bca_from_resamples(
        float(SKEWED[:, 0].mean()), given.bootstrap_distribution, jackknife_scores(SKEWED, mean), 0.95
    )
    assert ours.low == pytest.approx(given.confidence_interval.low, rel=1e-9)
    assert ours.high == pytest.approx(given.confidence_interval.high, rel=1e-9)


def paired_counts() -> tuple[np.ndarray, np.ndarray]:
    source = rng(11)
    gold = source.poisson(2, 250)
    found = [source.binomial(gold, skill) for skill in (0.8, 0.77)]
    a, b = (np.column_stack([hits, hits + source.poisson(0.4, 250), gold]).astype(float) for hits in found)
    return a, b


def test_paired_bca_of_f1_equals_scipys() -> None:
    a, b = paired_counts()

    def difference(*columns: np.ndarray, axis: int) -> np.ndarray:
        hits_a, found_a, hits_b, found_b, gold = (column.sum(axis=axis) for column in columns)
        return 2 * hits_a / (found_a + gold) - 2 * hits_b / (found_b + gold)

    theirs = scipy.stats.bootstrap(
        (a[:, 0], a[:, 1], b[:, 0], b[:, 1], a[:, 2]),
        difference,
        paired=True,
        n_resamples=20_000,
        method="BCa",
        batch=2000,
        rng=rng(1),
    ).confidence_interval
    scores_a, scores_b = resampled_scores([a, b], f1, resamples=20_000, rng=rng())
    observed = float(f1(a.sum(axis=0)) - f1(b.sum(axis=0)))
    jackknife = jackknife_scores(a, f1) - jackknife_scores(b, f1)
    ours = bca_from_resamples(observed, scores_a - scores_b, jackknife, 0.95)
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


# --- randomization


def test_joint_p_values_equal_scipys_permutation_tests() -> None:
    source = rng(7)
    shared = source.normal(size=150)
    values = [shared + source.normal(0.05 * run, 0.5, 150) for run in range(4)]
    counts = [np.column_stack([row, np.ones(150)]) for row in values]
    pairs = list(combinations(range(4), 2))
    ours = joint_randomization(counts, mean, pairs, trials=20_000, rng=rng())
    for (a, b), p in zip(pairs, ours, strict=True):
        theirs = scipy.stats.permutation_test(
            (values[a], values[b]),
            lambda x, y, axis: x.mean(axis) - y.mean(axis),
            permutation_type="samples",
            n_resamples=20_000,
            vectorized=True,
            batch=2000,
            rng=rng(1),
        ).pvalue
        assert p == pytest.approx(theirs, abs=0.015)


VOCABULARY = [f"w{number}" for number in range(40)]


def texts(source: np.random.Generator, sentences: int) -> list[list[str]]:
    return [
        [VOCABULARY[int(word)] for word in source.integers(0, 40, source.integers(6, 14))] for _ in range(sentences)
    ]


def garbled(source: np.random.Generator, sentences: list[list[str]], share: float) -> list[list[str]]:
    return [
        [VOCABULARY[int(source.integers(40))] if source.random() < share else word for word in row] for row in sentences
    ]


def bleu_of(totals: np.ndarray) -> np.ndarray:
    """BLEU of (length, reference length, four matches, four totals), by its formula (Papineni et al. 2002)."""
    length, reference = totals[..., 0], totals[..., 1]
    precision = np.log(totals[..., 2:6] / totals[..., 6:10]).mean(axis=-1)
    return 100 * np.exp(np.minimum(0, 1 - reference / length) + precision)


@pytest.fixture(scope="module")
def translations() -> tuple[list[str], list[str], list[str]]:
    source = rng(21)
    gold = texts(source, 150)
    a, b = garbled(source, gold, 0.25), garbled(source, gold, 0.28)
    return tuple([" ".join(row) for row in side] for side in (gold, a, b))  # type: ignore[return-value]


def bleu_counts(gold: list[str], answers: list[str]) -> np.ndarray:
    return np.array(BLEU(force=True)._extract_corpus_statistics(answers, [gold]), dtype=float)


def test_randomization_p_equals_sacrebleus(translations: tuple[list[str], list[str], list[str]]) -> None:
    gold, a, b = translations
    _, table = PairedTest([("a", a), ("b", b)], {"BLEU": BLEU(force=True)}, [gold], "ar", n_samples=10_000)()
    counts = [bleu_counts(gold, answers) for answers in (a, b)]
    [theirs] = [results for name, results in table.items() if name != "System"]
    assert float(bleu_of(counts[0].sum(axis=0))) == pytest.approx(theirs[0].score)
    assert 0.01 < theirs[1].p_value < 0.9
    ours = joint_randomization(counts, bleu_of, [(0, 1)], trials=10_000, rng=rng())
    assert ours[0] == pytest.approx(theirs[1].p_value, abs=0.02)


def test_paired_bootstrap_equals_sacrebleus(translations: tuple[list[str], list[str], list[str]]) -> None:
    gold, a, b = translations
    _, table = PairedTest([("a", a), ("b", b)], {"BLEU": BLEU(force=True)}, [gold], "bs", n_samples=5000)()
    counts = [bleu_counts(gold, answers) for answers in (a, b)]
    [theirs] = [results for name, results in table.items() if name != "System"]
    scores_a, scores_b = resampled_scores(counts, bleu_of, resamples=20_000, rng=rng())
    assert scores_b.mean() == pytest.approx(theirs[1].mean, abs=0.1)
    # Their interval is given by half its width.
    low, high = np.quantile(scores_b, [0.025, 0.975])
    assert (high - low) / 2 == pytest.approx(theirs[1].ci, rel=0.05)
    # Their p-value is that of the sizes of the differences around their mean.
    sizes = np.abs(scores_a - scores_b)
    observed = abs(theirs[0].score - theirs[1].score)
    assert np.mean(sizes - sizes.mean() > observed) == pytest.approx(theirs[1].p_value, abs=0.02)


# --- classes


@pytest.mark.parametrize("seed", range(10))
def test_mcnemar_equals_statsmodels_and_mlxtends(seed: int) -> None:
    right_a, right_b = rng(seed).random(150) < 0.8, rng(seed + 100).random(150) < 0.72
    table = mcnemar_table(np.ones(150, int), right_a.astype(int), right_b.astype(int))
    ours = mcnemar_exact(right_a, right_b)
    assert ours == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-10)
    assert ours == pytest.approx(mlxtend_mcnemar(table, exact=True)[1], rel=1e-10)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (1, 7), (6, 6), (9, 14), (40, 60), (0, 1)])
def test_mid_p_is_the_exact_p_less_the_chance_of_what_was_observed(only_a: int, only_b: int) -> None:
    right_a = np.array([True] * only_a + [False] * only_b + [True] * 10)
    right_b = np.array([False] * only_a + [True] * only_b + [True] * 10)
    binomial = scipy.stats.binom(only_a + only_b, 0.5)
    expected = 2 * binomial.cdf(min(only_a, only_b)) - binomial.pmf(min(only_a, only_b))
    assert mcnemar_mid_p(right_a, right_b) == pytest.approx(expected)


def rankings(seed: int, examples: int = 80, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source = rng(seed)
    gold = source.random(examples) < 0.4
    shared = source.normal(size=examples)
    a, b = (gold * skill + shared + source.normal(size=examples) for skill in (1.5, 1.0))
    return (gold, np.round(a), np.round(b)) if ties else (gold, a, b)


def direct_covariance(gold: np.ndarray, scores: list[np.ndarray]) -> np.ndarray:
    """Return DeLong's covariance from the matrix of all pairs of a positive and a negative."""
    wins = [
        (row[gold][:, None] > row[~gold]) + 0.5 * (row[gold][:, None] == row[~gold]) for row in scores
    ]  # (positives, negatives) each
    of_positives, of_negatives = (np.array([matrix.mean(axis=axis) for matrix in wins]) for axis in (1, 0))
    return np.cov(of_positives) / gold.sum() + np.cov(of_negatives) / (~gold).sum()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_scikit_learns_areas_and_the_covariance_of_all_pairs(seed: int, ties: bool) -> None:
    gold, a, b = rankings(seed, ties=ties)
    difference, interval, p = delong_test(gold, a, b)
    assert difference == pytest.approx(roc_auc_score(gold, a) - roc_auc_score(gold, b))
    covariance = direct_covariance(gold, [a, b])
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert p == pytest.approx(2 * scipy.stats.norm.sf(abs(difference) / error))
    assert (interval.low, interval.high) == pytest.approx(scipy.stats.norm(difference, error).interval(0.95), rel=1e-9)
    area = roc_auc_score(gold, a)
    on_logit_scale = scipy.stats.norm(
        math.log(area / (1 - area)), math.sqrt(covariance[0, 0]) / (area * (1 - area))
    ).interval(0.9)
    of_one = auc_interval(gold, a, level=0.9)
    assert (of_one.low, of_one.high) == pytest.approx(scipy.special.expit(on_logit_scale))


# --- several comparisons


@pytest.mark.parametrize("seed", range(10))
def test_adjusted_p_values_equal_statsmodels(seed: int) -> None:
    p_values = (rng(seed).random(12) ** 3).round(2).tolist()
    assert holm_adjusted(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert benjamini_hochberg_adjusted(p_values) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


# --- power


def test_the_smallest_detectable_difference_equals_statsmodels() -> None:
    # A difference of two means with unit variance and 400 values each has a standard error of sqrt(2 / 400).
    for level, power in ((0.95, 0.8), (0.99, 0.9)):
        ours = smallest_detectable_difference(math.sqrt(2 / 400), level, power)
        theirs = NormalIndPower().solve_power(nobs1=400, alpha=1 - level, power=power, alternative="two-sided")
        # Theirs counts findings of the wrong sign, a chance below 1e-4.
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_rows_needed_equal_statsmodels() -> None:
    # One value an example, whose deviation is 1: the standard error of 100 examples is 0.1.
    for size in (0.05, 0.1, 0.2):
        theirs = TTestPower().solve_power(effect_size=size, alpha=0.05, power=0.8, alternative="two-sided")
        # Student's t asks for about two examples more than the normal distribution.
        assert rows_needed(size, 0.1, 100) == pytest.approx(theirs, abs=3)


def test_a_test_set_of_the_size_needed_finds_the_difference_four_times_in_five() -> None:
    def counts(source: np.random.Generator, examples: int) -> tuple[np.ndarray, np.ndarray]:
        return source.random(examples) < 0.80, source.random(examples) < 0.76

    source = rng(2)
    a, b = counts(source, 500_000)
    difference = float(a.mean() - b.mean())
    error = float((a.astype(float) - b).std() / math.sqrt(a.size))
    needed = int(rows_needed(difference, error, a.size))
    found = np.mean([mcnemar_mid_p(*counts(source, needed)) <= 0.05 for _ in range(4000)])
    assert found == pytest.approx(0.8, abs=0.03)


def test_the_effect_size_of_accuracy_is_cohens_d_z() -> None:
    right_a, right_b = rng(1).random(500) < 0.85, rng(2).random(500) < 0.75
    paired = right_a.astype(float) - right_b
    d_z = paired.mean() / paired.std(ddof=1)
    error = scipy.stats.sem(paired)
    assert effect_size(float(paired.mean()), float(error), 500) == pytest.approx(d_z)
    # By the bootstrap, as a comparison computes it.
    counts = [np.column_stack([right, np.ones(500)]).astype(float) for right in (right_a, right_b)]
    scores_a, scores_b = resampled_scores(counts, mean, resamples=20_000, rng=rng())
    by_bootstrap = effect_size(float(paired.mean()), float((scores_a - scores_b).std()), 500)
    assert by_bootstrap == pytest.approx(d_z, rel=0.03)
    value = paired_bootstrap_difference(*counts, mean, resamples=100, rng=rng()).value
    assert value == pytest.approx(paired.mean())


@pytest.fixture(autouse=True)
def others_may_warn() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
