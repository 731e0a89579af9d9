"""The ten-line quick start of the README, word for word, against a small model and SST-2 rows from a Hub on this machine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lightft.contracts.tiny_models import Pair, save_base
from lightft.data import REFERENCE_SETS
from tests.hub_double import serve_hub

SST2 = REFERENCE_SETS["sst2"]
README = Path(__file__).parents[1] / "README.md"
SENTENCES = {
    "negative": ("it was a bad film", "the film was bad today"),
    "positive": ("it was a good film", "anna saw a good film"),
}


def _quick_start() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    return blocks[0]


def _sst2(folder: Path) -> Path:
    features = Features(
        {"idx": Value("int32"), "sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])}
    )
    for split, copies in (("train", 200), ("validation", 10), ("test", 1)):
        texts = [(text, label) for label, its_texts in enumerate(SENTENCES.values()) for text in its_texts] * copies
        rows = {
            "idx": list(range(len(texts))),
            "sentence": [text for text, _ in texts],
            "label": [-1 if split == "test" else label for _, label in texts],
        }
        (folder / "data").mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_quick_start_keeps_the_calls_and_their_order() -> None:
    calls = re.findall(r"\b(ModelLoader|load_model|load_sst2_dataset|LoRATrainer|train|evaluate)\(", _quick_start())
    assert calls == ["ModelLoader", "load_model", "load_sst2_dataset", "LoRATrainer", "train", "evaluate"]


def test_the_quick_start_runs_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_base(Pair("distilbert", "text-classification"), tmp_path / "model", with_head=False)
    with serve_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.add_model("distilbert/distilbert-base-uncased", model)
        commit = hub.add_dataset(SST2.repo, _sst2(tmp_path / "sst2"))
        # The revision is pinned to a commit of the real set, which no copy can have.
        monkeypatch.setitem(REFERENCE_SETS, "sst2", replace(SST2, revision=commit))
        exec(compile(_quick_start(), "README.md", "exec"), {})
    accuracy = float(capsys.readouterr().out.splitlines()[-1])
    assert accuracy == 1.0
