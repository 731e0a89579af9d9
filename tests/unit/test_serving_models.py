"""What is served: trained adapters, answering as they do offline, and language models that write."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForTokenClassification

import lightft
from lightft import LoRATrainer, Message, ModelLoader
from lightft.errors import InvalidSettingError, LightFTError, ModelLoadError
from lightft.serving import ServedModels, ServeSettings, create_app
from lightft.tasks.conversations import prompt_tokens
from tests.asgi_client import Reply, call, send
from tests.tiny_models import (
    LABELS,
    SENTENCES,
    TYPES,
    classified_texts,
    instructions,
    tagged_texts,
    wordpiece_tokenizer,
)

TEXTS = [*SENTENCES, *(example.text for example in tagged_texts(12)), "", " ".join(SENTENCES * 6)]


@pytest.fixture(scope="module")
def runs(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``news/adapter``, ``people/adapter`` (taggers) and ``mood/adapter`` (a classifier) of one base."""
    folder = tmp_path_factory.mktemp("runs")
    rows: dict[str, Any] = {"news": tagged_texts(), "people": tagged_texts(9), "mood": classified_texts()}
    for name, examples in rows.items():
        task, labels = ("text-classification", LABELS) if name == "mood" else ("token-classification", TYPES)
        loader = ModelLoader(str(tiny_bert), task=task, labels=labels, dtype="float32")
        trainer = LoRATrainer(loader, epochs=8, batch_size=8, learning_rate=1e-2, progress=False)
        trainer.save(trainer.train(examples), folder / name / "adapter")
    return folder


@pytest.fixture(scope="module")
def app(runs: Path) -> Any:
    opened = ServedModels.open([str(runs / name / "adapter") for name in ("news", "people", "mood")])
    return create_app(opened, ServeSettings(queue_texts=1000))


@pytest.fixture(scope="module")
def writer(tiny_llama: Path) -> Any:
    return create_app(ServedModels.open([f"writer={tiny_llama}"]))


def entities(answer: list[Any]) -> list[Any]:
    return [(span.start, span.end, span.label, span.text) for span in answer]


def served_entities(result: dict[str, Any]) -> list[Any]:
    return [(entity["start"], entity["end"], entity["label"], entity["text"]) for entity in result["entities"]]


# --- equal to offline


def test_one_text_is_answered_exactly_as_offline(app: Any, runs: Path) -> None:
    tagger, mood = lightft.load(runs / "news/adapter"), lightft.load(runs / "mood/adapter")
    for text in TEXTS:
        served = call(app, "POST", "/predict", {"text": text}).json()
        assert served["entities"] == [
            {"text": span.text, "label": span.label, "start": span.start, "end": span.end, "score": span.score}
            for span in tagger(text)
        ]
        served = call(app, "POST", "/predict", {"text": text, "model": "mood"}).json()
        answer = mood(text)
        assert (served["label"], served["score"]) == (answer.label, answer.score)
        assert served["probabilities"] == answer.probabilities


def test_many_requests_at_once_are_answered_as_offline(app: Any, runs: Path) -> None:
    offline = {name: lightft.load(runs / name / "adapter") for name in ("news", "people", "mood")}
    asked = [(name, text) for text in TEXTS * 2 for name in offline]

    async def at_once() -> list[Reply]:
        return await asyncio.gather(
            *(send(app, "POST", "/predict", {"text": text, "model": name}) for name, text in asked)
        )

    found = 0
    for (name, text), reply in zip(asked, asyncio.run(at_once()), strict=True):
        served, answer = reply.json(), offline[name](text)
        if name == "mood":
            assert served["label"] == answer.label
            assert served["probabilities"] == pytest.approx(answer.probabilities, abs=1e-6)
        else:
            assert served_entities(served) == entities(answer)
            scores = [entity["score"] for entity in served["entities"]]
            assert scores == pytest.approx([span.score for span in answer], abs=1e-6)
            found += len(scores)
    assert found > 50


def test_a_long_text_is_tagged_to_its_end(app: Any) -> None:
    text = TEXTS[-1]
    served = call(app, "POST", "/predict", {"text": text}).json()["entities"]
    assert len(text.split()) > 200
    assert served[-1]["start"] > len(text) - 60


# --- what is opened


def test_adapters_of_one_base_share_it_and_are_named_after_their_runs(runs: Path) -> None:
    models = ServedModels.open([str(runs / "news" / "adapter"), f"feelings={runs / 'mood' / 'adapter'}"])
    assert list(models) == ["news", "feelings"]
    assert models.default == "news"
    assert models["news"].base == "bert", "the folders of this machine are not shown"
    assert len(models.bases) == 1
    assert models["news"].adapter == "lora"
    assert (models["news"].task, models["news"].labels) == ("token-classification", TYPES)
    assert models["feelings"].task == "text-classification"
    assert models["news"].precision == "float32"


