"""F1 as others count it: what makes each number differ from the strict one, and what it needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import seqeval.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import lightft
from lightft import Example, Prediction, Span
from lightft.errors import DataError
from lightft.metrics import build_metric, per_label_table, score_predictions, span_errors
from lightft.metrics.published_f1 import all_occurrences, normalized
from lightft.spans import join_words, split_words
from lightft.tasks import TokenClassification
from tests.tiny_models import TOKENIZERS, TYPES, tagged_texts, tokenizer_of

TEXT_METRICS = ("entity_strings_f1", "entity_string_set_f1", "entity_occurrences_f1")


def found_in(text: str, *strings: tuple[str, str]) -> tuple[Span, ...]:
    """Return spans of (string, type) pairs, a repeated string at its next place."""
    spans: list[Span] = []
    searched_to: dict[str, int] = {}
    for string, label in strings:
        start = text.index(string, searched_to.get(string, 0))
        searched_to[string] = start + len(string)
        spans.append(Span(start, start + len(string), label))
    return tuple(spans)


def answer(text: str, gold: Sequence[tuple[str, str]], predicted: Sequence[tuple[str, str]]) -> Prediction:
    return Prediction("1", gold=found_in(text, *gold), predicted=found_in(text, *predicted), text=text)


def counts(name: str, prediction: Prediction) -> tuple[float, ...]:
    return build_metric(name).counts(prediction)  # type: ignore[union-attr]


# --- sub-tokens

WORDS = ((0, 6), (7, 13), (14, 21), (22, 27))
MERKEL = Span(0, 13, "PER")
PARIS = Span(22, 27, "LOC")


def test_each_sub_token_of_a_first_word_is_an_entity() -> None:
    right = Prediction("1", gold=(MERKEL, PARIS), predicted=(MERKEL,), words=WORDS, pieces=(1, 2, 1, 3))
    assert counts("span_f1_subtoken", right) == (1, 1, 4)
    split = replace(right, pieces=(2, 2, 1, 1))
    assert counts("span_f1_subtoken", split) == (2, 2, 3)


def test_an_error_weighs_by_the_sub_tokens_of_the_word() -> None:
    prediction = Prediction("1", gold=(MERKEL, PARIS), predicted=(MERKEL,), words=WORDS, pieces=(1, 1, 1, 5))
    scores = score_predictions([prediction], ["span_f1", "span_f1_subtoken"])
    assert scores == {"span_f1": 2 / 3, "span_f1_subtoken": 2 * 1 / (1 + 6)}


def test_sub_tokens_carry_the_tags_as_the_model_gave_them() -> None:
    stray = Prediction(
        "1", gold=(PARIS,), predicted=(), words=WORDS, tags=("O", "O", "O", "I-LOC"), pieces=(1, 1, 1, 1)
    )
    assert counts("span_f1_subtoken", stray) == (1, 1, 1)
    assert counts("span_f1", stray) == (0, 0, 1)


def test_entities_that_tags_cannot_hold_still_count() -> None:
    half = Span(0, 3, "PER")
    prediction = Prediction("1", gold=(half,), predicted=(Span(14, 17, "LOC"),), words=WORDS, pieces=(1, 1, 1, 1))
    assert counts("span_f1_subtoken", prediction) == (0, 1, 1)


def test_an_answer_without_sub_tokens_is_refused() -> None:
    for without in (Prediction("7", (MERKEL,), ()), Prediction("7", (MERKEL,), (), words=WORDS)):
        with pytest.raises(DataError, match=r"prediction '7': it has no sub-tokens\. Compare taggers under it"):
            counts("span_f1_subtoken", without)


def test_sub_tokens_that_do_not_fit_the_words_are_refused() -> None:
    with pytest.raises(DataError, match="'7' has 4 tags and 2 numbers of sub-tokens for 4 words"):
        counts("span_f1_subtoken", Prediction("7", (MERKEL,), (), words=WORDS, pieces=(1, 1)))


class Told(nn.Module):
    """A model that gives the logits it was told to, for rows in their order."""

    def __init__(self, labels: Sequence[Sequence[int]], outputs: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.labels = [torch.tensor([max(label, 0) for label in row]) for row in labels]
        self.outputs = outputs

    def get_output_embeddings(self) -> None:
        """Say that this is no language model, as transformers' models do."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        del attention_mask
        told, self.labels = self.labels[: len(input_ids)], self.labels[len(input_ids) :]
        padded = nn.utils.rnn.pad_sequence(told, batch_first=True)
        return SimpleNamespace(logits=30.0 * nn.functional.one_hot(padded, self.outputs))


