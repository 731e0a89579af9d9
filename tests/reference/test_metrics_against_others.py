"""Our numbers against seqeval's and scikit-learn's on random input."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import seqeval.metrics
from seqeval.scheme import IOB2
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve
from sklearn.preprocessing import MultiLabelBinarizer

from lightft.metrics import (
    confusion_matrix,
    per_label_table,
    precision_recall_curve,
    reliability_bins,
    roc_curve,
    score_predictions,
)
from lightft.records import Prediction, Span
from lightft.spans import join_words, spans_to_tags, tags_to_word_spans

TYPES = ("LOC", "ORG", "PER", "creative-work")
TAGS = ("O", *(f"{prefix}-{label}" for label in TYPES for prefix in "BI"))


def random_tags(rng: np.random.Generator, sentences: int, *, valid: bool) -> list[list[str]]:
    """Return random tags of sentences of 1 to 12 words; all transitions occur unless they must be valid."""
    rows = []
    for _ in range(sentences):
        row: list[str] = []
        for _ in range(int(rng.integers(1, 13))):
            tag = TAGS[int(rng.integers(len(TAGS)))] if rng.random() < 0.6 else "O"
            if valid and tag.startswith("I-") and (not row or row[-1][2:] != tag[2:]):
                tag = f"B-{tag[2:]}"
            row.append(tag)
        rows.append(row)
    return rows


def nearly(rng: np.random.Generator, gold: list[list[str]]) -> list[list[str]]:
    """Return the tags with one in five replaced by any other."""
    return [[TAGS[int(rng.integers(len(TAGS)))] if rng.random() < 0.2 else tag for tag in row] for row in gold]


def spans_of(tags: list[str], *, lenient: bool = False) -> tuple[Span, ...]:
    words = words_of(tags)
    return tuple(
        Span(words[first][0], words[beyond - 1][1], label)
        for first, beyond, label in tags_to_word_spans(tags, "BIO", lenient=lenient)
    )


def words_of(tags: list[str]) -> tuple[tuple[int, int], ...]:
    return tuple((3 * place, 3 * place + 2) for place in range(len(tags)))


def without_overlaps(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    kept: list[Span] = []
    for one in sorted(spans, key=lambda span: (span.start - span.end, span)):
        if not any(one.start < other.end and other.start < one.end for other in kept):
            kept.append(one)
    return tuple(sorted(kept))


def predictions_of(
    gold: list[list[str]], predicted: list[list[str]], *, lenient_gold: bool = False
) -> list[Prediction]:
    return [
        Prediction(
            str(number),
            gold=spans_of(truth, lenient=lenient_gold),
            predicted=spans_of(answer),
            words=words_of(truth),
            tags=tuple(answer),
        )
        for number, (truth, answer) in enumerate(zip(gold, predicted, strict=True))
    ]


@pytest.fixture(autouse=True)
def seqeval_may_warn() -> Iterator[None]:
    # It warns where a type is never predicted or never gold; which of our numbers are undefined is tested elsewhere.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("valid_gold", [True, False])
def test_span_scores_equal_seqevals_strict_mode(seed: int, valid_gold: bool) -> None:
    rng = np.random.default_rng(seed)
    gold = random_tags(rng, 40, valid=valid_gold)
    predicted = nearly(rng, gold)
    predictions = predictions_of(gold, predicted)
    theirs = seqeval.metrics.classification_report(gold, predicted, mode="strict", scheme=IOB2, output_dict=True)

    ours = score_predictions(predictions, ["span_precision", "span_recall", "span_f1", "span_f1_macro"])
    assert ours["span_precision"] == pytest.approx(theirs["micro avg"]["precision"])
    assert ours["span_recall"] == pytest.approx(theirs["micro avg"]["recall"])
    assert ours["span_f1"] == pytest.approx(theirs["micro avg"]["f1-score"])
    assert ours["span_f1_macro"] == pytest.approx(theirs["macro avg"]["f1-score"])

    table = {one.label: one for one in per_label_table(predictions)}
    assert set(table) == set(theirs) - {"micro avg", "macro avg", "weighted avg"}
    for label, one in table.items():
        # What is undefined with us is 0 with seqeval.
        assert np.nan_to_num(one.precision) == pytest.approx(theirs[label]["precision"])
        assert np.nan_to_num(one.recall) == pytest.approx(theirs[label]["recall"])
        assert np.nan_to_num(one.f1) == pytest.approx(theirs[label]["f1-score"])
        assert one.support == theirs[label]["support"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("valid_gold", [True, False])
def test_lenient_f1_equals_seqevals_default_mode(seed: int, valid_gold: bool) -> None:
    rng = np.random.default_rng(seed)
    gold = random_tags(rng, 40, valid=valid_gold)
    predicted = nearly(rng, gold)
    ours = score_predictions(predictions_of(gold, predicted, lenient_gold=True), ["span_f1_lenient"])
    assert ours["span_f1_lenient"] == pytest.approx(seqeval.metrics.f1_score(gold, predicted))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("valid_gold", [True, False])
def test_sub_token_f1_equals_seqevals_on_repeated_tags(seed: int, valid_gold: bool) -> None:
    rng = np.random.default_rng(seed)
    gold = random_tags(rng, 40, valid=valid_gold)
    predicted = nearly(rng, gold)
    # A word that the tokenizer drops has no sub-tokens.
    pieces = [tuple(rng.integers(0, 4, size=len(row)).tolist()) for row in gold]
    if not valid_gold:
        # Gold spans are what strict reading finds; its tags are valid again.
        gold = [list(spans_to_tags(spans_of(row), words_of(row))[0]) for row in gold]
    predictions = [
        replace(one, pieces=its_pieces) for one, its_pieces in zip(predictions_of(gold, predicted), pieces, strict=True)
    ]
    repeated_gold, repeated = (
        [np.repeat(row, its_pieces).tolist() for row, its_pieces in zip(rows, pieces, strict=True)]
        for rows in (gold, predicted)
    )
    ours = score_predictions(predictions, ["span_f1_subtoken"])["span_f1_subtoken"]
    assert ours == pytest.approx(seqeval.metrics.f1_score(repeated_gold, repeated))


def mentions_of_random_texts(seed: int) -> list[Prediction]:
    """Return random entities of one or two words in texts of five words, many of which occur several times."""
    rng = np.random.default_rng(seed)
    # Different strings are of different length or share no word, so that which of two overlapping ones wins is certain.
    vocabulary = ("a", "bb", "cccc", "dddddddd", "eeeeeeeeeeeeeeee")
    predictions = []
    for number in range(40):
        numbers = rng.integers(len(vocabulary), size=int(rng.integers(1, 13)))
        text, words = join_words([vocabulary[word] for word in numbers])
        pairs = [(first, first + 1) for first in range(len(words) - 1) if numbers[first] < numbers[first + 1]]
        possible = [(word, word) for word in range(len(words))] + pairs
        gold, predicted = (
            tuple(
                Span(words[first][0], words[last][1], TYPES[(numbers[first] + numbers[last]) % len(TYPES)])
                for first, last in possible
                if rng.random() < 0.4
            )
            for _ in range(2)
        )
        predictions.append(Prediction(str(number), gold, predicted, words=words, text=text))
    return predictions


@pytest.mark.parametrize("seed", range(10))
def test_string_set_f1_equals_scikit_learns_of_sets_of_labels(seed: int) -> None:
    predictions = mentions_of_random_texts(seed)
    gold, predicted = (
        [{f"{span.label}:{(one.text or '')[span.start : span.end]}" for span in spans} for one, spans in answers]
        for answers in (
            [(one, one.gold or ()) for one in predictions],
            [(one, one.predicted) for one in predictions],
        )
    )
    indicators = MultiLabelBinarizer().fit([*gold, *predicted])
    theirs = sklearn_metrics.f1_score(indicators.transform(gold), indicators.transform(predicted), average="micro")
    assert score_predictions(predictions, ["entity_string_set_f1"])["entity_string_set_f1"] == pytest.approx(theirs)


@pytest.mark.parametrize("seed", range(10))
def test_occurrences_f1_equals_seqevals_of_tags_marked_by_regular_expressions(seed: int) -> None:
    # Gold entities must fit tags here; the longest of overlapping ones is kept.
    predictions = [replace(one, gold=without_overlaps(one.gold or ())) for one in mentions_of_random_texts(seed)]
    gold, marked = [], []
    for one in predictions:
        text, words = one.text or "", one.words or ()
        gold.append(list(spans_to_tags(one.gold or (), words)[0]))
        tags = ["O"] * len(words)
        strings = {(text[span.start : span.end], span.label) for span in one.predicted}
        for string, label in sorted(strings, key=lambda pair: -len(pair[0])):
            for match in re.finditer(rf"\b{string}\b", text):
                places = [
                    number for number, (start, end) in enumerate(words) if match.start() <= start and end <= match.end()
                ]
                if all(tags[place] == "O" for place in places):
                    tags[places[0]] = f"B-{label}"
                    tags[places[0] + 1 : places[-1] + 1] = [f"I-{label}"] * (len(places) - 1)
        marked.append(tags)
    ours = score_predictions(predictions, ["entity_occurrences_f1"])["entity_occurrences_f1"]
    assert ours == pytest.approx(seqeval.metrics.f1_score(gold, marked, mode="strict", scheme=IOB2))


@pytest.mark.parametrize("seed", range(10))
def test_token_accuracy_equals_seqevals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gold = random_tags(rng, 40, valid=True)
    predicted = nearly(rng, gold)
    ours = score_predictions(predictions_of(gold, predicted), ["token_accuracy"])
    assert ours["token_accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(gold, predicted))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_scores_equal_scikit_learns(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = tuple(f"class-{number}" for number in range(classes))
    # Few rows of many classes, so that some classes are never gold or never predicted; ties in the probabilities.
    rows = int(rng.integers(classes * 2, 40))
    probabilities = rng.dirichlet(np.ones(classes), size=rows).round(1) + 1e-3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    gold = [labels[number] for number in rng.integers(classes, size=rows)]
    predicted = [labels[number] for number in probabilities.argmax(axis=1)]
    predictions = [
        Prediction(
            str(row),
            gold=gold[row],
            predicted=predicted[row],
            probabilities=dict(zip(labels, probabilities[row].tolist(), strict=True)),
        )
        for row in range(rows)
    ]
    ours = score_predictions(predictions, ["accuracy", "macro_f1", "weighted_f1", "roc_auc"], labels)
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(gold, predicted))
    assert ours["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(gold, predicted, average="macro"))
    assert ours["weighted_f1"] == pytest.approx(sklearn_metrics.f1_score(gold, predicted, average="weighted"))
    if len(set(gold)) == classes:
        scores = probabilities[:, 1] if classes == 2 else probabilities
        positive = [label == labels[1] for label in gold] if classes == 2 else gold
        area = sklearn_metrics.roc_auc_score(
            positive, scores, multi_class="ovr", average="macro", labels=None if classes == 2 else labels
        )
        assert ours["roc_auc"] == pytest.approx(area)
    else:
        assert not math.isnan(ours["roc_auc"])

    matrix = confusion_matrix(predictions, labels)
    np.testing.assert_array_equal(matrix.counts, sklearn_metrics.confusion_matrix(gold, predicted, labels=labels))
    report = sklearn_metrics.classification_report(
        gold, predicted, labels=labels, output_dict=True, zero_division=np.nan
    )
    for one in per_label_table(predictions, labels):
        assert one.precision == pytest.approx(report[one.label]["precision"], nan_ok=True)
        assert one.recall == pytest.approx(report[one.label]["recall"], nan_ok=True)
        assert one.support == report[one.label]["support"]


@pytest.mark.parametrize("seed", range(5))
def test_roc_curve_equals_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.4
    scores = (rng.normal(size=200) + positive).round(1)
    predictions = [
        Prediction(str(row), gold="yes" if positive[row] else "no", predicted="no", probabilities={"yes": scores[row]})
        for row in range(200)
    ]
    alarms, hits, _ = sklearn_metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(predictions, "yes"), np.column_stack([alarms, hits]))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_precision_recall_curve_equals_scikit_learns(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < share
    scores = (rng.normal(size=200) + positive).round(1)
    predictions = [
        Prediction(str(row), gold="yes" if positive[row] else "no", predicted="no", probabilities={"yes": scores[row]})
        for row in range(200)
    ]
    precision, recall, _ = sklearn_metrics.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(precision_recall_curve(predictions, "yes"), np.column_stack([recall, precision])[::-1])


def answers_of_some_confidence(seed: int) -> tuple[list[Prediction], np.ndarray, np.ndarray]:
    """Return answers, their confidences (some of them on the edges of bins), and which of them are right."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.4, 1, size=500).round(2)
    right = rng.random(500) < confidences - 0.1
    predictions = [
        Prediction(str(row), gold="a" if right[row] else "b", predicted="a", probabilities={"a": confidences[row]})
        for row in range(500)
    ]
    return predictions, confidences, right


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [1, 5, 10])
def test_reliability_equals_scikit_learns_calibration_curve(seed: int, bins: int) -> None:
    predictions, confidences, right = answers_of_some_confidence(seed)
    accuracy, confidence = calibration_curve(right, confidences, n_bins=bins)
    table = [one for one in reliability_bins(predictions, bins) if one.examples]
    np.testing.assert_allclose([one.accuracy for one in table], accuracy)
    np.testing.assert_allclose([one.confidence for one in table], confidence)
    assert sum(one.examples for one in table) == 500


def test_calibration_error_equals_a_direct_count() -> None:
    predictions, confidences, right = answers_of_some_confidence(0)
    edges = np.linspace(0, 1, 16)
    gap = 0.0
    for low, high in pairwise(edges):
        inside = (confidences > low) & (confidences <= high)
        if inside.any():
            gap += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert score_predictions(predictions, ["calibration_error"])["calibration_error"] == pytest.approx(gap)
    table = reliability_bins(predictions, bins=15)
    gap = sum(one.examples / 500 * abs(one.accuracy - one.confidence) for one in table if one.examples)
    assert score_predictions(predictions, ["calibration_error"])["calibration_error"] == pytest.approx(gap)