def test_a_merged_model_is_served_beside_an_adapter(runs: Path, tmp_path: Path) -> None:
    lightft.export(runs / "news/adapter", to="merged", out=tmp_path / "merged")
    models = ServedModels.open([str(runs / "news/adapter"), str(tmp_path / "merged")])
    assert [(facts.name, facts.adapter) for facts in models.values()] == [("news", "lora"), ("merged", None)]
    assert len(models.bases) == 2
    app = create_app(models)
    for text in TEXTS[:4]:
        one, other = (call(app, "POST", "/predict", {"text": text, "model": name}).json() for name in models)
        assert served_entities(one) == served_entities(other)


def test_a_model_in_memory_is_served(runs: Path) -> None:
    predictor = lightft.load(runs / "news/adapter")
    app = create_app(ServedModels.of(mine=predictor))
    served = call(app, "POST", "/predict", {"text": SENTENCES[2]}).json()
    assert served["model"] == "mine"
    assert served_entities(served) == entities(predictor(SENTENCES[2]))


def test_names_must_differ_and_be_names(runs: Path) -> None:
    path = str(runs / "news/adapter")
    with pytest.raises(InvalidSettingError, match="Two models are named 'news'"):
        ServedModels.open([path, path])
    with pytest.raises(InvalidSettingError, match="cannot be the name"):
        ServedModels.open([f"a name={path}"])
    with pytest.raises(InvalidSettingError, match="no model to serve"):
        ServedModels.open([])


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", "lightft.json", "tokenizer.json"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_damaged_adapter_is_refused_in_a_sentence(runs: Path, tmp_path: Path, file: str, beside: bool) -> None:
    folder = tmp_path / "broken" / "adapter"
    shutil.copytree(runs / "news/adapter", folder)
    cut_in_half(folder / file)
    if file == "tokenizer.json":
        # The tokenizer is the base's: the adapter's copy is for programs that open it alone.
        assert list(ServedModels.open([str(folder)])) == ["broken"]
        return
    with pytest.raises(LightFTError) as refused:
        ServedModels.open([str(folder), *([str(runs / "people/adapter")] if beside else [])])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_checkpoint_is_refused_in_a_sentence(runs: Path, tmp_path: Path, file: str) -> None:
    lightft.export(runs / "news/adapter", to="merged", out=tmp_path / "merged")
    cut_in_half(tmp_path / "merged" / file)
    with pytest.raises(LightFTError) as refused:
        ServedModels.open([str(tmp_path / "merged")])
    assert "\n" not in str(refused.value)


def test_a_service_computes_with_at_least_one_thread(runs: Path) -> None:
    with pytest.raises(InvalidSettingError, match="threads is 0. Give 1 or more"):
        ServedModels.open([str(runs / "news/adapter")], threads=0)


@pytest.mark.parametrize("name", ["news", "mood"])
def test_weights_that_are_no_numbers_are_refused_and_named(runs: Path, name: str) -> None:
    predictor: Any = lightft.load(runs / name / "adapter")
    weights = dict(predictor.model.named_parameters())
    damaged = next(key for key in weights if "layer.0" in key and "lora" not in key and key.endswith("weight"))
    weights[damaged].data.view(-1)[3] = math.nan
    with pytest.raises(ModelLoadError) as refused:
        ServedModels.of(damaged=predictor)
    assert f"'damaged' opens, but cannot compute: there are values in {damaged} that are no" in str(refused.value)


def test_a_graph_whose_scores_are_no_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").touch()
    opened = SimpleNamespace(description=SimpleNamespace(padding=0), logits=lambda rows: [np.full((1, 3), np.nan)])
    monkeypatch.setattr("lightft.portable.load_onnx", lambda folder, threads: opened)
    with pytest.raises(ModelLoadError, match="'graph' opens, but cannot compute: its scores"):
        ServedModels.open([f"graph={tmp_path}"])


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_at_the_start(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=64,
    )
    config.id2label = {0: "O", 1: "B-PER", 2: "I-PER"}
    BertForTokenClassification(config).save_pretrained(tmp_path)
    wordpiece_tokenizer().save_pretrained(tmp_path)
    app = create_app(ServedModels.open([f"small={tmp_path}"]))
    with pytest.raises(ModelLoadError, match="'small' opens, but cannot compute: IndexError") as refused:
        asyncio.run(app.state.service.start())
    assert "\n" not in str(refused.value)


# --- writing

CONVERSATION = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "say the film"}]


def events_of(reply: Reply) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in reply.body.decode().split("\n\n") if line]


def test_what_is_written_is_what_is_written_offline(writer: Any, tiny_llama: Path) -> None:
    offline = lightft.load(tiny_llama)
    served = call(writer, "POST", "/generate", {"prompt": "say the film", "max_new_tokens": 20}).json()
    assert served["text"] == offline.generate("say the film", max_new_tokens=20)
    assert (served["model"], served["new_tokens"], served["finish"]) == ("writer", 20, "length")
    messages = [Message(**message) for message in CONVERSATION]
    served = call(writer, "POST", "/generate", {"messages": CONVERSATION, "max_new_tokens": 9}).json()
    assert served["text"] == offline.generate(messages, max_new_tokens=9)


