"""Metrics: what counts, what is undefined, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightft.errors import DataError, InvalidPluginError, UnknownNameError
from lightft.metrics import (
    METRICS,
    build_metric,
    confusion_matrix,
    labels_of,
    per_label_table,
    roc_curve,
    score_predictions,
)
from lightft.records import Prediction, Span

WORDS = ((0, 6), (7, 13), (14, 21), (22, 27))
MERKEL = Span(0, 13, "PER")
PARIS = Span(22, 27, "LOC")


def tagged(gold: tuple[Span, ...], predicted: tuple[Span, ...], tags: tuple[str, ...] | None = None) -> Prediction:
    return Prediction("1", gold=gold, predicted=predicted, words=WORDS, tags=tags)


def classified(gold: str, predicted: str, **probabilities: float) -> Prediction:
    return Prediction("1", gold=gold, predicted=predicted, probabilities=probabilities or None)


def test_a_span_counts_when_start_end_and_label_match() -> None:
    predicted = (MERKEL, Span(22, 27, "ORG"), Span(7, 13, "PER"))
    scores = score_predictions([tagged((MERKEL, PARIS), predicted)], ["span_precision", "span_recall", "span_f1"])
    assert scores == {"span_precision": 1 / 3, "span_recall": 1 / 2, "span_f1": 2 / 5}


def test_truncated_entity_counts_as_missed() -> None:
    cut_off = tagged((MERKEL, PARIS), (MERKEL,), tags=("B-PER", "I-PER", "O", "O"))
    assert score_predictions([cut_off], ["span_recall"]) == {"span_recall": 0.5}


def test_a_span_predicted_twice_counts_once() -> None:
    assert score_predictions([tagged((MERKEL,), (MERKEL, MERKEL))], ["span_precision"]) == {"span_precision": 1.0}


def test_scores_and_texts_of_spans_do_not_matter() -> None:
    predicted = Span(0, 13, "PER", text="Angela Merkel", score=0.4)
    assert score_predictions([tagged((MERKEL,), (predicted,))], ["span_f1"]) == {"span_f1": 1.0}


def test_a_lone_inside_tag_counts_only_leniently() -> None:
    prediction = tagged((MERKEL,), (), tags=("I-PER", "I-PER", "O", "O"))
    scores = score_predictions([prediction], ["span_f1", "span_f1_lenient"])
    assert scores == {"span_f1": 0.0, "span_f1_lenient": 1.0}


def test_lenient_f1_of_a_model_without_tags_is_that_of_its_spans() -> None:
    scores = score_predictions([tagged((MERKEL, PARIS), (PARIS,))], ["span_f1", "span_f1_lenient"])
    assert scores["span_f1"] == scores["span_f1_lenient"] == 2 / 3


@pytest.mark.parametrize("metric", ["span_f1", "span_precision", "span_recall", "span_f1_lenient", "span_f1_macro"])
def test_scores_of_nothing_to_find_and_nothing_found_are_undefined(metric: str) -> None:
    assert math.isnan(score_predictions([tagged((), ())], [metric])[metric])


def test_precision_without_predictions_is_undefined_but_f1_is_zero() -> None:
    scores = score_predictions([tagged((MERKEL,), ())], ["span_precision", "span_recall", "span_f1"])
    assert math.isnan(scores["span_precision"])
    assert scores["span_recall"] == scores["span_f1"] == 0.0


def test_every_score_of_no_predictions_is_undefined() -> None:
    assert all(math.isnan(score) for score in score_predictions([], [*METRICS]).values())


def test_token_accuracy_reads_the_tags_as_the_model_gave_them() -> None:
    prediction = tagged((MERKEL,), (), tags=("B-PER", "O", "I-LOC", "O"))
    assert score_predictions([prediction], ["token_accuracy"]) == {"token_accuracy": 0.5}


def test_token_accuracy_without_words_is_undefined_for_the_whole_set() -> None:
    without_words = Prediction("2", gold=(), predicted=())
    score = score_predictions([tagged((MERKEL,), (MERKEL,)), without_words], ["token_accuracy"])["token_accuracy"]
    assert math.isnan(score)


def test_tags_that_do_not_fit_the_words_are_refused() -> None:
    broken = Prediction("7", gold=(MERKEL,), predicted=(), words=WORDS, tags=("O",))
    for metric in ("token_accuracy", "span_f1_lenient"):
        with pytest.raises(DataError, match="'7' has 1 tags for 4 words"):
            score_predictions([broken], [metric])


def test_macro_f1_leaves_out_classes_that_never_occur() -> None:
    predictions = [classified("a", "a"), classified("b", "a")]
    scores = score_predictions(predictions, ["macro_f1"], labels=("a", "b", "never"))
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_an_answer_that_is_no_label_is_a_miss() -> None:
    predictions = [classified("a", "a"), classified("a", "I would say a")]
    scores = score_predictions(predictions, ["accuracy", "weighted_f1"], labels=("a", "b"))
    assert scores == {"accuracy": 0.5, "weighted_f1": pytest.approx(2 / 3)}


def test_roc_auc_counts_ties_half() -> None:
    predictions = [
        classified("no", "no", no=0.5, yes=0.5),
        classified("yes", "no", no=0.5, yes=0.5),
        classified("no", "no", no=0.9, yes=0.1),
    ]
    assert score_predictions(predictions, ["roc_auc"], ("no", "yes")) == {"roc_auc": 0.75}


def test_roc_auc_is_undefined_without_probabilities_or_with_one_class() -> None:
    without = [classified("no", "no"), classified("yes", "yes", no=0.1, yes=0.9)]
    one_class = [classified("yes", "yes", no=0.1, yes=0.9)] * 3
    for predictions in (without, one_class):
        assert math.isnan(score_predictions(predictions, ["roc_auc"], ("no", "yes"))["roc_auc"])


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    predictions = [classified("yes", "yes", yes=0.8), classified("no", "yes", yes=0.8)]
    assert score_predictions(predictions, ["calibration_error"])["calibration_error"] == pytest.approx(0.3)


def test_perplexity_is_over_all_tokens_together() -> None:
    predictions = [
        Prediction("1", gold="x", predicted="x", log_likelihood=-10.0, target_tokens=5),
        Prediction("2", gold="y", predicted="y", log_likelihood=-1.0, target_tokens=15),
    ]
    scores = score_predictions(predictions, ["perplexity", "log_likelihood"])
    assert scores == {"perplexity": pytest.approx(math.exp(11 / 20)), "log_likelihood": -11 / 20}


def test_perplexity_is_undefined_when_one_prediction_lacks_its_likelihood() -> None:
    predictions = [
        Prediction("1", gold="x", predicted="x", log_likelihood=-10.0, target_tokens=5),
        Prediction("2", gold="y", predicted="y"),
    ]
    assert math.isnan(score_predictions(predictions, ["perplexity"])["perplexity"])


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ("the red cat", "A red, red cat!", 2 * 2 / (2 + 3)),
        ("Paris", "Rome", 0.0),
        ("", "", 1.0),
        ("", "something", 0.0),
        ("42", " 42. ", 1.0),
    ],
)
def test_answer_f1_compares_words(gold: str, predicted: str, expected: float) -> None:
    assert score_predictions([classified(gold, predicted)], ["answer_f1"])["answer_f1"] == pytest.approx(expected)


def test_exact_match_forgives_white_space_only() -> None:
    predictions = [classified("a b", " a\n b "), classified("a b", "A b")]
    assert score_predictions(predictions, ["exact_match"]) == {"exact_match": 0.5}


def test_thousands_of_totals_are_scored_at_once() -> None:
    totals = np.random.default_rng(0).integers(0, 9, size=(5, 7, 3)).astype(float)
    metric = build_metric("span_f1")
    together = metric.score(totals)  # type: ignore[arg-type, union-attr]
    one_by_one = [[float(metric.score(row)) for row in plane] for plane in totals]  # type: ignore[arg-type]
    np.testing.assert_array_equal(together, one_by_one)


def test_a_prediction_without_gold_answer_is_refused() -> None:
    with pytest.raises(DataError, match="'1': it has no gold answer"):
        score_predictions([Prediction("1", gold=None, predicted="x")], ["accuracy"])


def test_a_metric_of_another_task_is_refused_without_showing_the_answer() -> None:
    with pytest.raises(DataError, match="compares spans, but the gold answer is text") as caught:
        score_predictions([classified("my secret", "x")], ["span_f1"])
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError, match="compares a class or a text, but the gold answer is spans"):
        score_predictions([tagged((), ())], ["accuracy"])


def test_an_unknown_metric_suggests_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"No metric named 'acuracy'\. Did you mean 'accuracy'"):
        score_predictions([], ["acuracy"])


class _Half:
    unit = "fraction"
    higher_is_better = True

    def __init__(self, name: str = "half") -> None:
        self.name = name

    def score(self, predictions: object) -> float:
        return 0.5


def test_another_package_can_add_a_metric() -> None:
    METRICS.add("half", _Half)
    try:
        assert score_predictions([classified("a", "b")], ["half"]) == {"half": 0.5}
    finally:
        METRICS.remove("half")


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (_Half("wrong"), "Register the class"),
        (lambda: _Half("other"), "calls itself 'other'"),
        (lambda scale: _Half(), "needs scale"),
        (lambda: object(), "has no name, unit, higher_is_better, score"),
    ],
)
def test_an_unfit_metric_is_refused_when_it_registers(plugin: object, message: str) -> None:
    with pytest.raises(InvalidPluginError, match=message):
        METRICS.add("unfit", plugin)  # type: ignore[arg-type]
    assert "unfit" not in METRICS


def test_the_table_of_labels_holds_what_the_labels_given_do_not() -> None:
    table = per_label_table([tagged((MERKEL, PARIS), (MERKEL, Span(14, 21, "MISC")))], labels=("PER", "ORG"))
    assert [(one.label, one.support, one.predicted) for one in table] == [
        ("PER", 1, 1),
        ("ORG", 0, 0),
        ("LOC", 1, 0),
        ("MISC", 0, 1),
    ]
    assert math.isnan(table[1].f1)
    assert math.isnan(table[2].precision)
    assert table[2].recall == table[2].f1 == 0.0


def test_bio_tags_given_as_labels_are_read_as_types() -> None:
    assert labels_of([], ("O", "B-creative-work", "I-creative-work", "B-PER", "I-PER")) == ("creative-work", "PER")


def test_the_confusion_matrix_keeps_answers_that_are_no_label_apart() -> None:
    matrix = confusion_matrix([classified("a", "b"), classified("a", "maybe"), classified("b", "b")], ("a", "b"))
    assert matrix.labels == ("a", "b")
    assert matrix.counts == ((0, 1), (0, 1))
    assert matrix.other == (1, 0)


def test_a_roc_curve_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(DataError, match="Did you mean 'yes'"):
        roc_curve([classified("yes", "yes", no=0.1, yes=0.9)], "yess")


LOCAL_METRIC = """
import datasets
import evaluate


class ShareOfEqual(evaluate.Metric):
    def _info(self):
        kind = datasets.Value("int64") if self.config_name != "text" else datasets.Value("string")
        features = datasets.Features({"predictions": kind, "references": kind})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        right = sum(a == b for a, b in zip(predictions, references))
        return {"equal": right / len(references), "rows": len(references)}
"""


def test_a_metric_of_evaluate_is_found_by_its_name(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("evaluate")
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "equal"
    folder.mkdir()
    (folder / "equal.py").write_text(LOCAL_METRIC)
    predictions = [classified("b", "b"), classified("a", "b")]
    name = f"evaluate:{folder}:equal"
    assert score_predictions(predictions, [name], ("a", "b")) == {name: 0.5}


def test_a_metric_of_evaluate_that_cannot_be_fetched_says_what_to_do(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("evaluate")
    with pytest.raises(DataError, match="without network, name a folder"):
        score_predictions([classified("a", "a")], [f"evaluate:{tmp_path}/no_such_metric"])