def predicted_as(
    head: TokenClassification, kind: str, examples: Sequence[Example], max_length: int
) -> list[Prediction]:
    """Return the predictions of a model that believes the targets of ``examples``, one at a time."""
    tokenizer = tokenizer_of(kind, model_max_length=10**6)
    predictions = []
    for example in examples:
        encodings, _ = head.encode([example], tokenizer, max_length)
        # Rows are answered from the longest to the shortest, equally long ones in their order.
        rows = sorted((encoding.labels for encoding in encodings), key=len, reverse=True)
        model: Any = Told(rows, len(head.tags))
        predictions += head.predict(model, tokenizer, [example], max_length=max_length)
    return predictions


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("max_length", [9, 64])
def test_a_tagger_says_how_many_sub_tokens_each_word_has(kind: str, max_length: int) -> None:
    examples = tagged_texts()
    predictions = predicted_as(TokenClassification(labels=TYPES), kind, examples, max_length)
    for example, prediction in zip(examples, predictions, strict=True):
        encoded = tokenizer_of(kind)(example.text, return_offsets_mapping=True, add_special_tokens=False)
        # Offsets may include the space before a word; what lies in it ends inside the word.
        ends = [end for start, end in encoded["offset_mapping"] if example.text[start:end].strip()]
        assert prediction.pieces == tuple(sum(low < end <= high for end in ends) for low, high in example.words or ())
        assert prediction.text == example.text


def test_pieces_are_those_that_transformers_counts_on_words() -> None:
    examples = tagged_texts()
    predictions = predicted_as(TokenClassification(labels=TYPES), "wordpiece", examples, 64)
    for example, prediction in zip(examples, predictions, strict=True):
        word_ids = tokenizer_of("wordpiece")(example.text.split(" "), is_split_into_words=True).word_ids()
        assert prediction.pieces == tuple(word_ids.count(number) for number in range(len(example.words or ())))
    assert max(max(prediction.pieces or ()) for prediction in predictions) > 1


# --- strings


def test_the_place_of_a_string_does_not_matter_but_its_number_does() -> None:
    text = "Paris loves Paris and Rome"
    gold = [("Paris", "LOC"), ("Paris", "PER"), ("Rome", "LOC")]
    prediction = replace(answer(text, gold, []), predicted=(Span(12, 17, "LOC"), Span(22, 26, "LOC")))
    assert counts("span_f1", prediction) == (1, 2, 3)
    assert counts("entity_strings_f1", prediction) == (2, 2, 3)
    twice = answer("Paris or Paris", [("Paris", "LOC"), ("Paris", "LOC")], [("Paris", "LOC")])
    assert counts("entity_strings_f1", twice) == (1, 1, 2)
    assert counts("entity_string_set_f1", twice) == (1, 1, 1)


def test_strings_are_of_one_text_only() -> None:
    here = answer("Paris", [("Paris", "LOC")], [])
    there = answer("Paris", [], [("Paris", "LOC")])
    assert score_predictions([here, there], TEXT_METRICS) == dict.fromkeys(TEXT_METRICS, 0.0)


def test_type_matters_in_every_number() -> None:
    prediction = answer("Paris", [("Paris", "LOC")], [("Paris", "PER")])
    assert score_predictions([prediction], TEXT_METRICS) == dict.fromkeys(TEXT_METRICS, 0.0)


