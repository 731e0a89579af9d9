"""The spaCy component: entities and categories from an adapter, none lost where tokens differ."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.errors import AdapterError, InvalidSettingError
from lightft.integrations.spacy_pipe import LightFTPipe, make_pipe
from lightft.records import Span
from tests.tiny_models import LABELS, TYPES, classified_texts, tagged_texts

TEXTS = ["anna berg met bert in new york", "they saw a very boring film", "", "anna met bert in rome"]


@pytest.fixture(scope="module")
def tagger(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    loader = ModelLoader(str(tiny_bert), task="token-classification", labels=TYPES)
    trainer = LoRATrainer(loader, epochs=12, learning_rate=1e-2, batch_size=4, progress=False)
    return trainer.save(trainer.train(tagged_texts(24)), tmp_path_factory.mktemp("tagger") / "adapter")


@pytest.fixture(scope="module")
def classifier(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = LoRATrainer(ModelLoader(str(tiny_bert), labels=LABELS), epochs=1, progress=False)
    return trainer.save(trainer.train(classified_texts()), tmp_path_factory.mktemp("classifier") / "adapter")


def pipeline(model: Path, **config: Any) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("lightft", config={"model": str(model), **config})
    return nlp


def found(doc: Any) -> list[tuple[int, int, str]]:
    return [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]


class Answers:
    """A predictor that answers as it is told."""

    head = None

    def __init__(self, *spans: Span) -> None:
        self.spans = list(spans)

    def __call__(self, text: str) -> list[Span]:
        return self.spans


def annotated(text: str, *spans: Span, **settings: Any) -> Any:
    return LightFTPipe(Answers(*spans), **settings)(spacy.blank("en")(text))  # type: ignore[arg-type]


def test_entities_are_those_of_the_predictor(tagger: Path) -> None:
    predictor, nlp = lightft.load(tagger), pipeline(tagger)
    docs = [nlp(text) for text in TEXTS]
    assert found(docs[0]) == [(0, 9, "PER"), (14, 18, "PER"), (22, 30, "LOC")]
    for doc, spans in zip(docs, predictor(TEXTS), strict=True):
        assert found(doc) == [(span.start, span.end, span.label) for span in spans]
        assert [span.text for span in doc.spans["lightft"]] == [span.text for span in spans]
        scores = doc.spans["lightft"].attrs["scores"]
        assert np.allclose(scores, [span.score for span in spans])


def test_a_stream_is_answered_in_batches_and_in_order(tagger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = pipeline(tagger)
    alone = [found(nlp(text)) for text in TEXTS]
    component = nlp.get_pipe("lightft")
    asked: list[list[str]] = []

    def watched(texts: list[str]) -> Any:
        asked.append(texts)
        return predictor(texts)

    predictor = component.predictor
    monkeypatch.setattr(component, "predictor", watched)
    assert [found(doc) for doc in nlp.pipe(iter(TEXTS), batch_size=3)] == alone
    assert asked == [TEXTS[:3], TEXTS[3:]]


def test_classes_become_categories(classifier: Path) -> None:
    doc = pipeline(classifier)("a good film")
    answer = lightft.load(classifier)("a good film")
    assert doc.cats == answer.probabilities
    assert "lightft" not in doc.spans


def test_a_pipeline_on_disk_opens_the_same_model(tagger: Path, tmp_path: Path) -> None:
    nlp = pipeline(tagger, alignment="contract")
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    assert again.config["components"]["lightft"]["model"] == str(tagger)
    assert again.get_pipe("lightft").alignment == "contract"
    assert [found(again(text)) for text in TEXTS] == [found(nlp(text)) for text in TEXTS]


def test_documents_with_spans_and_scores_are_stored_by_spacy(tagger: Path) -> None:
    nlp = pipeline(tagger)
    doc = nlp(TEXTS[0])
    (stored,) = DocBin().from_bytes(DocBin(docs=[doc], store_user_data=True).to_bytes()).get_docs(nlp.vocab)
    assert found(stored) == found(doc)
    assert stored.spans["lightft"].attrs["scores"].tolist() == doc.spans["lightft"].attrs["scores"].tolist()


@pytest.mark.parametrize(
    ("alignment", "entity", "moved", "left_out"),
    [
        ("expand", "Berlin", 1, []),
        ("contract", None, 0, [[0, 3, "LOC", 0.9]]),
        ("strict", None, 0, [[0, 3, "LOC", 0.9]]),
    ],
)
def test_an_entity_between_tokens_is_moved_or_told(
    alignment: str, entity: str | None, moved: int, left_out: list[Any]
) -> None:
    doc = annotated("Berlin is large", Span(0, 3, "LOC", score=0.9), alignment=alignment)
    assert [one.text for one in doc.ents] == ([entity] if entity else [])
    assert doc.spans["lightft"].attrs["moved"] == moved
    assert doc.spans["lightft"].attrs["left_out"] == left_out


def test_of_overlapping_spans_the_surer_is_the_entity_and_all_are_kept() -> None:
    doc = annotated("New York Times", Span(0, 8, "LOC", score=0.6), Span(0, 14, "ORG", score=0.9))
    assert found(doc) == [(0, 14, "ORG")]
    assert [span.label_ for span in doc.spans["lightft"]] == ["LOC", "ORG"]
    assert doc.spans["lightft"].attrs["overlapping"] == 1


def test_entities_of_other_components_stay_where_there_is_room() -> None:
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "GPE", "pattern": "Paris"}, {"label": "GPE", "pattern": "Rome"}])
    doc = LightFTPipe(Answers(Span(0, 5, "LOC", score=0.9)))(nlp("Paris and Rome"))  # type: ignore[arg-type]
    assert found(doc) == [(0, 5, "LOC"), (10, 14, "GPE")]


def test_spans_have_the_key_that_was_asked_for() -> None:
    assert len(annotated("Paris", Span(0, 5, "LOC", score=0.9), spans_key="sc").spans["sc"]) == 1


def test_a_writing_model_and_an_unknown_alignment_are_refused(tiny_llama: Path, tagger: Path) -> None:
    with pytest.raises(InvalidSettingError, match="writes text, which is neither entities nor categories"):
        pipeline(tiny_llama)
    with pytest.raises(InvalidSettingError, match="Did you mean 'expand'"):
        LightFTPipe(replace(lightft.load(tagger)), alignment="expnd")


def test_a_checkpoint_that_needs_labels_says_so(tiny_bert: Path) -> None:
    with pytest.raises(AdapterError, match="has no classification"):
        pipeline(tiny_bert)


def test_spacy_finds_the_component_by_its_entry_point() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (value,) = re.findall(r'^\[project\.entry-points\.spacy_factories\]\nlightft = "(.*)"$', project, re.MULTILINE)
    entry = importlib.metadata.EntryPoint("lightft", value, "spacy_factories")
    assert entry.load() is make_pipe
