"""Adapter folders: whole or not at all, readable by peft, and refused on any base they were not trained on."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.checkpoint import MANIFEST_NAME, Manifest, save_adapter, tokenizer_digest
from lightft.errors import AdapterError, ModelLoadError
from lightft.models import find_model
from tests.tiny_models import LABELS, classified_texts, save_bert, wordpiece_tokenizer

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A trained adapter on disk, and the model in memory."""
    loader = ModelLoader(str(base), labels=LABELS, dtype="float32")
    trainer = LoRATrainer(loader, epochs=4, learning_rate=1e-2, progress=False)
    model = trainer.train(classified_texts(), classified_texts(), lora_r=4)
    return trainer.save(model, tmp_path_factory.mktemp("saved") / "adapter"), trainer.predictor(model)


@pytest.fixture
def adapter(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the adapter's folder, to do what one likes with."""
    return Path(shutil.copytree(saved[0], tmp_path / "adapter"))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    described = json.loads((folder / MANIFEST_NAME).read_text())
    change(described)
    (folder / MANIFEST_NAME).write_text(json.dumps(described))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_a_loaded_adapter_predicts_what_the_saved_one_did(saved: tuple[Path, Any]) -> None:
    folder, predictor = saved
    examples = classified_texts()
    assert lightft.load(folder).predict(examples) == predictor.predict(examples)


def test_the_folder_says_everything_needed_to_use_it(adapter: Path, base: Path) -> None:
    manifest = Manifest.read(adapter)
    assert (manifest.task, manifest.labels, manifest.max_length) == ("text-classification", LABELS, 64)
    assert manifest.adapter["kind"] == "lora"
    assert manifest.adapter["params"]["r"] == 4
    assert manifest.base["name"] == str(base)
    assert manifest.base["digest"] == find_model(base).digest()
    assert manifest.base["dtype"] == "float32"
    assert manifest.training["learning_rate"] == 1e-2
    assert manifest.tokenizer_digest == tokenizer_digest(wordpiece_tokenizer())
    assert set(manifest.versions) >= {"lightft", "torch", "transformers", "peft"}
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert sorted(file.name for file in adapter.iterdir()) == [
        "README.md", "adapter_config.json", WEIGHTS, MANIFEST_NAME, "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_the_head_is_saved_and_the_base_is_not(adapter: Path) -> None:
    names = load_file(adapter / WEIGHTS)
    assert {name for name in names if "lora" not in name} == {
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    }


def test_peft_reads_the_folder_without_us(saved: tuple[Path, Any], base: Path) -> None:
    folder, predictor = saved
    encodings, _ = predictor.head.encode(classified_texts(), predictor.tokenizer, 64)
    batch = predictor.head.collate(encodings, predictor.tokenizer)
    batch.pop("labels")
    bare = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    theirs = PeftModel.from_pretrained(bare, str(folder)).eval()
    alone = AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=2).eval()
    with torch.inference_mode():
        ours = predictor.model(**batch).logits
        assert torch.equal(ours, theirs(**batch).logits)
        assert torch.equal(ours, alone(**batch).logits)


def test_weights_of_another_base_are_refused_by_name(adapter: Path, base: Path, other_bert: Path) -> None:
    with pytest.raises(AdapterError, match=re.escape(f"trained on {str(base)!r} with the weights sha256:")) as caught:
        lightft.load(adapter, base=str(other_bert))
    assert str(other_bert) in str(caught.value)
    assert "lightft.load(path, base=...)" in str(caught.value)


def test_a_base_that_moved_is_accepted_where_it_is_now(
    adapter: Path, base: Path, tmp_path: Path, saved: tuple[Path, Any]
) -> None:
    change_manifest(adapter, lambda described: described["base"].update(name=str(tmp_path / "gone")))
    with pytest.raises(ModelLoadError, match="There is no file or folder"):
        lightft.load(adapter)
    moved = shutil.copytree(base, tmp_path / "moved")
    assert lightft.load(adapter, base=str(moved)).predict(classified_texts()) == saved[1].predict(classified_texts())


def test_a_missing_tensor_is_refused(adapter: Path) -> None:
    name = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.pop(name))
    with pytest.raises(AdapterError, match=re.escape(f"1 tensors are missing (first: {name!r}), 0 are unexpected")):
        lightft.load(adapter)


