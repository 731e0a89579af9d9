"""An ONNX graph answers like the adapter it was made from; one that does not is refused, and nothing is left of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

import lightft
from lightft import LoRATrainer, ModelLoader
from lightft.contracts.tiny_models import LABELS as CONTRACT_LABELS
from lightft.contracts.tiny_models import Pair, examples, save_base
from lightft.errors import AdapterError, InvalidSettingError, MissingExtraError
from lightft.exporters import onnx_certificate
from lightft.exporters.onnx_graph import trace
from lightft.exporters.onnx_int8 import quantize
from lightft.tasks import TokenClassification
from tests.tiny_models import LABELS, TYPES, classified_texts, instructions, tagged_texts, wordpiece_tokenizer

TOKENS, TEXTS = "token-classification", "text-classification"
AUTO = {TOKENS: AutoModelForTokenClassification, TEXTS: AutoModelForSequenceClassification}
OUTPUTS = {TOKENS: 5, TEXTS: 2}
SETTINGS: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-2, "progress": False}
PROBE = [example.text for example in tagged_texts(16)] * 16
PROBES = {TOKENS: PROBE, TEXTS: [example.text for example in classified_texts(16)] * 16}


@pytest.fixture(scope="module")
def adapters(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each task on the tiny BERT."""
    folder = tmp_path_factory.mktemp("adapters")
    made = {}
    for task, labels, rows in ((TOKENS, TYPES, tagged_texts()), (TEXTS, LABELS, classified_texts())):
        loader = ModelLoader(str(tiny_bert), task=task, labels=labels, dtype="float32")
        trainer = LoRATrainer(loader, epochs=4, **SETTINGS)
        made[task] = trainer.save(trainer.train(rows), folder / task)
    return made


@pytest.fixture(scope="module")
def in_8_bits(adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The adapters' ONNX folders in 8 bits."""
    folder = tmp_path_factory.mktemp("int8")
    return {
        task: lightft.export(adapter, to="onnx-int8", out=folder / task, probe=PROBES[task])
        for task, adapter in adapters.items()
    }


def _certificate(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "onnx_certificate.json").read_text()))


