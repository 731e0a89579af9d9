"""Examples as all runs answered them: aligned by id, the most telling first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightft.comparison.examples import compared_examples, is_right
from lightft.errors import DataError
from lightft.records import Example, Prediction, Run, Span


def run_of(name: str, answers: dict[str, str], gold: str = "yes") -> Run:
    predictions = tuple(Prediction(id, gold=gold, predicted=answer) for id, answer in answers.items())
    return Run(name, "text-classification", ("accuracy",), predictions=predictions)


def examples_of(*ids: str) -> list[Example]:
    return [Example(id, f"text {id}", "yes") for id in ids]


def test_disagreements_come_first_then_what_all_got_wrong_then_what_all_got_right() -> None:
    answers = {"a": "yes yes yes", "b": "no no no", "c": "yes no no", "d": "no yes yes", "e": "yes yes no"}
    runs = [run_of(f"run-{n}", {id: row.split()[n] for id, row in answers.items()}) for n in range(3)]
    compared = compared_examples(runs, examples_of(*"edcba"), most=40)
    assert [(one.id, one.right) for one in compared] == [("c", 1), ("d", 2), ("e", 2), ("b", 0), ("a", 3)]
    assert compared[0].text == "text c"
    assert compared[0].predicted == {"run-0": "yes", "run-1": "no", "run-2": "no"}


def test_the_most_even_split_is_at_the_top() -> None:
    answers = {"a": "yes no no no", "b": "yes yes no no", "c": "no yes yes yes", "d": "no no yes yes"}
    runs = [run_of(f"run-{n}", {id: row.split()[n] for id, row in answers.items()}) for n in range(4)]
    assert [one.id for one in compared_examples(runs, examples_of(*"abcd"))] == ["b", "d", "a", "c"]


def test_places_are_kept_for_what_all_got_wrong_and_a_few_for_what_all_got_right() -> None:
    ids = [f"{kind}{n}" for kind in "dwr" for n in range(100)]
    first = run_of("first", {id: "no" if id[0] == "w" else "yes" for id in ids})
    second = run_of("second", {id: "yes" if id[0] == "r" else "no" for id in ids})
    kinds = "".join(one.id[0] for one in compared_examples([first, second], examples_of(*ids), most=40))
    assert kinds == "d" * 26 + "w" * 10 + "r" * 4
    kinds = "".join(one.id[0] for one in compared_examples([first, first], examples_of(*ids), most=40))
    assert kinds == "w" * 36 + "d" * 4


def test_runs_in_another_order_are_aligned_by_id() -> None:
    first = run_of("first", {"a": "yes", "b": "no"})
    second = replace(first, name="second", predictions=first.predictions[::-1])
    assert {one.id: one.right for one in compared_examples([first, second], examples_of("a", "b", "c"), most=20)} == {
        "a": 2,
        "b": 0,
    }


def test_what_not_all_runs_answered_is_left_out() -> None:
    runs = [run_of("first", {"a": "yes", "b": "no"}), run_of("second", {"b": "yes"})]
    assert [one.id for one in compared_examples(runs, examples_of("a", "b"))] == ["b"]


@pytest.mark.parametrize(
    ("gold", "predicted", "right"),
    [
        ("a b", " a  b\n", True),
        ("a b", "ab", False),
        ((Span(0, 1, "A"), Span(2, 3, "B")), (Span(2, 3, "B"), Span(0, 1, "A")), True),
        ((Span(0, 1, "A"),), (Span(0, 1, "B"),), False),
        ((), (), True),
        ((Span(0, 1, "A"),), "A", False),
    ],
)
def test_an_answer_is_right_in_any_order_and_whatever_the_spaces(
    gold: str | tuple[Span, ...], predicted: str | tuple[Span, ...], right: bool
) -> None:
    assert is_right(gold, predicted) == right


def test_a_missing_text_is_named() -> None:
    with pytest.raises(DataError, match="lack 'b'"):
        compared_examples([run_of("first", {"a": "yes", "b": "no"})], examples_of("a"))


def test_a_span_beyond_the_text_is_refused() -> None:
    prediction = Prediction("a", gold=(Span(0, 3, "A"),), predicted=(Span(0, 9, "A"),))
    run = Run("first", "token-classification", ("span_f1",), predictions=(prediction,))
    with pytest.raises(DataError, match="'a' has an entity from character 0 to 9, but its text has 5"):
        compared_examples([run], [Example("a", "abcde", (Span(0, 3, "A"),))])


def test_predictions_without_gold_are_refused() -> None:
    run = Run("first", "text-classification", ("accuracy",), predictions=(Prediction("a", gold=None, predicted="x"),))
    with pytest.raises(DataError, match="'a' has no gold answer"):
        compared_examples([run], examples_of("a"))


def test_no_runs_have_no_examples() -> None:
    assert compared_examples([], examples_of("a")) == ()
