"""Span errors: every entity ends in exactly one row, matched with the best partner it has."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightft.contracts.made_up_runs import tagging_run
from lightft.errors import DataError
from lightft.metrics import SpanErrors, SpanRow, per_label_table, score_predictions, span_errors, span_table
from lightft.metrics.span_errors import OUTCOMES
from lightft.records import Prediction, Span
from lightft.spans import split_words

TEXT = "Angela Merkel met Anna Berg of the United Nations in New York City ."
WORDS = split_words(TEXT)
MERKEL = Span(0, 13, "PER")
BERG = Span(18, 27, "PER")
NATIONS = Span(35, 49, "ORG")
NEW_YORK = Span(53, 66, "LOC")


def entity(string: str, label: str) -> Span:
    start = TEXT.index(string)
    return Span(start, start + len(string), label)


def answered(*predicted: Span, gold: tuple[Span, ...] = (MERKEL, BERG, NATIONS, NEW_YORK)) -> Prediction:
    return Prediction("1", gold=gold, predicted=predicted, words=WORDS)


def outcomes(*predicted: Span, gold: tuple[Span, ...] = (MERKEL, BERG, NATIONS, NEW_YORK)) -> list[str]:
    return [row.outcome for row in span_table([answered(*predicted, gold=gold)])]


def slice_of(errors: SpanErrors, name: str) -> tuple[float, float, int, int]:
    scores = (*errors.by_length, *errors.by_position, *errors.by_novelty)
    (one,) = [score for score in scores if score.label == name]
    return one.precision, one.recall, one.predicted, one.support


# --- matching


def test_every_outcome_is_told_apart() -> None:
    met = entity("met", "MISC")
    wrong_bounds, wrong_type = entity("Merkel", "PER"), replace(BERG, label="ORG")
    wrong_both = entity("United", "LOC")
    rows = span_table([answered(wrong_bounds, met, wrong_type, wrong_both)])
    assert rows == [
        SpanRow("1", MERKEL, wrong_bounds, "wrong bounds"),
        SpanRow("1", None, met, "invented"),
        SpanRow("1", BERG, wrong_type, "wrong type"),
        SpanRow("1", NATIONS, wrong_both, "wrong bounds and type"),
        SpanRow("1", NEW_YORK, None, "missed"),
    ]
    assert outcomes(MERKEL, BERG, NATIONS, NEW_YORK) == ["found"] * 4


def test_one_prediction_over_two_entities_is_matched_with_the_one_it_covers_more_of() -> None:
    both = Span(BERG.start, NATIONS.end, "ORG")
    rows = span_table([answered(both, gold=(BERG, NATIONS))])
    assert rows == [SpanRow("1", BERG, None, "missed"), SpanRow("1", NATIONS, both, "wrong bounds")]


def test_an_entity_predicted_in_two_parts_is_matched_with_the_larger() -> None:
    new, york_city = entity("New", "LOC"), entity("York City", "LOC")
    rows = span_table([answered(new, york_city, gold=(NEW_YORK,))])
    assert rows == [SpanRow("1", None, new, "invented"), SpanRow("1", NEW_YORK, york_city, "wrong bounds")]


@pytest.mark.parametrize(
    ("better", "worse", "outcome"),
    [
        (NEW_YORK, replace(NEW_YORK, label="ORG"), "found"),
        (replace(NEW_YORK, label="ORG"), entity("York City", "LOC"), "wrong type"),
        (entity("New", "LOC"), entity("York City", "ORG"), "wrong bounds"),
        (entity("York City", "ORG"), entity("New", "PER"), "wrong bounds and type"),
    ],
)
def test_the_better_match_is_taken_whatever_the_order(better: Span, worse: Span, outcome: str) -> None:
    for predicted in ((better, worse), (worse, better)):
        rows = span_table([answered(*predicted, gold=(NEW_YORK,))])
        assert {(row.predicted, row.outcome) for row in rows} == {(better, outcome), (worse, "invented")}


def test_of_equal_overlaps_the_first_is_taken() -> None:
    anna, berg = entity("Anna", "PER"), entity("Berg", "PER")
    assert [(row.predicted, row.outcome) for row in span_table([answered(berg, anna, gold=(BERG,))])] == [
        (anna, "wrong bounds"),
        (berg, "invented"),
    ]


def test_neighbours_do_not_touch() -> None:
    glued = Prediction("1", gold=(Span(0, 3, "LOC"),), predicted=(Span(3, 5, "LOC"),))
    assert [row.outcome for row in span_table([glued])] == ["missed", "invented"]


def test_the_row_holds_the_prediction_with_its_score() -> None:
    (row,) = span_table([answered(replace(MERKEL, score=0.25), gold=(MERKEL,))])
    assert (row.predicted.score, row.gold.score) == (0.25, None)  # type: ignore[union-attr]


def test_classes_have_no_span_errors() -> None:
    with pytest.raises(DataError, match="'span errors' cannot score prediction '1': it compares spans"):
        span_table([Prediction("1", gold="a", predicted="b")])
    with pytest.raises(DataError, match="has no gold answer"):
        span_errors([Prediction("1", gold=None, predicted=())])


SPANS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 5), st.sampled_from("AB")).map(
        lambda drawn: Span(drawn[0], drawn[0] + drawn[1], drawn[2])
    ),
    max_size=6,
).map(tuple)
PREDICTIONS = st.lists(st.builds(Prediction, id=st.just("1"), gold=SPANS, predicted=SPANS), max_size=4)


@given(PREDICTIONS)
def test_every_entity_stands_in_exactly_one_row(predictions: list[Prediction]) -> None:
    rows = span_table(predictions)
    gold = Counter(span for prediction in predictions for span in set(prediction.gold or ()))
    predicted = Counter(span for prediction in predictions for span in set(prediction.predicted))
    assert Counter(row.gold for row in rows if row.gold) == gold
    assert Counter(row.predicted for row in rows if row.predicted) == predicted


@given(PREDICTIONS)
def test_counts_add_up_to_gold_and_predicted(predictions: list[Prediction]) -> None:
    errors = span_errors(predictions)
    gold = sum(len(set(prediction.gold or ())) for prediction in predictions)
    predicted = sum(len(set(prediction.predicted)) for prediction in predictions)
    assert sum(errors.kinds.values()) - errors.kinds["invented"] == gold
    assert sum(errors.kinds.values()) - errors.kinds["missed"] == predicted
    assert sum(map(sum, errors.confusion.counts)) + sum(errors.confusion.other) == gold
    assert sum(map(sum, errors.confusion.counts)) + sum(errors.invented.values()) == predicted
    assert sum(errors.confusion.other) == errors.kinds["missed"]


@given(PREDICTIONS)
def test_no_pair_that_touches_is_left_over(predictions: list[Prediction]) -> None:
    for prediction in predictions:
        rows = span_table([prediction])
        missed = [row.gold for row in rows if row.gold and not row.predicted]
        invented = [row.predicted for row in rows if row.predicted and not row.gold]
        assert not any(one.start < other.end and other.start < one.end for one in missed for other in invented)


@given(PREDICTIONS, st.randoms())
def test_the_order_of_the_spans_is_irrelevant(predictions: list[Prediction], random: object) -> None:
    shuffled = [
        replace(one, gold=tuple(random.sample(one.gold, len(one.gold))), predicted=one.predicted[::-1])  # type: ignore[attr-defined]
        for one in predictions
    ]
    assert span_table(shuffled) == span_table(predictions)


@given(PREDICTIONS)
def test_found_entities_are_those_of_span_f1(predictions: list[Prediction]) -> None:
    kinds = span_errors(predictions).kinds
    gold = sum(kinds.values()) - kinds["invented"]
    predicted = sum(kinds.values()) - kinds["missed"]
    expected = 2 * kinds["found"] / (gold + predicted) if gold + predicted else math.nan
    assert score_predictions(predictions, ["span_f1"])["span_f1"] == pytest.approx(expected, nan_ok=True)


# --- what is counted


def test_outcomes_are_listed_even_where_there_are_none() -> None:
    errors = span_errors([answered(MERKEL, gold=(MERKEL,))])
    assert errors.kinds == {**dict.fromkeys(OUTCOMES, 0), "found": 1}
    assert span_errors([]).kinds == dict.fromkeys(OUTCOMES, 0)


def test_types_of_matched_entities_are_confused_and_others_stand_apart() -> None:
    errors = span_errors(
        [answered(entity("Merkel", "ORG"), BERG, NATIONS, entity("met", "MISC"))], labels=("O", "B-ORG", "I-ORG")
    )
    assert errors.confusion.labels == ("ORG", "LOC", "MISC", "PER")
    assert errors.confusion.counts == ((1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (1, 0, 0, 1))
    assert errors.confusion.other == (0, 1, 0, 0)
    assert errors.invented == {"ORG": 0, "LOC": 0, "MISC": 1, "PER": 0}


def test_slices_by_length_count_words_the_entity_covers() -> None:
    errors = span_errors([answered(MERKEL, entity("Berg", "PER"), entity("the United Nations in", "ORG"), NEW_YORK)])
    assert [score.label for score in errors.by_length] == ["1 word", "2 words", "3 words", "4 or more words"]
    assert slice_of(errors, "2 words") == (1.0, 1 / 3, 1, 3)
    assert slice_of(errors, "3 words") == (1.0, 1.0, 1, 1)
    assert slice_of(errors, "1 word") == (0.0, pytest.approx(math.nan, nan_ok=True), 1, 0)
    assert slice_of(errors, "4 or more words")[2:] == (1, 0)


def test_part_of_a_word_counts_as_a_word() -> None:
    errors = span_errors([answered(Span(0, 3, "PER"), Span(3, 9, "PER"), gold=())])
    assert [score.predicted for score in errors.by_length] == [1, 1, 0, 0]


def test_slices_by_position_are_thirds_of_the_words() -> None:
    errors = span_errors([answered(MERKEL, BERG)])
    # Fourteen words; the entities begin at words 0, 3, 7 and 10.
    assert slice_of(errors, "first third") == (1.0, 1.0, 2, 2)
    assert slice_of(errors, "middle third")[1:] == (0.0, 0, 1)
    assert slice_of(errors, "last third")[1:] == (0.0, 0, 1)


def test_words_of_the_text_stand_in_for_those_of_the_corpus() -> None:
    with_words = answered(MERKEL, entity("Berg", "PER"))
    with_text = replace(with_words, words=None, text=TEXT)
    # As text, for a score that is undefined equals none.
    assert str(span_errors([with_text]).by_length) == str(span_errors([with_words]).by_length)
    assert [score.support for score in span_errors([with_text]).by_position] == [2, 1, 1]


def test_without_words_or_text_lengths_are_characters_and_positions_unknown() -> None:
    errors = span_errors([replace(answered(MERKEL), words=None), answered(MERKEL)])
    assert [(score.label, score.support) for score in errors.by_length] == [
        ("1 to 5 characters", 0),
        ("6 to 10 characters", 2),
        ("11 to 20 characters", 6),
        ("21 or more characters", 0),
    ]
    assert errors.by_position == ()


def test_seen_and_new_entities_are_told_apart_by_their_case_folded_string() -> None:
    prediction = replace(answered(MERKEL, entity("Berg", "PER")), text=TEXT)
    errors = span_errors([prediction], seen={"angela merkel", "new york city"})
    assert slice_of(errors, "seen in training") == (1.0, 0.5, 1, 2)
    assert slice_of(errors, "new") == (0.0, 0.0, 1, 2)
    assert [score.support for score in span_errors([prediction], seen=()).by_novelty] == [0, 4]


def test_novelty_is_unknown_without_texts_or_without_training_entities() -> None:
    with_text = replace(answered(MERKEL), text=TEXT)
    assert span_errors([with_text]).by_novelty == ()
    assert span_errors([with_text, answered(MERKEL)], seen={"angela merkel"}).by_novelty == ()


def test_slices_add_up_to_the_scores_per_label() -> None:
    run = tagging_run("a", skill=0.7, examples=200)
    errors = span_errors(run.predictions, run.labels, seen={"00000"})
    table = per_label_table(run.predictions, run.labels)
    for scores in (errors.by_length, errors.by_position, errors.by_novelty):
        assert sum(score.support for score in scores) == sum(one.support for one in table)
        assert sum(score.predicted for score in scores) == sum(one.predicted for one in table)
        found = [round(score.recall * score.support) for score in scores if score.support]
        assert sum(found) == errors.kinds["found"]
