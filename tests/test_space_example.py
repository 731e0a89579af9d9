"""The app of examples/space answers as the model does, in the form that each component of Gradio takes."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lightft
from lightft import LoRATrainer, ModelLoader
from tests.tiny_models import LABELS, TYPES, classified_texts, tagged_texts

SPACE = Path(__file__).parent.parent / "examples" / "space"


@dataclass
class HighlightedText:
    """Of Gradio's component what the app uses: it cuts the text at the entities, as Gradio's does."""

    label: str
    show_legend: bool

    def shown(self, value: Mapping[str, Any]) -> list[tuple[str, str | None]]:
        pieces, last = [], 0
        for entity in sorted(value["entities"], key=lambda one: one["start"]):
            pieces.append((value["text"][last : entity["start"]], None))
            pieces.append((value["text"][entity["start"] : entity["end"]], entity["entity"]))
            last = entity["end"]
        return [*pieces, (value["text"][last:], None)]


@dataclass
class Label:
    label: str

    def shown(self, value: dict[str, float]) -> list[tuple[str, float]]:
        return sorted(value.items(), key=lambda pair: -pair[1])


@dataclass
class Textbox:
    label: str
    lines: int

    def shown(self, value: str) -> str:
        return value


@dataclass
class Interface:
    answer: Callable[[str], Any]
    inputs: Textbox
    outputs: Any
    examples: list[list[str]]
    cache_examples: bool
    flagging_mode: str
    title: str

    def ask(self, text: str) -> Any:
        return self.outputs.shown(self.answer(text))

    def launch(self) -> None:
        launched.append(self)


launched: list[Interface] = []


@pytest.fixture(autouse=True)
def gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package, whose parts take what Gradio 6's take, by the same names."""
    module = ModuleType("gradio")
    for part in (HighlightedText, Label, Textbox, Interface):
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, "gradio", module)
    launched.clear()


def launch(monkeypatch: pytest.MonkeyPatch, model: Path) -> Interface:
    """Run the app as a Space does."""
    monkeypatch.setenv("LIGHTFT_MODEL", str(model))
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    (interface,) = launched
    return interface


def train(rows: Any, labels: tuple[str, ...], task: str, base: Path, folder: Path) -> Path:
    loader = ModelLoader(str(base), task=task, labels=labels, dtype="float32")
    trainer = LoRATrainer(loader, epochs=12, batch_size=8, learning_rate=1e-2, progress=False)
    return Path(trainer.save(trainer.train(rows, rows), folder))


def test_entities_are_cut_out_of_the_text(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tmp_path: Path) -> None:
    adapter = train(tagged_texts(), TYPES, "token-classification", tiny_bert, tmp_path / "adapter")
    app = launch(monkeypatch, adapter)
    assert app.title == "Token classification with lightft"
    assert app.ask("anna met bert in rome") == [
        ("", None), ("anna", "PER"), (" met ", None), ("bert", "PER"), (" in ", None), ("rome", "LOC"), ("", None),
    ]  # fmt: skip
    (spans,) = lightft.load(adapter)(["anna met bert in rome"])
    assert [span.text for span in spans] == ["anna", "bert", "rome"]
    assert "".join(piece for piece, _ in app.ask(app.examples[0][0])) == app.examples[0][0]


def test_classes_have_their_probabilities(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tmp_path: Path) -> None:
    adapter = train(classified_texts(), LABELS, "text-classification", tiny_bert, tmp_path / "adapter")
    app = launch(monkeypatch, adapter)
    bars = app.ask("a good film")
    assert bars[0][0] == "positive"
    assert dict(bars) == lightft.load(adapter)("a good film").probabilities


def test_a_language_model_writes(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    app = launch(monkeypatch, tiny_llama)
    assert app.ask("say the film") == lightft.load(tiny_llama)("say the film")


def test_app_uses_public_names_of_lightft_alone() -> None:
    tree = ast.parse((SPACE / "app.py").read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lightft"
    }
    assert used
    assert used <= set(lightft.__all__)


def test_head_of_the_readme_names_the_app() -> None:
    head = re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    settings = dict(line.split(": ", 1) for line in head.splitlines())
    assert settings["sdk"] == "gradio"
    assert (SPACE / settings["app_file"]).is_file()
    assert re.fullmatch(r"6\.\d+\.\d+", settings["sdk_version"])
    requirements = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "lightft" in requirements
