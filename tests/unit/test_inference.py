"""Opening what was trained, here or elsewhere, and asking it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, pipeline

import lightft
from lightft import AdapterSpec, Example, LoRATrainer, Message, ModelLoader, QLoRATrainer, Span
from lightft.errors import AdapterError, InvalidSettingError, ModelLoadError
from lightft.records import Classified
from tests.hub_double import serve_hub
from tests.tiny_models import LABELS, TYPES, classified_texts, instructions, tagged, tagged_texts, wordpiece_tokenizer

OWN_ORDER = ("I-PER", "O", "B-LOC", "B-PER", "I-LOC")


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """An adapter folder and the model in memory, for each task."""
    rows = {
        "text-classification": classified_texts(),
        "token-classification": tagged_texts(),
        "causal-lm": instructions(),
    }
    labels = {"text-classification": LABELS, "token-classification": TYPES, "causal-lm": None}
    made = {}
    for task, its_rows in rows.items():
        folder = tiny_llama if task == "causal-lm" else tiny_bert
        loader = ModelLoader(str(folder), task=task, labels=labels[task], dtype="float32")
        trainer = LoRATrainer(loader, epochs=12, batch_size=8, learning_rate=1e-2, progress=False)
        model = trainer.train(its_rows, its_rows)
        made[task] = (trainer.save(model, tmp_path_factory.mktemp(task) / "adapter"), trainer.predictor(model))
    return made


def save_classifier(folder: Path, tiny_bert: Path, names: tuple[str, ...] | None) -> BertForSequenceClassification:
    return _save_checkpoint(BertForSequenceClassification, folder, tiny_bert, names, 2)


def save_tagger(folder: Path, tiny_bert: Path, names: tuple[str, ...] | None) -> BertForTokenClassification:
    return _save_checkpoint(BertForTokenClassification, folder, tiny_bert, names, len(names or OWN_ORDER))


def _save_checkpoint(kind: Any, folder: Path, base: Path, names: tuple[str, ...] | None, outputs: int) -> Any:
    torch.manual_seed(4)
    settings: dict[str, Any] = {"num_labels": outputs}
    if names is not None:
        settings = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    model = kind(BertConfig.from_pretrained(base, **settings)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)
    model.save_pretrained(folder)
    wordpiece_tokenizer().save_pretrained(folder)
    return model


# --- our own folders


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "causal-lm"])
def test_what_is_loaded_predicts_what_was_trained(trained: dict[str, tuple[Path, Any]], task: str) -> None:
    folder, predictor = trained[task]
    rows = predictor_rows(task)
    assert lightft.load(folder).predict(rows) == predictor.predict(rows)
    assert lightft.load(str(folder)).head == predictor.head


def predictor_rows(task: str) -> tuple[Example, ...]:
    makers = {"text-classification": classified_texts, "token-classification": tagged_texts, "causal-lm": instructions}
    return makers[task]()


def test_a_classifier_answers_with_a_class_and_its_probability(trained: dict[str, tuple[Path, Any]]) -> None:
    classify = lightft.load(trained["text-classification"][0])
    answer = classify("it was a good film")
    assert isinstance(answer, Classified)
    assert answer.label == "positive"
    assert list(answer.probabilities) == list(LABELS)
    assert answer.score == max(answer.probabilities.values()) > 0.5


def test_a_tagger_answers_with_spans_that_carry_their_text(trained: dict[str, tuple[Path, Any]]) -> None:
    tag = lightft.load(trained["token-classification"][0])
    text = "anna berg met bert in new york"
    spans = tag(text)
    assert spans == list(tagged("x", text.split()).target or ())
    assert [span.text for span in spans] == ["anna berg", "bert", "new york"]
    assert all(0 < span.score <= 1 for span in spans)
    assert tag("") == []


def test_a_language_model_answers_with_text(trained: dict[str, tuple[Path, Any]]) -> None:
    model = lightft.load(trained["causal-lm"][0])
    answer = model("say the film")
    assert isinstance(answer, str)
    assert answer == model.generate("say the film") == model.generate([Message("user", "say the film")])
    assert model(["say the film", "say the"]) == [answer, model("say the")]
    shorter = model.generate("say the film", max_new_tokens=1)
    assert answer.startswith(shorter)
    assert len(shorter) < len(answer)


def test_only_a_language_model_writes(trained: dict[str, tuple[Path, Any]]) -> None:
    with pytest.raises(InvalidSettingError, match="A text-classification model writes no text"):
        trained["text-classification"][1].generate("say")


def test_one_text_gives_an_answer_a_list_a_list_and_a_stream_a_stream(
    trained: dict[str, tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightft import inference

    monkeypatch.setattr(inference, "_TEXTS_PER_CHUNK", 4)
    classify = trained["text-classification"][1]
    texts = [example.text for example in classified_texts()]
    alone = [classify(text).label for text in texts]
    assert [answer.label for answer in classify(texts)] == alone
    assert [answer.label for answer in classify(tuple(texts))] == alone
    read: list[str] = []

    def source() -> Iterator[str]:
        for text in texts:
            read.append(text)
            yield text

    answers = classify(source())
    assert read == []
    assert next(answers).label == alone[0]
    assert len(read) == 4
    assert [answer.label for answer in answers] == alone[1:]
    assert classify([]) == []
    assert list(classify(iter([]))) == []


def test_a_long_text_is_read_as_in_training(trained: dict[str, tuple[Path, Any]]) -> None:
    tag = lightft.load(trained["token-classification"][0])
    tokens = ["anna", "met", "bert", "in", "new", "york", "and"] * 30
    spans = tag(" ".join(tokens))
    assert max(span.end for span in spans) > 850
    assert len(spans) > 60


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_is_loaded_quantised_again(tiny_bert: Path, tmp_path: Path, quantization: str) -> None:
    loader = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32")
    trainer = QLoRATrainer(loader, quantization=quantization, epochs=4, learning_rate=1e-2, progress=False)
    model = trainer.train(classified_texts(), classified_texts())
    folder = trainer.save(model, tmp_path / "adapter")
    loaded = lightft.load(folder)
    assert loaded.predict(classified_texts()) == trainer.predict(model, classified_texts())
    assert {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization] in {
        type(part).__name__ for part in loaded.model.modules()
    }


def test_a_model_trained_whole_is_an_ordinary_checkpoint(tiny_bert: Path, tmp_path: Path) -> None:
    loader = ModelLoader(str(tiny_bert), task="token-classification", labels=TYPES)
    trainer = LoRATrainer(loader, adapter="full", epochs=3, learning_rate=1e-3, progress=False, precision="float32")
    model = trainer.train(tagged_texts(), tagged_texts())
    folder = trainer.save(model, tmp_path / "adapter")
    expected = trainer.predict(model, tagged_texts())
    assert lightft.load(folder).predict(tagged_texts()) == expected
    theirs = BertForTokenClassification.from_pretrained(folder)
    assert theirs.config.id2label[1] == "B-LOC"
    (folder / "lightft.json").unlink()
    assert [one.predicted for one in lightft.load(folder).predict(tagged_texts())] == [
        one.predicted for one in expected
    ]


def test_the_settings_of_the_head_come_back(tiny_bert: Path, tmp_path: Path) -> None:
    from lightft.tasks import TokenClassification

    head = TokenClassification(TYPES, label_all_subtokens=True, decoding="argmax")
    loader = ModelLoader(str(tiny_bert), task="token-classification", labels=TYPES, dtype="float32")
    trainer = LoRATrainer(loader, head=head, epochs=1, progress=False)
    folder = trainer.save(trainer.train(tagged_texts()), tmp_path / "adapter")
    assert lightft.load(folder).head == head


# --- plain PEFT folders


def plain_peft(folder: Path, base: Path, task_type: str) -> Any:
    torch.manual_seed(5)
    kind = BertForSequenceClassification if task_type == "SEQ_CLS" else BertForTokenClassification
    model = kind.from_pretrained(base, num_labels=2 if task_type == "SEQ_CLS" else 5)
    adapted = get_peft_model(
        model, LoraConfig(task_type=task_type, r=4, target_modules=["query"], init_lora_weights=False)
    )
    adapted.save_pretrained(str(folder))
    return adapted.eval()


def test_a_plain_peft_folder_opens_with_its_labels(tiny_bert: Path, tmp_path: Path) -> None:
    theirs = plain_peft(tmp_path / "plain", tiny_bert, "SEQ_CLS")
    with pytest.raises(AdapterError, match="is a plain PEFT folder, which does not name its labels"):
        lightft.load(tmp_path / "plain")
    predictor = lightft.load(tmp_path / "plain", labels=LABELS)
    for example in classified_texts():
        with torch.inference_mode():
            ids = torch.tensor([predictor.tokenizer(example.text)["input_ids"]])
            expected = theirs(input_ids=ids).logits.softmax(-1)[0].tolist()
        assert list(predictor(example.text).probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_a_plain_peft_tagger_opens_with_its_types(tiny_bert: Path, tmp_path: Path) -> None:
    theirs = plain_peft(tmp_path / "plain", tiny_bert, "TOKEN_CLS")
    predictor = lightft.load(tmp_path / "plain", labels=TYPES)
    with torch.inference_mode():
        ids = torch.tensor([[2, 20, 30, 3]])
        assert torch.allclose(predictor.model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-6)
    with pytest.raises(AdapterError, match="does not fit BertForTokenClassification"):
        lightft.load(tmp_path / "plain", labels=("PER",))


def test_a_plain_peft_folder_may_have_moved_from_its_base(tiny_bert: Path, tmp_path: Path) -> None:
    plain_peft(tmp_path / "plain", tiny_bert, "SEQ_CLS")
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    for name, error, message in (
        (None, AdapterError, "does not name its base model"),
        (str(tmp_path / "gone"), ModelLoadError, "There is no file or folder"),
    ):
        config["base_model_name_or_path"] = name
        (tmp_path / "plain" / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(error, match=message):
            lightft.load(tmp_path / "plain", labels=LABELS)
    assert lightft.load(tmp_path / "plain", labels=LABELS, base=str(tiny_bert))("film").label in LABELS


def test_a_plain_peft_folder_without_task_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    plain_peft(tmp_path / "plain", tiny_bert, "SEQ_CLS")
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    config["task_type"] = None
    (tmp_path / "plain" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="has task_type None; lightft opens SEQ_CLS, TOKEN_CLS, CAUSAL_LM"):
        lightft.load(tmp_path / "plain", labels=LABELS)


# --- checkpoints from elsewhere


def test_a_classifier_from_elsewhere_opens_by_itself(tiny_bert: Path, tmp_path: Path) -> None:
    theirs = save_classifier(tmp_path / "model", tiny_bert, ("bad", "good"))
    predictor = lightft.load(tmp_path / "model")
    assert predictor.head.labels == ("bad", "good")
    with torch.inference_mode():
        ids = torch.tensor([predictor.tokenizer("a good film")["input_ids"]])
        expected = theirs(input_ids=ids).logits.softmax(-1)[0].tolist()
    assert list(predictor("a good film").probabilities.values()) == pytest.approx(expected, abs=1e-6)


def test_a_classifier_without_names_asks_for_them(tiny_bert: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "model", tiny_bert, None)
    with pytest.raises(AdapterError, match=r"names its 2 outputs LABEL_0 to LABEL_1. Give their names in that order"):
        lightft.load(tmp_path / "model")
    answer = lightft.load(tmp_path / "model", labels=["no", "yes"])("a good film")
    assert list(answer.probabilities) == ["no", "yes"]


def test_as_many_names_as_outputs_are_asked_for(tiny_bert: Path, tmp_path: Path) -> None:
    save_classifier(tmp_path / "model", tiny_bert, None)
    with pytest.raises(InvalidSettingError, match=r"The model has 2 outputs.*; 3 labels were given"):
        lightft.load(tmp_path / "model", labels=["no", "maybe", "yes"])
    save_tagger(tmp_path / "tagger", tiny_bert, None)
    with pytest.raises(InvalidSettingError, match=r"The model has 5 outputs.*2 entity types; 3 labels were given"):
        lightft.load(tmp_path / "tagger", labels=["PER", "LOC", "ORG"])


def test_a_tagger_from_elsewhere_keeps_its_own_order_of_tags(tiny_bert: Path, tmp_path: Path) -> None:
    theirs = save_tagger(tmp_path / "model", tiny_bert, OWN_ORDER)
    predictor = lightft.load(tmp_path / "model")
    assert predictor.head.tags == OWN_ORDER
    assert set(predictor.head.labels) == {"PER", "LOC"}
    example = tagged("x", ["anna", "met", "bert", "in", "rome"])
    argmax = lightft.tasks.TokenClassification(predictor.head.labels, tags=OWN_ORDER, decoding="argmax")
    (prediction,) = argmax.predict(predictor.model, predictor.tokenizer, [example], max_length=64)
    with torch.inference_mode():
        ids = torch.tensor([predictor.tokenizer(example.text)["input_ids"]])
        best = theirs(input_ids=ids).logits[0].argmax(-1)[1:-1].tolist()
    assert prediction.tags == tuple(OWN_ORDER[tag] for tag in best)


@pytest.mark.parametrize("labels", [("PER", "LOC"), OWN_ORDER])
def test_a_tagger_without_names_takes_types_or_tags(tiny_bert: Path, tmp_path: Path, labels: tuple[str, ...]) -> None:
    save_tagger(tmp_path / "model", tiny_bert, None)
    with pytest.raises(AdapterError, match="names its 5 outputs LABEL_0 to LABEL_4"):
        lightft.load(tmp_path / "model")
    head = lightft.load(tmp_path / "model", labels=labels).head
    assert set(head.labels) == {"PER", "LOC"}
    assert head.tags == (OWN_ORDER if labels == OWN_ORDER else ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))


@pytest.mark.parametrize(
    "names",
    [("O", "LOC", "PER"), ("I-PER", "I-LOC", "O"), ("B-LOC", "I-LOC", "I-PER", "O")],
    ids=["bare types", "IO", "IOB1"],
)
def test_a_tagger_of_another_scheme_answers_as_a_pipeline(
    tiny_bert: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    model = save_tagger(tmp_path / "model", tiny_bert, names)
    theirs = pipeline(
        "token-classification", model=model, tokenizer=wordpiece_tokenizer(), aggregation_strategy="simple"
    )
    tag = lightft.load(tmp_path / "model")
    assert set(tag.head.labels) == {"LOC", "PER"}
    entities = 0
    # Each word is one token, so that tokens and words are the same.
    for text in ("anna met bert in new york and they saw a good film", "the film was bad but rome was good"):
        expected = theirs(text)
        found = tag(text)
        assert [(span.start, span.end, span.label) for span in found] == [
            (one["start"], one["end"], one["entity_group"]) for one in expected
        ]
        assert [span.score for span in found] == pytest.approx([float(one["score"]) for one in expected], abs=1e-5)
        entities += len(found)
    assert entities > 3


def test_a_tagger_of_parts_of_speech_answers_with_every_word(tiny_bert: Path, tmp_path: Path) -> None:
    names = ("NOUN", "VERB", "PUNCT")
    model = save_tagger(tmp_path / "model", tiny_bert, names)
    theirs = pipeline("token-classification", model=model, tokenizer=wordpiece_tokenizer())
    tag = lightft.load(tmp_path / "model")
    assert tag.head.labels == names
    expected = theirs("anna met bert in rome .")
    found = tag("anna met bert in rome .")
    assert [(span.text, span.label) for span in found] == [(one["word"], one["entity"]) for one in expected]
    assert [span.score for span in found] == pytest.approx([float(one["score"]) for one in expected], abs=1e-5)


def test_a_tagger_in_bilou_is_opened_and_scored(tiny_bert: Path, tmp_path: Path) -> None:
    names = ("O", *(f"{prefix}-{label}" for label in TYPES for prefix in "BILU"))
    save_tagger(tmp_path / "model", tiny_bert, names)
    tag = lightft.load(tmp_path / "model")
    assert tag.head.labels == TYPES
    scores = lightft.metrics.score_predictions(tag.predict(tagged_texts()), tag.head.metrics, TYPES)
    assert scores["span_f1"] == scores["span_f1_lenient"]


def test_names_of_the_outputs_can_be_written_into_the_config(tiny_bert: Path, tmp_path: Path) -> None:
    save_tagger(tmp_path / "model", tiny_bert, None)
    with pytest.raises(AdapterError, match=r'such as lightft serve, write them into its config\.json: "id2label"'):
        lightft.load(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["id2label"] = dict(enumerate(OWN_ORDER))
    del config["label2id"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert lightft.load(tmp_path / "model").head.tags == OWN_ORDER


def test_a_language_model_whose_answers_have_no_end_says_so(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"no end token, so that answers may go on.*Set eos_token"):
        lightft.load(folder)


def test_a_checkpoint_without_a_trained_head_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="is a BertModel, which has no classification"):
        lightft.load(tiny_bert)
    shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(
        json.dumps({**config, "architectures": ["BertForSequenceClassification"]})
    )
    with pytest.raises(
        AdapterError, match=r"has no trained head: classifier\.bias, classifier\.weight are not in the checkpoint"
    ):
        lightft.load(tmp_path / "model")


def test_a_language_model_opens_by_itself(tiny_llama: Path) -> None:
    predictor = lightft.load(tiny_llama)
    assert predictor.head.name == "causal-lm"
    assert isinstance(predictor("say the film"), str)


def test_an_adapter_on_a_hub_model_names_the_commit_and_gets_it_again(
    tiny_bert: Path, other_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub(monkeypatch, tmp_path / "cache") as hub:
        commit = hub.add_model("somebody/bert", tiny_bert)
        loader = ModelLoader("somebody/bert", labels=LABELS, dtype="float32")
        trainer = LoRATrainer(loader, adapter=AdapterSpec("lora", r=2), epochs=2, learning_rate=1e-2, progress=False)
        model = trainer.train(classified_texts())
        folder = trainer.save(model, tmp_path / "adapter")
        hub.add_model("somebody/bert", other_bert)
        predictor = lightft.load(folder)
        assert predictor.predict(classified_texts()) == trainer.predict(model, classified_texts())
    assert json.loads((folder / "adapter_config.json").read_text())["revision"] == commit


def test_spans_of_a_stream_are_those_of_the_examples(trained: dict[str, tuple[Path, Any]]) -> None:
    predictor = trained["token-classification"][1]
    examples = tagged_texts()
    streamed = list(predictor(iter(example.text for example in examples)))
    assert streamed == [list(prediction.predicted) for prediction in predictor.predict(examples)]
    assert Span(0, 4, "PER") in streamed[0]
