"""Entities from a language model: it is asked with the prompt, and what it answers becomes documents and runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import lightft
from lightft import LLMNERExtractor, Span
from lightft.comparison import compare_runs
from lightft.errors import DataError, EngineError, InvalidSettingError, UnknownNameError
from lightft.inference import Predictor
from lightft.llm_ner import FORMATS, Answer, Document, InProcess, Prompt, Question, extract_file
from lightft.records import Example, Message, Prediction, Run
from lightft.tasks import CausalLM
from lightft.tasks.causal_lm import WrittenAnswer
from tests.unit.test_llm_decoding import byte_tokenizer, llama

# --- asking the model


@pytest.fixture
def extractor(tiny_llama: Path) -> LLMNERExtractor:
    labels = {"PER": "a person", "LOC": ""}
    return LLMNERExtractor(lightft.load(tiny_llama), labels, "categories", decoding="free", max_new_tokens=5)


def test_every_text_gets_a_document_in_order(extractor: LLMNERExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answering(
        self: CausalLM, model: Any, tokenizer: Any, conversations: Any, *, max_new_tokens: int
    ) -> list[WrittenAnswer]:
        assert max_new_tokens == 5
        asked.extend(message.content for (message,) in conversations)
        names = (message.content.split()[-1] for (message,) in conversations)
        return [WrittenAnswer(f'{{"PER": ["{name}"]}}', cut=False) for name in names]

    monkeypatch.setattr(CausalLM, "write", answering)
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
    predictor = extractor.engine.predictor
    assert document.answers == (predictor.generate(extractor.prompt.messages("anna met bert"), max_new_tokens=5),)
    assert list(extractor.extract([])) == []


def test_blank_texts_have_no_entities_and_keep_their_place(extractor: LLMNERExtractor) -> None:
    documents = list(extractor.extract(["", " ", "anna", "\n", "bert", ""]))
    assert [document.text for document in documents] == ["", " ", "anna", "\n", "bert", ""]
    assert [document.outcome for document in documents if not document.text.strip()] == ["ok"] * 4
    assert [len(document.answers) for document in documents] == [0, 0, 1, 0, 1, 0]


class Counted(str):
    """A text that is counted as long as anybody holds it."""

    alive = most = 0

    def __new__(cls, text: str) -> Counted:
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        return super().__new__(cls, text)

    def __del__(self) -> None:
        type(self).alive -= 1


def test_blank_texts_are_given_out_as_they_come() -> None:
    def texts() -> Iterator[str]:
        yield Counted("Anna")
        for _ in range(3000):
            yield Counted(" " * 50)
        yield Counted("Bert \ud800")
        yield Counted("Carla")

    Counted.alive = Counted.most = 0
    engine = Scripted()
    found = [(len(document.text), document.outcome) for document in LLMNERExtractor(engine, ["PER"]).extract(texts())]
    assert found == [(4, "ok"), *[(50, "ok")] * 3000, (6, "failed"), (5, "ok")]
    assert [question.text for question in engine.questions] == ["Anna", "Carla"]
    assert Counted.most < 200


def test_nobody_is_asked_about_a_window_of_white_space() -> None:
    engine = Scripted(chatty=True)
    text = "Anna left. " + " " * 8000 + "Bert came."
    (document,) = LLMNERExtractor(engine, ["PER"]).extract([text])
    assert (document.outcome, len(document.answers)) == ("ok", len(engine.questions))
    assert [span.text for span in document.spans] == ["Anna", "Bert"]
    assert all(text[span.start : span.end] == span.text for span in document.spans)


# --- engines of any kind


class Scripted:
    """Finds every word that begins with a capital; fails where it is told to."""

    model_name = "scripted"

    def __init__(
        self,
        fails_at: tuple[str, ...] = (),
        dies_at: str = "",
        score: float | None = None,
        *,
        chatty: bool = False,
        cut: bool = False,
    ) -> None:
        self.fails_at, self.dies_at, self.score = fails_at, dies_at, score
        self.chatty, self.cut = chatty, cut
        self.questions: list[Question] = []

    def settings(self) -> dict[str, Any]:
        return {}

    def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
        for question in questions:
            self.questions.append(question)
            if self.dies_at and self.dies_at in question.text:
                raise EngineError("The server is gone.")
            if any(word in question.text for word in self.fails_at):
                yield Answer("", error="It would not say.")
                continue
            if self.chatty and not question.text.strip():
                yield Answer("Which text do you mean?")
                continue
            found = re.finditer(r"\b[A-Z]\w*", question.text)
            spans = [Span(*name.span(), labels[0], text=name[0], score=self.score) for name in found]
            written, _ = FORMATS[format].write(question.text, spans)
            yield Answer(written, None if self.score is None else tuple(spans), cut=self.cut)


def test_a_long_text_is_read_in_windows_and_comes_back_whole() -> None:
    engine = Scripted()
    text = " ".join(f"then Anna{n} met Bert{n} ." for n in range(100))
    extractor = LLMNERExtractor(engine, ["PER"], window=50, overlap=10)
    (document, after) = extractor.extract([text, "So Carla left"])
    assert len(engine.questions) > 10
    assert all(len(question.text.split()) <= 50 for question in engine.questions)
    expected = [(name.start(), name.end(), name[0]) for name in re.finditer(r"[A-Z]\w*", text)]
    assert [(span.start, span.end, span.text) for span in document.spans] == expected
    assert (document.outcome, len(document.answers)) == ("ok", len(engine.questions) - 1)
    assert after.spans == (Span(0, 2, "PER"), Span(3, 8, "PER"))


def test_one_bad_window_never_loses_the_others() -> None:
    text = " ".join(f"then Anna{n} met Bert{n} ." for n in range(100))
    (document,) = LLMNERExtractor(Scripted(fails_at=("Anna50 ",)), ["PER"], window=50, overlap=10).extract([text])
    assert document.outcome == "failed"
    assert document.error.startswith("It would not say.")
    found = {span.text for span in document.spans}
    assert {"Anna0", "Bert0", "Anna99", "Bert99"} <= found
    assert "Anna50" not in found
    assert len(found) > 150


@pytest.mark.parametrize("score", [None, 0.5])
def test_an_answer_that_was_cut_is_truncated_however_whole_it_looks(score: float | None) -> None:
    engine = Scripted(score=score, cut=True, fails_at=("Bert",))
    whole, failed = LLMNERExtractor(engine, ["PER"]).extract(["So Anna left", "Bert"])
    assert (whole.outcome, len(whole.spans)) == ("truncated", 2)
    assert failed.outcome == "failed"


def test_a_text_of_ten_megabytes_is_read_window_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader(Scripted):
        longest = asked = 0

        def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
            for question in questions:
                self.longest, self.asked = max(self.longest, len(question.text)), self.asked + 1
                assert len(made) == self.asked, "no prompt is made before it is asked for"
                names = re.finditer(r"\bAnna\d+", question.text)
                spans = tuple(Span(*name.span(), labels[0], text=name[0], score=0.9) for name in names)
                yield Answer("", spans)

    made: list[int] = []
    messages = Prompt.messages

    def counting(prompt: Prompt, text: str) -> list[Message]:
        made.append(len(text))
        return messages(prompt, text)

    monkeypatch.setattr(Prompt, "messages", counting)
    engine = Reader()
    text = "".join(f"Here is Anna{n} . {'and so the story goes on . ' * 185}" for n in range(2000))
    assert len(text) > 10**7
    (document,) = LLMNERExtractor(engine, ["PER"], window=2000).extract([text])
    assert [(span.start, span.end) for span in document.spans] == [
        name.span() for name in re.finditer(r"Anna\d+", text)
    ]
    assert (document.outcome, engine.longest < 20_000) == ("ok", True)


def test_what_is_finished_before_an_engine_dies_is_given_out() -> None:
    documents = LLMNERExtractor(Scripted(dies_at="Carla"), ["PER"]).extract(["Anna", "", "Bert", "Carla", "Dora"])
    assert [next(documents).text for _ in range(3)] == ["Anna", "", "Bert"]
    with pytest.raises(EngineError, match="gone"):
        next(documents)


# --- what is given and would change nothing


def test_settings_that_nobody_would_heed_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match=r"decoding='nonsense', max_new_tokens=7: .* Scripted is an engine"):
        LLMNERExtractor(Scripted(), ["PER"], decoding="nonsense", max_new_tokens=7)
    with pytest.raises(InvalidSettingError, match=r"^prompt, shots, choice given, but no labels"):
        LLMNERExtractor("no such folder", prompt="basic", shots=2, choice="fixed")
    with pytest.raises(InvalidSettingError, match=r"^examples given, but no labels"):
        LLMNERExtractor("no such folder", examples=[Example("0", "anna", ())])


# --- what is remembered beside an adapter


def test_a_saved_extractor_asks_the_same_again(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(tiny_llama, folder)
    pool = [Example(str(n), f"Anna{n} saw Rome" + " today" * n, (Span(0, 4 + len(str(n)), "PER"),)) for n in range(9)]
    for choice, kept in (("fixed", 3), ("similar", 9)):
        labels = {"PER": "a person", "LOC": ""}
        first = LLMNERExtractor(folder, labels, "xml", "few-shot", examples=pool, shots=2, choice=choice)
        first.save()
        again = LLMNERExtractor(folder)
        assert again.labels == labels
        assert len(again.prompt.examples) == kept
        for text in ("Bert saw Paris", pool[0].text):
            assert again.prompt.ask(text) == first.prompt.ask(text)
        assert again.settings() == first.settings()


def test_nothing_saved_and_nothing_said_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"no extractor\.json"):
        LLMNERExtractor(tiny_llama)
    with pytest.raises(InvalidSettingError, match="already open"):
        LLMNERExtractor(Scripted())
    with pytest.raises(InvalidSettingError, match="no folder to save"):
        LLMNERExtractor(Scripted(), ["PER"]).save(tmp_path / "none")
    (tmp_path / "extractor.json").write_text("[]")
    with pytest.raises(DataError, match="not what save"):
        LLMNERExtractor(tmp_path)


# --- how sure it is


class Unsure(Scripted):
    """Right about short names, often wrong about long ones, and says so too boldly."""

    def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
        for question in questions:
            self.questions.append(question)
            if self.dies_at and self.dies_at in question.text:
                raise EngineError("The server is gone.")
            names = list(re.finditer(r"\b[A-Z]\w*", question.text))
            spans = [
                Span(*name.span(), labels[0], text=name[0], score=0.99 if len(name[0]) < 6 else 0.9) for name in names
            ]
            yield Answer(question.text, tuple(spans))


def unsure_examples() -> list[Example]:
    """Every short name is an entity, every second long one is."""
    rows = []
    for number in range(400):
        text = f"Anna saw Konstantin{number}"
        gold = [Span(0, 4, "PER")] + ([Span(9, len(text), "PER")] if number % 2 else [])
        rows.append(Example(str(number), text, tuple(gold)))
    return rows


def test_scores_become_probabilities_and_a_precision_can_be_asked_for(tiny_llama: Path, tmp_path: Path) -> None:
    extractor = LLMNERExtractor(Unsure(), ["PER"])
    extractor.calibrate(unsure_examples())
    (document,) = extractor.extract(["Anna saw Konstantin7"])
    assert document.spans[0].score == pytest.approx(1, abs=0.02)
    assert document.spans[1].score == pytest.approx(0.5, abs=0.03)
    shutil.copytree(tiny_llama, tmp_path / "adapter")
    extractor.save(tmp_path / "adapter")
    strict = LLMNERExtractor(tmp_path / "adapter", minimum_precision=0.95)
    strict.engine = Unsure()
    (document,) = strict.extract(["Anna saw Konstantin7"])
    assert [span.text for span in document.spans] == ["Anna"]
    assert [span.text for span in document.doubtful] == ["Konstantin7"]


def calibrated(engine: Scripted, minimum_precision: float | None = None) -> LLMNERExtractor:
    extractor = LLMNERExtractor(Unsure(), ["PER"], window=10**6, overlap=0)
    extractor.minimum_precision = minimum_precision
    extractor.calibrate(unsure_examples())
    extractor.engine = engine
    return extractor


def test_a_precision_needs_a_calibration_and_scores() -> None:
    with pytest.raises(InvalidSettingError, match="Call calibrate"):
        LLMNERExtractor(Unsure(), ["PER"], minimum_precision=0.9)
    (document,) = calibrated(Scripted()).extract(["Anna saw Rome"])
    assert [span.score for span in document.spans] == [None, None]
    documents = calibrated(Scripted(), 0.9).extract(["no name", *["Anna saw Rome"] * 9])
    assert [len(next(documents).doubtful) for _ in range(5)] == [0, 2, 2, 2, 2]
    with pytest.raises(
        InvalidSettingError, match="scripted gives no scores: none of the entities in the first 5 texts"
    ):
        next(documents)


def test_an_entity_without_a_score_is_doubtful_and_costs_no_other() -> None:
    class Forgetful(Unsure):
        def answers(self, questions: Iterable[Question], *, labels: Sequence[str], format: str) -> Iterator[Answer]:
            for question in questions:
                source = Scripted() if "mute" in question.text else Unsure()
                yield from source.answers([question], labels=labels, format=format)

    texts = ["Anna mute", "Anna saw Konstantin7", *["Bert mute"] * 9]
    first, second, *others = calibrated(Forgetful(), 0.9).extract(texts)
    assert ([span.text for span in first.doubtful], first.doubtful[0].score, first.spans) == (["Anna"], None, ())
    assert [span.text for span in second.spans] == ["Anna"]
    assert [span.text for span in second.doubtful] == ["Konstantin7"]
    assert [len(document.doubtful) for document in others] == [1] * 9


def test_the_work_of_weighing_grows_with_the_entities_and_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extractor = calibrated(Unsure(), 0.9)
    compared = 0

    def counting(one: Span, other: Span) -> bool:
        nonlocal compared
        compared += 1
        return (one.start, one.end, one.label) == (other.start, other.end, other.label)

    monkeypatch.setattr(Span, "__eq__", counting)
    (document,) = extractor.extract(["Anna saw Konstantin . " * 2000])
    assert (len(document.spans), len(document.doubtful)) == (2000, 2000)
    assert compared < 10 * 4000


def test_what_was_calibrated_stands_among_the_settings(tmp_path: Path) -> None:
    extractor = LLMNERExtractor(Unsure(), ["PER"])
    assert "calibration_digest" not in extractor.settings()
    extractor.calibrate(unsure_examples()[:50])
    run = extractor.evaluate(unsure_examples()[:9], output_dir=tmp_path / "run")
    assert run.data["calibration_digest"] == extractor.settings()["calibration_digest"]
    source = tmp_path / "in.txt"
    source.write_text("Anna\n")
    extract_file(extractor, source, tmp_path / "out.jsonl", progress=False)
    extractor.calibrate(unsure_examples()[:51])
    with pytest.raises(DataError, match="calibration_digest was"):
        extract_file(extractor, source, tmp_path / "out.jsonl", progress=False)


# --- a model that can only answer properly


@pytest.mark.parametrize("format", ["brackets", "xml", "categories", "objects"])
def test_constrained_answers_can_be_read_whatever_the_model(format: str) -> None:
    texts = ["anna met bert", "</s><s> [x](PER) <PER>", "the film was good and anna was in rome"]
    tokenizer = byte_tokenizer()
    predictor = Predictor(llama(3), tokenizer, CausalLM(), 512)
    documents = list(LLMNERExtractor(predictor, ["PER", "LOC"], format).extract(texts))
    assert [document.text for document in documents] == texts
    for document in documents:
        assert document.outcome == "ok"
        assert not document.ungrounded
        for span in document.spans:
            assert document.text[span.start : span.end] == span.text
            assert 0 < span.score <= 1
    # Of a dictionary, a model without sense closes every list at once.
    assert any(document.spans for document in documents) or format in ("categories", "objects")


def test_a_text_that_cannot_be_written_fails_alone() -> None:
    predictor = Predictor(llama(3), byte_tokenizer(), CausalLM(), 512)
    documents = list(LLMNERExtractor(predictor, ["PER"]).extract(["anna", "half \ud800", "bert", "wordy " * 199]))
    assert [document.outcome for document in documents] == ["ok", "failed", "ok", "failed"]
    assert "\\ud800" in documents[1].error
    assert "longer than the 1024 tokens" in documents[3].error


def test_a_format_without_a_grammar_is_written_freely_or_not_at_all() -> None:
    predictor = Predictor(llama(3), byte_tokenizer(), CausalLM(), 512)
    with pytest.raises(InvalidSettingError, match="Did you mean 'free'"):
        LLMNERExtractor(predictor, ["PER"], decoding="fre")
    engine = InProcess(predictor)
    with pytest.raises(InvalidSettingError, match="no grammar for the format 'mine'"):
        list(engine.answers([Question("a", (Message("user", "a"),))], labels=["PER"], format="mine"))


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
        "anna met bert", (Span(0, 4, "PER"),), (("PER", "carla"),), "ungrounded", (answer,)
    )


def test_how_much_is_written_follows_from_the_text_and_not_from_its_neighbours(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = LLMNERExtractor(lightft.load(tiny_llama), ["PER"], decoding="free")
    texts = ["anna", "anna met bert " * 5, "bert", "paris", "the film " * 9]
    limits: dict[str, set[int]] = {text: set() for text in texts}

    def answering(
        self: CausalLM, model: Any, tokenizer: Any, conversations: Any, *, max_new_tokens: int
    ) -> list[WrittenAnswer]:
        for (message,) in conversations:
            (text,) = [text for text in texts if message.content == extractor.prompt.ask(text)]
            assert max_new_tokens > len(tokenizer(text, add_special_tokens=False)["input_ids"])
            limits[text].add(max_new_tokens)
        return [WrittenAnswer(message.content.split("\n")[-1], cut=False) for (message,) in conversations]

    monkeypatch.setattr(CausalLM, "write", answering)
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
    answers = [WrittenAnswer('{"PER": ["anna", "carla"]}', cut=False), WrittenAnswer("nothing", cut=False)]
    monkeypatch.setattr(CausalLM, "write", lambda *asked, **keywords: answers)
    run = extractor.evaluate(GOLD, output_dir=tmp_path / "llm")
    assert [prediction.predicted for prediction in run.predictions] == [(Span(0, 4, "PER"),), ()]
    assert run.data["outcomes"] == {"ungrounded": 1, "refused": 1}
    assert run.data["ungrounded_mentions"] == 1
    assert run.training == {
        "format": "categories",
        "prompt": "basic",
        "definitions": {"PER": "a person"},
        "decoding": "free",
        "max_new_tokens": 5,
        "window": 200,
        "overlap": 30,
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
    said = "Answers of llm: 1 ungrounded, 1 refused; 1 mentions that the text does not hold were set aside."
    assert said in comparison.notes


NAMES = [Example(str(n), name, (Span(0, len(name), "PER"),)) for n, name in enumerate(["Anna", "Bert", "", "Carla"])]


def test_an_evaluation_that_was_stopped_is_gone_on_with(tmp_path: Path) -> None:
    at_once = LLMNERExtractor(Scripted(), ["PER"]).evaluate(NAMES, output_dir=tmp_path / "at-once")
    with pytest.raises(EngineError, match="What is finished stays in .*unfinished"):
        LLMNERExtractor(Scripted(dies_at="Carla"), ["PER"]).evaluate(NAMES, output_dir=tmp_path / "run")
    with pytest.raises(DataError, match=r"window was 200 and is now 100.*delete"):
        LLMNERExtractor(Scripted(), ["PER"], window=100).evaluate(NAMES, output_dir=tmp_path / "run")
    engine = Scripted()
    run = LLMNERExtractor(engine, ["PER"]).evaluate(NAMES, output_dir=tmp_path / "run")
    assert [question.text for question in engine.questions] == ["Carla"]
    assert (run.predictions, run.data, run.training) == (at_once.predictions, at_once.data, at_once.training)
    assert {"predict_seconds", "predictions_per_second"} == set(at_once.cost) - set(run.cost)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at-once", "run"]


def test_a_calibration_that_was_stopped_is_gone_on_with(tmp_path: Path) -> None:
    examples = unsure_examples()[:60]
    extractor = LLMNERExtractor(Unsure(), ["PER"])
    # Already calibrated, so that scores that are written down could be probabilities.
    expected = extractor.calibrate(examples)
    extractor.engine = Unsure(dies_at="Konstantin40")
    with pytest.raises(EngineError, match="What is finished stays"):
        extractor.calibrate(examples, output_dir=tmp_path / "validation")
    extractor.engine = Unsure()
    assert extractor.calibrate(examples, output_dir=tmp_path / "validation") == expected
    assert len(extractor.engine.questions) == 20


def test_what_cannot_be_evaluated_is_refused_before_anything_is_asked(
    extractor: LLMNERExtractor, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="Example '7' has no gold spans"):
        extractor.evaluate([Example("7", "anna", "PER")], output_dir=tmp_path / "llm")
    with pytest.raises(DataError, match="no examples to evaluate on"):
        extractor.evaluate([], output_dir=tmp_path / "llm")
    assert list(tmp_path.glob("llm*")) == []
    with pytest.raises(InvalidSettingError, match="exists already"):
        extractor.evaluate(GOLD, output_dir=tmp_path)