def _rows(rows: int, tokens: int, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(4, 100, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    for row in range(rows if padded else 0):
        mask[row, max(1, tokens - 2 * row) :] = 0
    return ids * mask, mask


def _run(folder: Path, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    (logits,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return torch.from_numpy(logits)


# --- equality


@pytest.mark.parametrize("task", [TOKENS, TEXTS])
def test_the_graph_gives_the_logits_of_peft_and_transformers_for_rows_of_any_size(
    adapters: dict[str, Path], tiny_bert: Path, tmp_path: Path, task: str
) -> None:
    out = lightft.export(adapters[task], to="onnx", out=tmp_path / "onnx")
    base = AUTO[task].from_pretrained(tiny_bert, num_labels=OUTPUTS[task])
    unmerged = PeftModel.from_pretrained(base, str(adapters[task])).eval()
    for rows, tokens, padded in ((1, 1, False), (1, 64, False), (3, 17, True), (5, 40, True), (2, 30, False)):
        ids, mask = _rows(rows, tokens, padded)
        with torch.inference_mode():
            expected = unmerged(input_ids=ids, attention_mask=mask).logits
        found = _run(out, ids, mask)
        read = mask.bool() if task == TOKENS else slice(None)
        torch.testing.assert_close(found[read], expected[read], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "bidirectional"), [("roberta", False), ("gpt2", False), ("llama", True)], ids=str
)
def test_other_architectures_export_too(tmp_path: Path, architecture: str, bidirectional: bool) -> None:
    base = save_base(Pair(architecture, TOKENS), tmp_path / "base", with_head=False)
    labels = CONTRACT_LABELS[TOKENS]
    head = TokenClassification(labels=labels, bidirectional=bidirectional)
    trainer = LoRATrainer(
        ModelLoader(str(base), task=TOKENS, labels=labels, dtype="float32"), head=head, epochs=1, **SETTINGS
    )
    adapter = trainer.save(trainer.train(examples(TOKENS)), tmp_path / "adapter")
    certificate = _certificate(lightft.export(adapter, to="onnx", out=tmp_path / "onnx"))
    assert certificate["agreement"]["largest_logit_gap"] < 1e-5
    assert certificate["agreement"]["argmax_agreement"] == 1.0


def test_a_plain_peft_folder_that_names_no_labels_is_refused(adapters: dict[str, Path], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (plain / name).write_bytes((adapters[TEXTS] / name).read_bytes())
    with pytest.raises(AdapterError, match="does not name its labels"):
        lightft.export(plain, to="onnx", out=tmp_path / "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain"]


# --- 8 bits


def test_in_8_bits_the_products_and_embeddings_are_integers_and_the_head_is_not(
    adapters: dict[str, Path], in_8_bits: dict[str, Path]
) -> None:
    graph = onnx.load(in_8_bits[TOKENS] / "model.onnx").graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    written = _certificate(in_8_bits[TOKENS])["written"]
    assert written["precision"] == "int8"
    # Four products of attention and two of the feed-forward part in each of two layers.
    assert written["products"] == 12
    assert written["embeddings"] == 2
    assert written["rounded_by"] == "row"
    large = [tensor.dtype for tensor in tensors.values() if tensor.size >= 60 * 64]
    assert [str(kind) for kind in large] == ["int8"] * 14
    trained = lightft.load(adapters[TOKENS]).model.merge_and_unload().classifier.weight.detach().numpy()
    assert any(tensor.shape == trained.T.shape and np.array_equal(tensor, trained.T) for tensor in tensors.values())


def test_blocks_are_taken_where_rows_are_not_close_enough(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def badly_by_row(exact: Path, out: Path, *arguments: Any, rounded_by: str, **named: Any) -> dict[str, int]:
        found = quantize(exact, out, *arguments, rounded_by=rounded_by, **named)
        if rounded_by == "row":
            _disturb(out, lambda weights: weights[::-1].copy())
        return found

    monkeypatch.setattr("lightft.exporters.onnx.quantize", badly_by_row)
    folder = lightft.export(adapters[TOKENS], to="onnx-int8", out=tmp_path / "onnx", probe=PROBE)
    certificate = _certificate(folder)
    assert certificate["written"]["rounded_by"] == "block"
    assert "99% is asked for" in certificate["written"]["refused_by_row"]
    assert certificate["agreement"]["argmax_agreement"] >= 0.99
    tensors = onnx.load(folder / "model.onnx").graph.initializer
    assert sum(tensor.data_type == TensorProto.UINT8 for tensor in tensors) == 12
    with pytest.raises(AdapterError, match="99% is asked for"):
        lightft.export(adapters[TOKENS], to="onnx-int8", out=tmp_path / "by-row", probe=PROBE, rounded_by="row")


def test_how_to_round_is_refused_when_it_is_neither(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"rounded_by is 'column'\. Give 'row' or 'block'"):
        lightft.export(adapters[TOKENS], to="onnx-int8", out=tmp_path / "onnx", rounded_by="column")


def test_each_row_of_an_embedding_is_rounded_by_its_own_scale(tiny_bert: Path, in_8_bits: dict[str, Path]) -> None:
    graph = onnx.load(in_8_bits[TOKENS] / "model.onnx").graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (name,) = [name for name in tensors if name.endswith("word_embeddings.weight_int8")]
    restored = tensors[name] * tensors[name.replace("_int8", "_scale")]
    base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    original = base.get_input_embeddings().weight.detach().numpy()
    half_a_step = np.abs(original).max(-1, keepdims=True) / 127 / 2
    assert np.all(np.abs(restored - original) <= half_a_step * 1.001)


def test_in_8_bits_nearly_all_answers_are_the_adapters(in_8_bits: dict[str, Path]) -> None:
    for folder in in_8_bits.values():
        agreement = _certificate(folder)["agreement"]
        assert 0.99 <= agreement["argmax_agreement"] <= 1
        assert 1e-3 < agreement["largest_logit_gap"] < 1


# --- the certificate


def test_the_figures_are_those_of_peft_and_onnxruntime_reading_text_by_text(
    adapters: dict[str, Path], in_8_bits: dict[str, Path], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    unmerged = PeftModel.from_pretrained(base, str(adapters[TOKENS])).eval()
    tokenizer = AutoTokenizer.from_pretrained(in_8_bits[TOKENS])
    session = onnxruntime.InferenceSession(str(in_8_bits[TOKENS] / "model.onnx"))
    monkeypatch.setattr(onnx_certificate, "_LONGEST_ROWS", 0)
    certificate = onnx_certificate.certify_onnx(
        adapters[TOKENS], in_8_bits[TOKENS], in_8_bits={}, tokens={}, texts=PROBE
    )
    gaps, agreeing = [], []
    for text in PROBE[:16]:
        inputs = {name: tokenizer(text, return_tensors="pt")[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            expected = unmerged(**inputs).logits[0].numpy()
        found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0][0]
        gaps.append(float(np.abs(expected - found).max()))
        agreeing += (expected.argmax(-1) == found.argmax(-1)).tolist()
    assert certificate.agreement.largest_logit_gap == pytest.approx(max(gaps), rel=1e-3)
    assert certificate.agreement.argmax_agreement == pytest.approx(sum(agreeing) / len(agreeing))
    assert (certificate.agreement.rows, certificate.agreement.positions) == (256, 16 * len(agreeing))


def test_the_certificate_names_what_was_compared_and_how(adapters: dict[str, Path], tmp_path: Path) -> None:
    certificate = _certificate(lightft.export(adapters[TEXTS], to="onnx", out=tmp_path / "onnx"))
    described = json.loads((adapters[TEXTS] / "lightft.json").read_text())
    assert certificate["agreement"]["rows"] == certificate["agreement"]["positions"] == 260
    assert certificate["probe"]["random_rows"] == 256
    assert (certificate["probe"]["longest_rows"], certificate["probe"]["their_length"]) == (4, 64)
    assert certificate["rule"] == "largest_logit_gap <= 0.0001"
    assert certificate["reference"] == "the adapter on its own base as trained (float32), its products in float32"
    assert certificate["base"] == described["base"]
    assert certificate["written"]["bytes"] == (tmp_path / "onnx" / "model.onnx").stat().st_size
    assert certificate["tokens"]["ids"] > 100
    assert certificate["environment"]["versions"]["onnxruntime"] == onnxruntime.__version__


# --- what is refused


def _disturb(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the largest product of a graph."""
    model = onnx.load(path)
    tensor = max((one for one in model.graph.initializer if len(one.dims) == 2), key=lambda one: np.prod(one.dims))
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize("to", ["onnx", "onnx-int8"])
@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda weights: weights[::-1].copy(), r"\d"), (lambda weights: weights * np.float32("nan"), "nan")],
    ids=["rows-reversed", "no-numbers"],
)
def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_left(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, change: Any, said: str
) -> None:
    def trace_wrongly(model: Any, path: Path) -> None:
        trace(model, path)
        _disturb(path, change)

    monkeypatch.setattr("lightft.exporters.onnx.trace", trace_wrongly)
    with pytest.raises(AdapterError, match=rf"up to {said}.*Nothing was written\. Export"):
        lightft.export(adapters[TOKENS], to=to, out=tmp_path / "onnx", probe=PROBE[:16])
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_right_for_some_lengths_only_is_refused(tmp_path: Path) -> None:
    """DeBERTa's first version looks positions up by a table whose size tracing fixes."""
    base = save_base(Pair("deberta", TOKENS), tmp_path / "base", with_head=False)
    labels = CONTRACT_LABELS[TOKENS]
    trainer = LoRATrainer(ModelLoader(str(base), task=TOKENS, labels=labels, dtype="float32"), epochs=1, **SETTINGS)
    adapter = trainer.save(trainer.train(examples(TOKENS)), tmp_path / "adapter")
    with pytest.raises(AdapterError, match=r"ONNX model cannot read \d+ rows of \d+ tokens: .* export to 'merged'"):
        lightft.export(adapter, to="onnx", out=tmp_path / "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_language_model_is_refused_with_what_to_do_instead(tiny_llama: Path, tmp_path: Path) -> None:
    loader = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32")
    trainer = LoRATrainer(loader, epochs=1, progress=False)
    adapter = trainer.save(trainer.train(instructions(2)), tmp_path / "adapter")
    with pytest.raises(AdapterError, match="is for causal-lm; .* to 'merged' or 'gguf'"):
        lightft.export(adapter, to="onnx", out=tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_tokenizer_that_splits_otherwise_without_transformers_is_refused(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    wordpiece_tokenizer().save_pretrained(other)
    described = json.loads((other / "tokenizer.json").read_text())
    described["normalizer"]["lowercase"] = False
    (other / "tokenizer.json").write_text(json.dumps(described))
    own = onnx_certificate.FileTokenizer
    monkeypatch.setattr(onnx_certificate, "FileTokenizer", lambda folder: own(other))
    with pytest.raises(AdapterError, match="splits .Hello, world.* otherwise without transformers.* to 'merged'"):
        lightft.export(adapters[TOKENS], to="onnx", out=tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_it_says_which_extra_to_install(
    adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}\. Install it with: pip install 'lightft\[onnx\]'"):
        lightft.export(adapters[TOKENS], to="onnx", out=tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_folder_is_not_opened_with_torch(in_8_bits: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"is an ONNX folder.*lightft\.portable\.load_onnx\("):
        lightft.load(in_8_bits[TOKENS])
    shutil.copytree(in_8_bits[TOKENS], tmp_path / "copy")
    with pytest.raises(AdapterError, match="is an ONNX folder"):
        lightft.export(tmp_path / "copy", to="merged", out=tmp_path / "merged")


def test_the_code_on_the_model_card_opens_the_folder(
    in_8_bits: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    card = (in_8_bits[TEXTS] / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    exec(code, {"folder": in_8_bits[TEXTS]})
    assert "Classified(label=" in capsys.readouterr().out
