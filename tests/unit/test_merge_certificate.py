"""The certificate of a merged model says how far its answers lie from the adapter's; a merge that fails it is refused."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

import lightft
from lightft import Example, LoRATrainer, ModelLoader, QLoRATrainer
from lightft.errors import AdapterError
from lightft.exporters.certificate import Held, certify, compare_answers
from lightft.models import ModelSource
from lightft.records import Prediction
from lightft.tasks.head import Encoding
from tests.tiny_models import TYPES, instructions, save_llama, tagged_texts, wordpiece_tokenizer

TASK = "token-classification"
TEXTS = [example.text for example in tagged_texts(64)]


def _train(base: Path, folder: Path, quantization: str | None = None, dtype: str = "float32") -> Path:
    loader = ModelLoader(str(base), task=TASK, labels=TYPES, dtype=dtype)
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2, "progress": False}
    trainer = (
        QLoRATrainer(loader, quantization=quantization, **settings) if quantization else LoRATrainer(loader, **settings)
    )
    return trainer.save(trainer.train(tagged_texts()), folder / "adapter")


@pytest.fixture(scope="module")
def adapter(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tiny_bert, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def nf4_adapter(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _train(tiny_bert, tmp_path_factory.mktemp("nf4"), "nf4")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a language model, whose first choices lie close together."""
    folder = tmp_path_factory.mktemp("writer")
    loader = ModelLoader(str(save_llama(folder / "base")), task="causal-lm", dtype="float32")
    trainer = LoRATrainer(loader, epochs=6, learning_rate=1e-2, progress=False)
    return trainer.save(trainer.train(instructions()), folder / "adapter")


def _certificate(adapter: Path, folder: Path, **options: Any) -> dict[str, Any]:
    out = lightft.export(adapter, to="merged", out=folder / "merged", **options)
    return dict(json.loads((out / "merge_certificate.json").read_text()))


# --- the figures