def test_only_the_set_of_strings_is_normalised() -> None:
    prediction = answer("The “New\n York” is new york .", [("“New\n York”", "LOC")], [("new york", "LOC")])
    assert score_predictions([prediction], TEXT_METRICS) == {
        "entity_strings_f1": 0.0,
        "entity_string_set_f1": 1.0,
        "entity_occurrences_f1": 0.0,
    }


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("  New \u00a0 York\n", "new york"),
        ("(U.S.)", "u.s"),
        ("“Straße”", "strasse"),
        ("\uff2e\uff21\uff34\uff2f", "nato"),  # full-width letters
        ("ﬁlm", "film"),
        ("' 60s '", "60s"),
        ("AT&T", "at&t"),
        ("$5", "$5"),
        ("!!!", "!!!"),
        ("", ""),
    ],
)
def test_normalised_strings(string: str, expected: str) -> None:
    assert normalized(string) == expected


# --- all occurrences


def test_a_string_is_marked_wherever_it_stands() -> None:
    text = "Paris , Paris and Parisians love Paris."
    gold = [("Paris", "LOC")] * 2
    prediction = answer(text, gold, [("Paris", "LOC")])
    assert all_occurrences(prediction.predicted, text) == {
        Span(0, 5, "LOC"),
        Span(8, 13, "LOC"),
        Span(33, 38, "LOC"),
    }
    assert counts("entity_occurrences_f1", prediction) == (2, 3, 2)
    assert counts("span_f1", prediction) == (1, 1, 2)


def test_the_longer_of_two_strings_is_marked() -> None:
    text = "New York Times in New York"
    predicted = found_in(text, ("New York", "LOC"), ("New York Times", "ORG"))
    assert all_occurrences(predicted, text) == {Span(0, 14, "ORG"), Span(18, 26, "LOC")}


def test_of_equally_long_strings_the_first_is_marked() -> None:
    text = "a b a"
    assert all_occurrences({Span(2, 5, "X"), Span(0, 3, "Y")}, text) == {Span(0, 3, "Y")}
    assert all_occurrences({Span(0, 1, "B"), Span(0, 1, "A")}, text) == {Span(0, 1, "A"), Span(4, 5, "A")}


def test_a_string_that_stands_between_no_words_stays_where_it_was_predicted() -> None:
    text = "Parisians or Parisienne"
    assert all_occurrences({Span(13, 18, "LOC")}, text) == {Span(13, 18, "LOC")}


def test_scripts_without_spaces_have_a_word_at_each_character() -> None:
    text = "在北京市和北京站"
    assert all_occurrences({Span(1, 3, "LOC")}, text) == {Span(1, 3, "LOC"), Span(5, 7, "LOC")}


def test_words_of_the_corpus_do_not_change_what_is_marked() -> None:
    text = "U.S. and U"
    prediction = replace(answer(text, [("U.S.", "LOC")], []), predicted=(Span(9, 10, "LOC"),))
    in_corpus_words = replace(prediction, words=((0, 4), (5, 8), (9, 10)))
    assert counts("entity_occurrences_f1", in_corpus_words) == counts("entity_occurrences_f1", prediction) == (0, 2, 1)


@pytest.mark.parametrize("metric", TEXT_METRICS)
def test_without_a_text_the_next_step_is_named(metric: str) -> None:
    with pytest.raises(
        DataError, match=rf"'{metric}' cannot score prediction '7'.*Give examples=data\.test to compare"
    ):
        counts(metric, Prediction("7", gold=(), predicted=()))


# --- all of them

LETTERS = st.lists(st.sampled_from(["Ann", "Bo", "Rome", "at"]), min_size=1, max_size=8)


