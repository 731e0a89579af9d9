"""Entities from a language model: it is asked with the prompt, and what it answers becomes documents and runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightft
from lightft import LLMNERExtractor, Span
from lightft.comparison import compare_runs
from lightft.errors import DataError, InvalidSettingError, UnknownNameError
from lightft.llm_ner import Document
from lightft.records import Example, Prediction, Run
from lightft.tasks import CausalLM

# --- asking the model


@pytest.fixture
def extractor(tiny_llama: Path) -> LLMNERExtractor:
    return LLMNERExtractor(lightft.load(tiny_llama), {"PER": "a person", "LOC": ""}, "categories", max_new_tokens=5)


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
    assert asked == [extractor.prompt.ask(f"here is person{number}") for number in range(40)]


def test_what_a_real_model_writes_becomes_a_document(extractor: LLMNERExtractor) -> None:
    (document,) = extractor.extract(["anna met bert"])
    assert document.text == "anna met bert"
    written = extractor.predictor.generate(extractor.prompt.messages("anna met bert"), max_new_tokens=5)
    assert document.answer == written
    assert list(extractor.extract([])) == []


def test_a_model_can_be_named_by_its_folder(tiny_llama: Path) -> None:
    extractor = LLMNERExtractor(tiny_llama, ["PER"])
    assert extractor.labels == {"PER": ""}
    assert extractor.prompt.format == "brackets"


def test_what_cannot_be_asked_is_refused_before_the_model_is_opened() -> None:
    with pytest.raises(InvalidSettingError, match="none to choose from"):
        LLMNERExtractor("no such folder", ["PER"], prompt="few-shot")
    with pytest.raises(UnknownNameError, match="Did you mean 'xml'"):
        LLMNERExtractor("no such folder", ["PER"], "xmll")


def test_an_answer_of_any_kind_becomes_a_document(extractor: LLMNERExtractor) -> None:
    answer = 'Sure: {"PER": ["anna", "carla"]}'
    assert extractor.read("anna met bert", answer) == Document(
        "anna met bert", (Span(0, 4, "PER"),), (("PER", "carla"),), "ungrounded", answer
    )


def test_how_much_is_written_follows_from_the_text_and_not_from_its_neighbours(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = LLMNERExtractor(lightft.load(tiny_llama), ["PER"])
    texts = ["anna", "anna met bert " * 20, "bert", "", "the film " * 9]
    limits: dict[str, set[int]] = {text: set() for text in texts}

    def answering(self: CausalLM, model: Any, tokenizer: Any, conversations: Any, *, max_new_tokens: int) -> list[str]:
        for (message,) in conversations:
            (text,) = [text for text in texts if message.content == extractor.prompt.ask(text)]
            assert max_new_tokens >= 2 * len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 32
            limits[text].add(max_new_tokens)
        return [message.content.split("\n")[-1] for (message,) in conversations]

    monkeypatch.setattr(CausalLM, "generate", answering)
    documents = list(extractor.extract(texts))
    assert [document.text for document in documents] == texts
    assert {document.outcome for document in documents if document.text.strip()} == {"ok"}
    for text in texts:
        list(extractor.extract([text]))
    assert all(len(each) == 1 for each in limits.values())
    assert len(set.union(*limits.values())) > 1


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
    assert run.data["outcomes"] == {"ungrounded": 1, "refused": 1}
    assert run.data["ungrounded_mentions"] == 1
    assert run.training == {
        "format": "categories",
        "prompt": "basic",
        "definitions": {"PER": "a person"},
        "max_new_tokens": 5,
    }
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