def test_the_figures_are_those_of_peft_and_transformers_reading_text_by_text(
    adapter: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightft.exporters.certificate._SMALLEST_AGREEMENT", 0.9)
    certificate = _certificate(adapter, tmp_path, quantization="nf4", probe=TEXTS * 5)
    base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    unmerged = PeftModel.from_pretrained(base, str(adapter)).eval()
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    gaps, agreeing = [], []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            expected, found = unmerged(**inputs).logits[0], merged(**inputs).logits[0]
        gaps.append(float((expected - found).abs().max()))
        agreeing += (expected.argmax(-1) == found.argmax(-1)).tolist()
    assert max(gaps) > 0.1
    assert 0.9 < sum(agreeing) / len(agreeing) < 1
    found = certificate["agreement"]
    assert found["largest_logit_gap"] == pytest.approx(max(gaps), rel=1e-3)
    assert found["argmax_agreement"] == pytest.approx(sum(agreeing) / len(agreeing))
    assert (found["rows"], found["positions"]) == (320, 5 * len(agreeing))


def test_padding_is_not_compared() -> None:
    class Model(nn.Module):
        """Puts the first of two classes first, and on padding what it is told."""

        def __init__(self, on_padding: tuple[float, float]) -> None:
            super().__init__()
            self.on_padding = torch.tensor(on_padding)

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            real = attention_mask.bool()[..., None]
            return SimpleNamespace(logits=torch.where(real, torch.tensor([1.0, 0.0]), self.on_padding))

    tokenizer = wordpiece_tokenizer()
    rows = [Encoding(0, [5] * length, []) for length in (3, 4, 6, 4)]
    found = compare_answers(Model((1.0, 0.0)), Model((0.0, 9.0)), tokenizer, rows)  # type: ignore[arg-type]
    assert (found.largest_logit_gap, found.argmax_agreement) == (0.0, 1.0)
    assert (found.rows, found.positions) == (4, 17)


def test_a_difference_that_is_not_a_number_is_not_lost() -> None:
    class Model(nn.Module):
        def get_output_embeddings(self) -> None:
            return None

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return SimpleNamespace(logits=torch.where(input_ids == 7, float("nan"), 0.0)[..., None].expand(-1, -1, 2))

    rows = [Encoding(0, [7, 5], []), Encoding(0, [5, 5, 5], []), Encoding(0, [5, 5], [])]
    found = compare_answers(Model(), Model(), wordpiece_tokenizer(), rows)  # type: ignore[arg-type]
    assert found.largest_logit_gap != found.largest_logit_gap


# --- the probe


def test_without_texts_256_random_rows_are_compared_the_same_ones_each_time(adapter: Path, tmp_path: Path) -> None:
    first, second = (_certificate(adapter, tmp_path / name) for name in ("one", "two"))
    assert first["agreement"]["rows"] == 256
    assert first["probe"] == {
        "texts": 0, "text_rows": 0, "text_counts": {}, "random_rows": 256, "random_lengths": [8, 64], "random_seed": 0,
    }  # fmt: skip
    assert first["agreement"] == second["agreement"]
    assert 256 * 8 < first["agreement"]["positions"] < 256 * 64


def test_fewer_than_256_texts_are_filled_up_with_random_rows(adapter: Path, tmp_path: Path) -> None:
    certificate = _certificate(adapter, tmp_path, probe=TEXTS[:10])
    assert certificate["agreement"]["rows"] == 256
    assert (certificate["probe"]["text_rows"], certificate["probe"]["random_rows"]) == (10, 246)


def test_all_texts_are_compared_and_what_was_cut_is_counted(writer: Path, tmp_path: Path) -> None:
    texts = [f"say {'the film ' * (200 if number == 0 else 1)}" for number in range(260)]
    certificate = _certificate(writer, tmp_path, probe=texts)
    assert certificate["agreement"]["rows"] == 260
    assert certificate["probe"] == {
        "texts": 260, "text_rows": 260, "text_counts": {"truncated_texts": 1, "texts_without_loss": 1}, "random_rows": 0,
    }  # fmt: skip


# --- what it says beside the figures


def test_the_certificate_names_what_was_merged_and_how(adapter: Path, tiny_bert: Path, tmp_path: Path) -> None:
    certificate = _certificate(adapter, tmp_path)
    described = json.loads((adapter / "lightft.json").read_text())
    assert certificate["base"] == described["base"]
    assert certificate["base"]["digest"] == ModelSource("base", str(tiny_bert)).digest()
    assert certificate["adapter"] == {
        **described["adapter"], "digest": ModelSource("adapter", str(adapter)).digest(),
    }  # fmt: skip
    assert certificate["written"] == {
        "dtype": "float32", "quantization": None, "digest": ModelSource("out", str(tmp_path / "merged")).digest(),
    }  # fmt: skip
    assert certificate["rule"] == "largest_logit_gap <= 0.0001"
    assert certificate["reference"] == "the adapter on its own base as trained (float32), its products in float32"
    assert certificate["trained_precision"] is None
    assert set(certificate["environment"]["versions"]) >= {"lightft", "peft", "transformers", "torch", "bitsandbytes"}
    assert certificate["environment"]["date"] == date.today().isoformat()


def test_an_adapter_trained_in_bfloat16_is_compared_with_its_weights_and_with_its_rounding(
    tiny_bert: Path, tmp_path: Path
) -> None:
    certificate = _certificate(_train(tiny_bert, tmp_path, "nf4", "bfloat16"), tmp_path)
    assert certificate["reference"].endswith("as trained (nf4, bfloat16), its products in float32")
    assert certificate["agreement"]["largest_logit_gap"] <= 1e-4
    assert certificate["trained_precision"]["largest_logit_gap"] > 1e-3
    assert certificate["trained_precision"]["argmax_agreement"] > 0.98


def test_a_plain_peft_folder_is_certified_too(writer: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (plain / name).write_bytes((writer / name).read_bytes())
    certificate = _certificate(plain, tmp_path)
    assert certificate["base"]["digest"] == ModelSource("base", str(writer.parent / "base")).digest()
    assert set(certificate["adapter"]) == {"digest"}
    merged = lightft.load(tmp_path / "merged")
    assert merged.generate("say the film", max_new_tokens=5) == lightft.load(plain).generate(
        "say the film", max_new_tokens=5
    )


# --- the rules


def test_a_4_bit_adapter_is_equal_on_its_own_weights_and_not_on_the_original_ones(
    nf4_adapter: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    assert _certificate(nf4_adapter, tmp_path)["agreement"]["largest_logit_gap"] <= 1e-4
    original = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    on_original = PeftModel.from_pretrained(original, str(nf4_adapter)).merge_and_unload().eval()
    on_original.save_pretrained(tmp_path / "on-original")
    with pytest.raises(AdapterError, match="is not the model that was trained"):
        certify(nf4_adapter, tmp_path / "on-original", on_original, Held("float32", None))


def test_where_float32_rounds_off_more_the_merged_model_may_differ_by_four_times_that(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.lm_head.weight.data *= 1e4
    model.save_pretrained(base)
    loader = ModelLoader(str(base), task="causal-lm", dtype="float32")
    trainer = LoRATrainer(loader, epochs=1, learning_rate=1e-3, progress=False)
    adapter = trainer.save(trainer.train(instructions()), tmp_path / "adapter")
    certificate = _certificate(adapter, tmp_path)
    assert certificate["agreement"]["largest_logit_gap"] > 1e-4
    limit = float(certificate["rule"].removeprefix("largest_logit_gap <= ").partition(",")[0])
    assert certificate["agreement"]["largest_logit_gap"] <= limit < 1
    assert certificate["rule"].endswith("4 times what float32 rounds off the adapter")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    whole.model.layers[0].mlp.up_proj.weight.data *= 1.001
    with pytest.raises(AdapterError, match="is not the model that was trained"):
        certify(adapter, tmp_path / "merged", whole, Held("float32", None))


@pytest.mark.parametrize("held", [Held("float32", None), Held("bfloat16", None)], ids=str)
def test_a_model_without_numbers_is_refused(adapter: Path, tmp_path: Path, held: Held) -> None:
    out = lightft.export(adapter, to="merged", out=tmp_path / "merged")
    broken = AutoModelForTokenClassification.from_pretrained(out)
    broken.bert.embeddings.word_embeddings.weight.data[30:] = float("nan")
    with pytest.raises(AdapterError, match="up to nan apart"):
        certify(adapter, out, broken.eval(), held)


@pytest.mark.parametrize(
    ("options", "held"), [({"dtype": "bfloat16"}, "bfloat16"), ({"quantization": "nf4"}, "nf4, float32")], ids=str
)
def test_a_model_that_loses_more_than_one_answer_in_a_hundred_is_refused(
    writer: Path, tmp_path: Path, options: dict[str, Any], held: str
) -> None:
    with pytest.raises(AdapterError, match=rf"Held in {held}, the merged model answers \d\d\.\d\d% of") as refused:
        _certificate(writer, tmp_path, **options)
    share = float(str(refused.value).partition("answers ")[2].partition("%")[0])
    assert 50 < share < 99
    assert "99% is asked for. Nothing was written. Export in float32: lightft.export(" in str(refused.value)
    assert str(refused.value).endswith("with probe=[...]: random tokens are harder.")
    assert list(tmp_path.iterdir()) == []


def test_a_certified_model_finds_the_same_entities(nf4_adapter: Path, tmp_path: Path) -> None:
    def found(folder: Path) -> list[Prediction]:
        return lightft.load(folder).predict([Example(str(number), text) for number, text in enumerate(TEXTS[:16])])

    _certificate(nf4_adapter, tmp_path)
    pairs = zip(found(nf4_adapter), found(tmp_path / "merged"), strict=True)
    assert all(unmerged.tags == merged.tags for unmerged, merged in pairs)