@given(LETTERS, st.data())
def test_strings_without_places_never_score_below_spans(tokens: list[str], data: st.DataObject) -> None:
    text, words = join_words(tokens)
    spans = st.sets(st.tuples(st.sampled_from(words), st.sampled_from("AB")).map(lambda one: Span(*one[0], one[1])))
    prediction = Prediction("1", tuple(data.draw(spans)), tuple(data.draw(spans)), text=text)
    strict, strings = counts("span_f1", prediction), counts("entity_strings_f1", prediction)
    assert strings[0] >= strict[0]
    assert strings[1:] == strict[1:]


def test_perfect_answers_are_perfect_in_every_number() -> None:
    text = "Anna met Bert in Rome"
    gold = found_in(text, ("Anna", "PER"), ("Bert", "PER"), ("Rome", "LOC"))
    prediction = Prediction("1", gold, gold, words=split_words(text), pieces=(1, 1, 2, 1, 3), text=text)
    names = ("span_f1", "span_f1_lenient", "span_f1_subtoken", *TEXT_METRICS)
    assert score_predictions([prediction], names) == dict.fromkeys(names, 1.0)


def test_the_guide_counts_its_example_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], namespace)  # type: ignore[index]
    table = re.findall(r"^\| `([a-z0-9_]+)` \| (\d+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert [name for name, *_ in table] == namespace["names"]
    assert len({round(score, 2) for score in namespace["scores"].values()}) == 6
    for name, *shown in table:
        assert counts(name, namespace["prediction"]) == tuple(map(int, shown))


# --- types that share their last part, in tags without B- and I-


def few_nerd_like(folder: Path) -> Path:
    """Write a corpus whose tags are bare types, as Few-NERD's are."""
    folder.mkdir()
    sentences = "".join(
        f"Anna\tperson-other\nBerg\tperson-other\nsaw\tO\nHall\tbuilding-other\n{number}\tO\n\n" for number in range(6)
    )
    for split in ("train", "validation", "test"):
        (folder / f"{split}.txt").write_text(sentences.replace("saw", f"saw-{split}"), encoding="utf-8")
    return folder


def test_types_are_told_apart_by_their_full_name_from_file_to_score(tmp_path: Path) -> None:
    data = lightft.load_data(few_nerd_like(tmp_path / "corpus"), task="token-classification")
    assert set(data.labels) == {"building-other", "person-other"}
    swapped = {"person-other": "building-other", "building-other": "person-other"}
    believed = [
        replace(example, target=tuple(replace(span, label=swapped[span.label]) for span in example.target or ()))
        for example in data.test
    ]
    head = TokenClassification(labels=data.labels)
    assert "B-person-other" in head.tags
    right = [
        replace(prediction, gold=example.target)
        for prediction, example in zip(predicted_as(head, "wordpiece", data.test, 64), data.test, strict=True)
    ]
    wrong = [
        replace(prediction, gold=example.target)
        for prediction, example in zip(predicted_as(head, "wordpiece", believed, 64), data.test, strict=True)
    ]
    names = ("span_f1", "span_f1_lenient", "span_f1_macro", "span_f1_subtoken", *TEXT_METRICS)
    assert score_predictions(right, names) == dict.fromkeys(names, 1.0)
    assert score_predictions(wrong, names) == dict.fromkeys(names, 0.0)
    assert [one.f1 for one in per_label_table(wrong, data.labels)] == [0.0, 0.0]
    assert span_errors(wrong).kinds["wrong type"] == 2 * len(data.test)


@pytest.mark.filterwarnings("ignore:.* seems not to be NE tag:UserWarning")
def test_seqeval_takes_types_with_the_same_last_part_for_one() -> None:
    gold, predicted = [["person-other", "O"]], [["building-other", "O"]]
    assert seqeval.metrics.f1_score(gold, predicted) == 1.0
    words = ((0, 4), (5, 8))
    ours = Prediction("1", gold=(Span(0, 4, "person-other"),), predicted=(Span(0, 4, "building-other"),), words=words)
    assert score_predictions([ours], ["span_f1"]) == {"span_f1": 0.0}