def test_the_pieces_of_a_stream_are_the_whole(writer: Any) -> None:
    asked = {"messages": CONVERSATION, "max_new_tokens": 40}
    whole = call(writer, "POST", "/generate", asked).json()
    reply = call(writer, "POST", "/generate", {**asked, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *pieces, last = events_of(reply)
    assert "".join(piece["text"] for piece in pieces) == whole["text"]
    assert last == {"done": True, "new_tokens": whole["new_tokens"], "finish": whole["finish"]}
    assert len(reply.pieces) > 2


def test_a_model_that_ends_by_itself_says_so(tiny_llama: Path) -> None:
    predictor: Any = lightft.load(tiny_llama)
    prompt = torch.tensor([prompt_tokens([Message("user", "say")], predictor.tokenizer)])
    first = int(predictor.model(prompt).logits[0, -1].argmax())
    predictor.model.generation_config.eos_token_id = [2, first]
    app = create_app(ServedModels.of(writer=predictor))
    served = call(app, "POST", "/generate", {"prompt": "say", "max_new_tokens": 20}).json()
    assert (served["new_tokens"], served["finish"]) == (1, "end")


def test_writing_stops_when_the_client_goes_away(writer: Any) -> None:
    async def leave_early() -> Reply:
        leave = asyncio.Event()
        asked = {"prompt": "say", "max_new_tokens": 200, "stream": True}
        reply = asyncio.ensure_future(send(writer, "POST", "/generate", asked, leave=leave))
        await asyncio.sleep(0.05)
        leave.set()
        await reply
        # The next one does not wait for the 200 tokens of the first.
        assert (await send(writer, "POST", "/generate", {"prompt": "say", "max_new_tokens": 1})).status == 200
        return await reply

    reply = asyncio.run(leave_early())
    assert b"done" not in reply.body
    assert writer.state.service.writer_of("writer").waiting == 0


def test_a_prompt_must_fit_with_what_is_to_be_written(writer: Any) -> None:
    reply = call(writer, "POST", "/generate", {"prompt": "film " * 400})
    assert reply.status == 413
    assert "tokens" in reply.json()["detail"][0]["msg"]
    streamed = call(writer, "POST", "/generate", {"prompt": "film " * 400, "stream": True})
    assert streamed.status == 413


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no: ' + messages[0].content) }}", "{{ 1 / 0 }}", "{# nothing #}"]
)
def test_a_template_that_makes_no_prompt_is_no_error_of_the_service(tiny_llama: Path, template: str) -> None:
    predictor: Any = lightft.load(tiny_llama)
    predictor.tokenizer.chat_template = template
    app = create_app(ServedModels.of(writer=predictor))
    reply = call(app, "POST", "/generate", {"prompt": "zebra"})
    assert (reply.status, reply.json()["detail"][0]["type"]) == (422, "conversation")
    assert "zebra" not in reply.body.decode()
    with pytest.raises(ModelLoadError, match="'writer' cannot be asked anything: its chat template"):
        asyncio.run(app.state.service.start())


def test_writing_that_takes_too_long_is_refused(tiny_llama: Path) -> None:
    app = create_app(ServedModels.open([f"writer={tiny_llama}"]), ServeSettings(generation_seconds=0.02))
    assert call(app, "POST", "/generate", {"prompt": "say", "max_new_tokens": 200}).status == 504


def test_adapters_of_one_base_write_each_its_own(tiny_llama: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("first", "second")):
        loader = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32")
        trainer = LoRATrainer(loader, epochs=3, batch_size=4, learning_rate=5e-2, seed=number, progress=False)
        trainer.save(trainer.train(instructions(4 + 4 * number)), tmp_path / name / "adapter")
    opened = ServedModels.open([str(tmp_path / name / "adapter") for name in ("first", "second")])
    assert len(opened.bases) == 1
    app = create_app(opened)

    async def both() -> list[Reply]:
        async with app.router.lifespan_context(app):
            asked = ({"prompt": "say the film", "max_new_tokens": 8, "model": name} for name in opened)
            return await asyncio.gather(*(send(app, "POST", "/generate", body) for body in asked))

    first, second = (reply.json()["text"] for reply in asyncio.run(both()))
    for name, text in (("first", first), ("second", second)):
        assert text == lightft.load(tmp_path / name / "adapter").generate("say the film", max_new_tokens=8)
    assert first != second


def test_a_writer_answers_no_texts(writer: Any) -> None:
    reply = call(writer, "POST", "/predict", {"text": "a"})
    assert (reply.status, "/generate" in reply.body.decode()) == (422, True)
