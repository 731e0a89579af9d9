"""Entities from a language model: any answer is read, and no span is given that the text does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lightft
from lightft import LLMNERExtractor, Message, Span
from lightft.comparison import compare_runs
from lightft.errors import DataError, InvalidSettingError
from lightft.llm_ner import Document
from lightft.llm_ner.extractor import read_answer
from lightft.records import Example, Prediction, Run
from lightft.tasks import CausalLM

TEXT = "Angela met Bert in Paris and Bert left Paris in 1999"
LABELS = ("PER", "LOC", "DATE")


def spans_of(answer: str, text: str = TEXT) -> list[tuple[int, int, str]]:
    return [(span.start, span.end, span.label) for span in read_answer(text, answer, LABELS).spans]


# --- reading answers


@pytest.mark.parametrize(
    "answer",
    [
        '{"PER": ["Angela"], "LOC": ["Paris"]}',
        "{'PER': ['Angela'], 'LOC': ['Paris']}",
        '{"PER": "Angela", "LOC": "Paris"}',
        'Here you are:\n```json\n{"PER": ["Angela"], "LOC": ["Paris"]}\n```\nAnything else?',
        '{"LOC": ["Paris"], "PER": ["Angela"], "DATE": []}',
        '{"PER": ("Angela"), "LOC": ("Paris",)}',
        '{"PER": ["Angela"], "LOC": ["Paris"], "DATE": null}',
    ],
)
def test_a_dictionary_in_any_dress_is_read(answer: str) -> None:
    document = read_answer(TEXT, answer, LABELS)
    assert document.spans == (Span(0, 6, "PER"), Span(19, 24, "LOC"))
    assert [span.text for span in document.spans] == ["Angela", "Paris"]
    assert (document.outcome, document.ungrounded, document.answer, document.text) == ("ok", (), answer, TEXT)


def test_a_mention_written_twice_takes_the_first_two_places() -> None:
    assert spans_of('{"PER": ["Bert"]}') == [(11, 15, "PER")]
    assert spans_of('{"PER": ["Bert", "Bert"]}') == [(11, 15, "PER"), (29, 33, "PER")]
    document = read_answer(TEXT, '{"PER": ["Bert", "Bert", "Bert"]}', LABELS)
    assert len(document.spans) == 2
    assert document.ungrounded == (("PER", "Bert"),)


def test_what_the_text_does_not_hold_is_set_aside_and_listed() -> None:
    document = read_answer(
        TEXT, '{"PER": ["Angela", "Carla"], "LOC": ["paris"], "ORG": ["Bert"], "DATE": [""]}', LABELS
    )
    assert document.spans == (Span(0, 6, "PER"),)
    assert document.ungrounded == (("PER", "Carla"), ("LOC", "paris"), ("ORG", "Bert"), ("DATE", ""))
    assert document.outcome == "ungrounded"


def test_a_number_is_read_as_it_is_written() -> None:
    assert spans_of('{"DATE": [1999]}') == [(48, 52, "DATE")]
    assert read_answer(TEXT, '{"DATE": [2000]}', LABELS).ungrounded == (("DATE", "2000"),)


UNREADABLE = [
    "",
    "no entities",
    '["Angela"]',
    "{",
    '{"PER": ["Angela"',
    "{Angela}",
    "{[]}",
    "{[]: 1}",
    "{1: 2",
    "{'PER'}",
]
TOO_MUCH = ["{" + "[" * 5000 + "}", '{"PER": ' + "9" * 5000 + "}"]


@pytest.mark.parametrize("answer", [*UNREADABLE, *TOO_MUCH])
def test_an_answer_that_is_no_dictionary_is_unreadable_and_not_empty(answer: str) -> None:
    document = read_answer(TEXT, answer, LABELS)
    assert (document.outcome, document.spans) == ("unreadable", ())


def test_an_empty_dictionary_is_an_answer() -> None:
    assert read_answer(TEXT, "{}", LABELS) == Document(TEXT, (), (), "ok", "{}")


PIECES = st.sampled_from(
    [*"{}[]()\"':,*\n \x00\\", "\\d", "\\u", "PER", "LOC", "Bert", "Paris", "1", "None", "null", "e9"]
)


@given(st.lists(PIECES, max_size=40).map("".join) | st.text())
@example('{"PER": ["\\d"]}')
def test_any_answer_is_read_and_every_span_stands_in_the_text(answer: str) -> None:
    document = read_answer(TEXT, answer, LABELS)
    assert document.outcome in ("ok", "ungrounded", "unreadable")
    assert (document.outcome == "ungrounded") == bool(document.ungrounded)
    assert document.answer == answer
    for span in document.spans:
        assert TEXT[span.start : span.end] == span.text
        assert span.text
        assert span.label in LABELS
    assert list(document.spans) == sorted(document.spans)
    assert len(set(document.spans)) == len(document.spans)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.integers(0, 51), st.integers(1, 9)), max_size=6))
def test_a_truthful_answer_loses_nothing(mentions: list[tuple[str, int, int]]) -> None:
    import json

    wanted: dict[str, list[str]] = {}
    for label, start, length in mentions:
        mention = TEXT[start : start + length]
        if mention not in wanted.get(label, []):
            wanted.setdefault(label, []).append(mention)
    document = read_answer(TEXT, json.dumps(wanted), LABELS)
    assert document.outcome == "ok"
    assert {(span.label, span.text) for span in document.spans} == {
        (label, mention) for label, its_mentions in wanted.items() for mention in its_mentions
    }


# --- asking the model


@pytest.fixture
def extractor(tiny_llama: Path) -> LLMNERExtractor:
    return LLMNERExtractor(lightft.load(tiny_llama), {"PER": "a person", "LOC": ""}, max_new_tokens=5)


def test_the_prompt_names_the_types_and_holds_the_text(extractor: LLMNERExtractor) -> None:
    prompt = extractor.prompt("anna met bert")
    assert "- PER: a person\n- LOC\n" in prompt
    assert prompt.endswith("Text: anna met bert")


def test_every_text_gets_a_document_in_order(extractor: LLMNERExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answering(self: CausalLM, model: Any, tokenizer: Any, conversations: Any, *, max_new_tokens: int) -> list[str]:
        assert max_new_tokens == 5
        asked.extend(message.content for (message,) in conversations)
        return [f'{{"PER": ["{message.content.split()[-1]}"]}}' for (message,) in conversations]

    monkeypatch.setattr(CausalLM, "generate", answering)
    read: list[int] = []

    def texts() -> Iterator[str]:
        for number in range(40):
            read.append(number)
            yield f"here is person{number}"

    documents = extractor.extract(texts())
    first = next(documents)
    assert len(read) < 40, "texts are read as the answers are"
    rest = list(documents)
    assert [document.spans[0].text for document in (first, *rest)] == [f"person{number}" for number in range(40)]
    assert asked == [extractor.prompt(f"here is person{number}") for number in range(40)]


def test_what_a_real_model_writes_becomes_a_document(extractor: LLMNERExtractor) -> None:
    (document,) = extractor.extract(["anna met bert"])
    assert document.text == "anna met bert"
    written = extractor.predictor.generate([Message("user", extractor.prompt("anna met bert"))], max_new_tokens=5)
    assert document.answer == written
    assert list(extractor.extract([])) == []


def test_a_model_can_be_named_by_its_folder(tiny_llama: Path) -> None:
    extractor = LLMNERExtractor(tiny_llama, ["PER"])
    assert extractor.labels == {"PER": ""}


def test_a_classifier_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    from tests.tiny_models import wordpiece_tokenizer

    BertForSequenceClassification.from_pretrained(
        tiny_bert, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}
    ).save_pretrained(tmp_path)
    wordpiece_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InvalidSettingError, match="needs a causal language model; this one is for text-classification"):
        LLMNERExtractor(tmp_path, ["PER"])


# --- evaluating


GOLD = [
    Example("0", "anna met bert", (Span(0, 4, "PER"), Span(9, 13, "PER")), words=((0, 4), (5, 8), (9, 13))),
    Example("1", "paris", (Span(0, 5, "LOC"),), words=((0, 5),)),
]


def test_an_evaluation_is_a_run_that_compares_with_a_tagger(
    extractor: LLMNERExtractor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers = ['{"PER": ["anna", "carla"]}', "nothing"]
    monkeypatch.setattr(CausalLM, "generate", lambda *asked, **keywords: answers)
    run = extractor.evaluate(GOLD, output_dir=tmp_path / "llm")
    assert [prediction.predicted for prediction in run.predictions] == [(Span(0, 4, "PER"),), ()]
    assert run.data["outcomes"] == {"ungrounded": 1, "unreadable": 1}
    assert run.scores["span_f1"]["value"] == pytest.approx(2 * 1 / (1 + 3))
    assert Run.load(tmp_path / "llm").predictions == run.predictions
    tagger = Run(
        "tagger",
        "token-classification",
        ("span_f1", "token_accuracy"),
        labels=("O", "B-LOC", "I-LOC", "B-PER", "I-PER"),
        data={"test_fingerprint": run.data["test_fingerprint"]},
        predictions=tuple(Prediction(row.id, row.target, row.target or (), words=row.words) for row in GOLD),
    )
    comparison = compare_runs([tagger, run], resamples=100)
    assert [(one.a, one.b) for one in comparison.differences] == [("tagger", "llm")]


def test_what_cannot_be_evaluated_is_refused_before_anything_is_asked(
    extractor: LLMNERExtractor, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="Example '7' has no gold spans"):
        extractor.evaluate([Example("7", "anna", "PER")], output_dir=tmp_path / "llm")
    with pytest.raises(InvalidSettingError, match="exists already"):
        extractor.evaluate(GOLD, output_dir=tmp_path)
