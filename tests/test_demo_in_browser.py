"""The service's own page in a real browser, asking the real service with models that were trained here."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

import lightft
from lightft import LoRATrainer, ModelLoader, Span
from lightft.serving import ServedModels, ServeSettings, create_app
from tests.browser import Browser
from tests.demo_page import ask, choose, marks, opened, shown, write
from tests.tiny_models import LABELS, TYPES, classified_texts, tagged_texts

TEXT = "🗽👩‍👩‍👧 anna met bert in rome\n🎬 then anna saw new york"


@pytest.fixture(scope="module")
def models(tiny_bert: Path, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two taggers, of which one has hardly learned, a classifier, and a model that writes."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "tagger": train(tagged_texts(), TYPES, "token-classification", tiny_bert, folder / "tagger", epochs=12),
        "beginner": train(tagged_texts(), TYPES, "token-classification", tiny_bert, folder / "beginner", epochs=2),
        "films": train(classified_texts(), LABELS, "text-classification", tiny_bert, folder / "films", epochs=12),
        "writer": str(tiny_llama),
    }


def train(rows: Any, labels: tuple[str, ...], task: str, base: Path, folder: Path, epochs: int) -> str:
    loader = ModelLoader(str(base), task=task, labels=labels, dtype="float32")
    trainer = LoRATrainer(loader, epochs=epochs, batch_size=8, learning_rate=1e-2, progress=False)
    return str(trainer.save(trainer.train(rows, rows), folder))


@contextmanager
def running(models: dict[str, str], settings: ServeSettings | None = None) -> Iterator[str]:
    """Serve the models on a free port until the block ends."""
    served = ServedModels.open([f"{name}={path}" for name, path in models.items()], device="cpu")
    config = uvicorn.Config(create_app(served, settings), ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def url(models: dict[str, str]) -> Iterator[str]:
    with running(models) as address:
        yield address


def spans_of(model: str, text: str) -> list[Span]:
    spans: list[Span] = lightft.load(model, device="cpu")(text)
    return spans


def test_entities_of_a_typed_text_are_marked_where_the_model_found_them(
    browser: Browser, url: str, models: dict[str, str]
) -> None:
    page = opened(browser, url)
    assert shown(page, "h1") == "tagger"
    assert shown(page, "#service") == f"lightft {lightft.__version__} · 4 models"
    assert shown(page, "#facts").startswith("token classification · lora on ")
    write(page, TEXT)
    ask(page)
    found = spans_of(models["tagger"], TEXT)
    assert [span.text for span in found[:3]] == ["anna", "bert", "rome"]
    assert marks(page) == [(span.text, f"{span.label} {span.score:.2f}", False) for span in found]
    counts = Counter(span.label for span in found)
    assert shown(page, ".legend") == f"LOC\n{counts['LOC']}\nPER\n{counts['PER']}"

    page.run("document.querySelector('.legend button').focus()")
    page.press(" ")
    assert [text for text, _, _ in marks(page)] == [span.text for span in found if span.label == "PER"]
    assert page.screenshot().startswith(b"\x89PNG")
    assert page.complaints() == []
    page.close()


def test_two_models_are_compared(browser: Browser, url: str, models: dict[str, str]) -> None:
    page = opened(browser, url, width=360)
    write(page, TEXT)
    choose(page, "other", "beginner")
    page.press("Enter", ctrl=True)
    page.until("document.querySelectorAll('article mark').length > 0")
    found = [spans_of(models[name], TEXT) for name in ("tagger", "beginner")]
    # The beginner is no test of the page unless it errs.
    alone = [[span for span in found[0] if span not in found[1]], [span for span in found[1] if span not in found[0]]]
    assert alone[0]
    for column in (0, 1):
        assert marks(page, column + 1) == [
            (span.text, f"{span.label} {span.score:.2f}", span in alone[column]) for span in found[column]
        ]
    same = len(found[0]) - len(alone[0])
    assert shown(page, "#difference").startswith(f"{same} entit{'y is' if same == 1 else 'ies are'} the same in both. ")
    assert page.run("document.scrollingElement.scrollWidth") == 360
    assert page.complaints() == []
    page.close()


def test_classes_and_written_texts_are_shown(browser: Browser, url: str, models: dict[str, str]) -> None:
    page = opened(browser, url)
    choose(page, "model", "films")
    write(page, "a good film")
    ask(page)
    said = lightft.load(models["films"], device="cpu")("a good film")
    assert shown(page, "h2") == said.label == "positive"
    bars = page.run("[...document.querySelectorAll('.bars li')].map(bar => bar.innerText.split('\\n'))")
    assert bars == [[label, f"{100 * said.probabilities[label]:.1f} %"] for label in ("positive", "negative")]

    choose(page, "model", "writer")
    write(page, "say the film")
    page.run("document.getElementById('most').value = 12")
    ask(page)
    written = lightft.load(models["writer"], device="cpu").generate("say the film", max_new_tokens=12)
    assert written
    assert page.run("JSON.parse(document.querySelector('pre').textContent).text") == written
    assert shown(page, "h2").startswith("12 tokens")
    assert page.complaints() == []
    page.close()


def test_what_the_service_refuses_is_said(browser: Browser, models: dict[str, str]) -> None:
    with running({"films": models["films"]}, ServeSettings(api_key="se-cret", max_characters=40)) as url:
        page = browser.open(f"{url}/demo")
        page.until("!document.getElementById('key-form').hidden")
        page.type("se-cret")
        page.press("Enter")
        page.until("!document.getElementById('ask').hidden")
        write(page, "much too long " * 10)
        page.click("#go")
        page.until("!document.getElementById('problem').hidden")
        assert "40" in shown(page, "#problem")
        write(page, "a good film")
        ask(page)
        assert shown(page, "h2") == "positive"
        assert page.run("document.getElementById('problem').hidden")
        assert [one for one in page.complaints() if "status of 4" not in one] == []
        page.close()
