"""Data sets of the Hub: what is read, at which commit, and what is said when it cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from huggingface_hub import constants
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

from lightft.data import REFERENCE_SETS, load_data
from lightft.errors import DataError
from lightft.records import Span
from tests.hub_double import HubDouble, no_hub, serve_hub

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubDouble]:
    with serve_hub(monkeypatch, tmp_path / "cache") as double:
        yield double


def write_parquet(path: Path, rows: list[dict], features: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)


def ner_features() -> Features:
    return Features(
        {"id": Value("string"), "tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=TAGS))}
    )


def ner_repository(folder: Path, first_word: str = "Ada") -> Path:
    for split in ("train", "validation", "test"):
        rows = [
            {"id": "0", "tokens": [first_word, "Lovelace", "met", split], "ner_tags": [1, 2, 0, 0]},
            {"id": "1", "tokens": ["no", "one", split], "ner_tags": [0, 0, 0]},
        ]
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows, ner_features())
    (folder / "README.md").write_text("a data set")
    return folder


def sentiment_repository(folder: Path) -> Path:
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])})
    for split, labels in {"train": [0, 1, 1], "validation": [1, 0], "test": [-1, -1]}.items():
        rows = [{"sentence": f"{split} {number}", "label": label} for number, label in enumerate(labels)]
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows, features)
    return folder


# --- reading


def test_numbered_tags_of_parquet_become_their_names(hub, tmp_path):
    commit = hub.add_dataset("lab/people", ner_repository(tmp_path / "repo"))
    data = load_data("lab/people")
    assert (data.task, data.labels) == ("token-classification", ("PER", "ORG"))
    assert data.train[0].text == "Ada Lovelace met train"
    assert data.train[0].target == (Span(0, 12, "PER"),)
    assert [example.id for example in data.test] == ["test-0", "test-1"]
    assert data.notes["hub"] == {
        "repo": "lab/people", "config": None, "revision": None, "commit": commit, "from_cache": False,
    }  # fmt: skip
    assert data.notes["files"]["test"] == ["test-00000-of-00001.parquet"]


def test_rows_whose_gold_label_is_hidden_are_left_out_and_counted(hub, tmp_path):
    hub.add_dataset("lab/sentiment", sentiment_repository(tmp_path / "repo"))
    data = load_data("lab/sentiment")
    assert data.labels == ("negative", "positive")
    assert [example.target for example in data.train] == ["negative", "positive", "positive"]
    assert data.test == ()
    assert data.notes["dropped_rows"] == {"test": {"without a gold label": 2}}
    assert "none of its test rows could be used" in str(data)


def test_pinned_revision_is_read_and_recorded(hub, tmp_path):
    old = hub.add_dataset("lab/people", ner_repository(tmp_path / "old", "Ada"), revision="v1")
    new = hub.add_dataset("lab/people", ner_repository(tmp_path / "new", "Emmy"))
    assert load_data("lab/people").notes["hub"]["commit"] == new
    for revision in ("v1", old):
        data = load_data("lab/people", revision=revision)
        assert data.train[0].text.startswith("Ada")
        assert data.notes["hub"]["commit"] == old


def test_only_the_named_configuration_is_downloaded(hub, tmp_path):
    for config, word in {"small": "Ada", "large": "Emmy"}.items():
        shutil.copytree(ner_repository(tmp_path / config, word) / "data", tmp_path / "repo" / config)
    hub.add_dataset("lab/sizes", tmp_path / "repo")
    assert load_data("lab/sizes:large").train[0].text.startswith("Emmy")
    assert not any("resolve" in request and "small" in request for request in hub.requests)
    with pytest.raises(DataError, match="configurations large, small. Name one: 'lab/sizes:large'"):
        load_data("lab/sizes")
    with pytest.raises(DataError, match="no configuration 'medium'. It has large, small"):
        load_data("lab/sizes:medium")


def test_one_file_without_a_split_in_its_name_is_split_like_a_local_file(hub, tmp_path):
    rows = [{"instruction": f"count to {n}", "input": "", "output": "1, 2, …"} for n in range(40)]
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "alpaca.json").write_text(json.dumps(rows))
    hub.add_dataset("lab/alpaca", tmp_path / "repo")
    data = load_data("lab/alpaca")
    assert [len(data.train), len(data.validation), len(data.test)] == [28, 4, 8]


def test_data_is_read_from_the_cache_when_the_hub_is_gone(monkeypatch, tmp_path):
    with serve_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.add_dataset("lab/people", ner_repository(tmp_path / "repo"))
        online = load_data("lab/people")
    offline = load_data("lab/people")
    assert offline.fingerprint == online.fingerprint
    assert offline.notes["hub"] == {**online.notes["hub"], "from_cache": True}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_data("lab/people").fingerprint == online.fingerprint


# --- the sets with short names


def test_short_name_reads_the_converted_branch_of_conll2003(hub, tmp_path):
    for split in ("train", "validation", "test"):
        row = {"id": "0", "tokens": ["Ada", split], "ner_tags": [1, 0]}
        write_parquet(tmp_path / "repo" / "conll2003" / split / "0000.parquet", [row], ner_features())
    script = tmp_path / "script"
    script.mkdir()
    (script / "conll2003.py").write_text("raise SystemExit")
    hub.add_dataset("eriktks/conll2003", script)
    commit = hub.add_dataset("eriktks/conll2003", tmp_path / "repo", revision="refs/convert/parquet")
    data = load_data("conll2003")
    assert [len(data.train), len(data.validation), len(data.test)] == [1, 1, 1]
    assert data.notes["hub"]["commit"] == commit


def test_few_nerd_is_read_with_its_fine_types_in_io(hub, tmp_path):
    features = Features(
        {
            "tokens": Sequence(Value("string")),
            "ner_tags": Sequence(ClassLabel(names=["O", "person"])),
            "fine_ner_tags": Sequence(ClassLabel(names=["O", "person-actor", "person-scholar"])),
        }
    )
    row = {"tokens": ["Ada", "Lovelace", "Emmy"], "ner_tags": [1, 1, 1], "fine_ner_tags": [2, 2, 1]}
    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / "repo" / "supervised" / f"{split}-00000-of-00001.parquet", [row], features)
    hub.add_dataset("DFKI-SLT/few-nerd", tmp_path / "repo")
    fine = load_data("few-nerd", revision="main")
    assert fine.labels == ("person-actor", "person-scholar")
    assert fine.train[0].target == (Span(0, 12, "person-scholar"), Span(13, 17, "person-actor"))
    assert fine.notes["tagging_scheme"] == "IO"
    assert load_data("few-nerd", revision="main", label_column="ner_tags").labels == ("person",)


def test_multinerd_is_read_in_english_with_the_names_of_its_31_tags(hub, tmp_path):
    rows = [
        {"tokens": ["Ada", "drove"], "ner_tags": [1, 0], "lang": "en"},
        {"tokens": ["a", "Volvo"], "ner_tags": [0, 29], "lang": "en"},
        {"tokens": ["Ada"], "ner_tags": [1], "lang": "de"},
    ]
    for split in ("train", "val", "test"):
        (tmp_path / "repo" / split).mkdir(parents=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "repo" / split / f"{split}_en.jsonl").write_text(lines)
        (tmp_path / "repo" / split / f"{split}_de.jsonl").write_text("not even JSON")
    hub.add_dataset("Babelscape/multinerd", tmp_path / "repo")
    data = load_data("multinerd", revision="main")
    assert data.labels == ("PER", "ORG", "LOC", "ANIM", "BIO", "CEL", "DIS", "EVE", "FOOD", "INST", "MEDIA", "MYTH",
                           "PLANT", "TIME", "VEHI")  # fmt: skip
    assert data.test[1].target == (Span(2, 7, "VEHI"),)
    assert data.notes["dropped_rows"]["test"] == {"lang is not 'en'": 1}
    assert len(REFERENCE_SETS["multinerd"].tag_names) == 31


# --- what is said when it cannot be read


def test_set_that_is_only_a_loading_script_names_the_converted_branch(hub, tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "people.py").write_text("raise SystemExit")
    hub.add_dataset("lab/people", tmp_path / "repo")
    with pytest.raises(DataError, match=r"loading script \(people.py\).*revision=\"refs/convert/parquet\""):
        load_data("lab/people")


def test_unknown_set_is_named_with_what_to_check(hub):
    with pytest.raises(DataError, match="no data set 'lab/poeple' on the Hub .*Check the spelling"):
        load_data("lab/poeple")


def test_unknown_revision_is_named(hub, tmp_path):
    hub.add_dataset("lab/people", ner_repository(tmp_path / "repo"))
    with pytest.raises(DataError, match="lab/people has no revision 'v9'"):
        load_data("lab/people", revision="v9")


def test_unreachable_hub_is_named_with_what_to_check(monkeypatch, tmp_path):
    url = no_hub(monkeypatch, tmp_path / "cache")
    with pytest.raises(DataError, match=f"{url}.* cannot be reached for the data set lab/people.*HF_ENDPOINT"):
        load_data("lab/people")


def test_offline_mode_without_a_cached_copy_is_explained(monkeypatch, tmp_path):
    no_hub(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="Unset HF_HUB_OFFLINE"):
        load_data("lab/people")


def test_missing_part_of_a_split_is_noticed(hub, tmp_path):
    folder = ner_repository(tmp_path / "repo") / "data"
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")
    hub.add_dataset("lab/people", tmp_path / "repo")
    with pytest.raises(DataError, match="train-00000-of-00002.parquet is one of 2 parts, but there are 1"):
        load_data("lab/people")


# --- the double itself


def test_a_model_loads_from_the_double_at_a_pinned_revision(hub, tmp_path):
    folder = tmp_path / "model"
    torch.manual_seed(0)
    config = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = BertModel(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n")
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    commit = hub.add_model("lab/tiny-bert", folder, revision="v1")
    loaded = AutoModel.from_pretrained("lab/tiny-bert", revision=commit)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert AutoTokenizer.from_pretrained("lab/tiny-bert", revision="v1")("hello")["input_ids"] == [2, 5, 3]
    with pytest.raises(OSError, match="not a valid git identifier"):
        AutoModel.from_pretrained("lab/tiny-bert")