def test_a_missing_head_is_refused(adapter: Path) -> None:
    change_tensors(
        adapter, lambda tensors: [tensors.pop(f"base_model.model.classifier.{part}") for part in ("weight", "bias")]
    )
    with pytest.raises(AdapterError, match=r"the tensor 'base_model\.model\.classifier\.weight' is missing"):
        lightft.load(adapter)


def test_an_unexpected_tensor_is_refused(adapter: Path) -> None:
    name = "base_model.model.bert.encoder.layer.2.attention.self.query.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.update({name: torch.zeros(64, 4)}))
    with pytest.raises(AdapterError, match=re.escape(f"0 tensors are missing, 1 are unexpected (first: {name!r})")):
        lightft.load(adapter)


def test_a_tensor_of_another_shape_is_refused(adapter: Path) -> None:
    name = "base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.update({name: torch.zeros(32, 4)}))
    with pytest.raises(AdapterError, match="does not fit BertForSequenceClassification"):
        lightft.load(adapter)


def test_an_adapter_without_weights_is_refused(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match=r"has no adapter_model.safetensors: the adapter's weights are missing"):
        lightft.load(adapter)


def test_weights_that_are_cut_short_are_refused(adapter: Path) -> None:
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(AdapterError, match="damaged"):
        lightft.load(adapter)


def test_another_tokenizer_is_refused(adapter: Path, base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    definition = json.loads((other / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    vocabulary["good"], vocabulary["bad"] = vocabulary["bad"], vocabulary["good"]
    (other / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(AdapterError, match=r"is not the one the adapter in .* was trained with"):
        lightft.load(adapter, base=str(other))


def test_a_tokenizer_is_the_same_however_it_was_last_called() -> None:
    tokenizer = wordpiece_tokenizer()
    digest = tokenizer_digest(tokenizer)
    tokenizer(["a", "a long text"], padding=True, truncation=True, max_length=3)
    assert tokenizer_digest(tokenizer) == digest
    tokenizer.add_tokens(["zzz"])
    assert tokenizer_digest(tokenizer) != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda described: described.update(format=99), "has format 99; this lightft reads up to 1"),
        (lambda described: described.pop("labels"), "is damaged"),
        (lambda described: described.pop("base"), "is damaged"),
        (lambda described: described.update(more=1), "is damaged"),
    ],
)
def test_a_manifest_that_is_not_whole_or_too_new_is_refused(adapter: Path, change: Any, message: str) -> None:
    change_manifest(adapter, change)
    with pytest.raises(AdapterError, match=message):
        lightft.load(adapter)


def test_a_manifest_that_is_cut_short_is_refused(adapter: Path) -> None:
    text = (adapter / MANIFEST_NAME).read_text()
    (adapter / MANIFEST_NAME).write_text(text[: len(text) // 2])
    with pytest.raises(AdapterError, match=r"lightft\.json is damaged"):
        lightft.load(adapter)


def test_a_manifest_reads_back_as_it_was_written(adapter: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(adapter)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_a_save_that_fails_leaves_the_old_folder_and_no_other(
    saved: tuple[Path, Any], adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in adapter.iterdir()}

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(saved[1].tokenizer, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_adapter(saved[1].model, saved[1].tokenizer, Manifest.read(adapter), adapter)
    assert {file.name: file.read_bytes() for file in adapter.iterdir()} == before


def test_saving_again_replaces_the_folder(saved: tuple[Path, Any], adapter: Path) -> None:
    (adapter / "left-over.txt").touch()
    save_adapter(saved[1].model, saved[1].tokenizer, Manifest.read(adapter), adapter)
    assert not (adapter / "left-over.txt").exists()
    assert [file.name for file in adapter.parent.iterdir()] == ["adapter"]
    assert lightft.load(adapter).predict(classified_texts()) == saved[1].predict(classified_texts())


def test_what_is_no_model_of_theirs_cannot_be_saved(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="A Linear cannot be saved"):
        save_adapter(torch.nn.Linear(2, 2), wordpiece_tokenizer(), Manifest.read(adapter), tmp_path / "x")
    assert not (tmp_path / "x").exists()
