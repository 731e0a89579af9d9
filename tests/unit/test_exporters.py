"""What is exported predicts like the adapter it was made from, without lightft."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from peft.tuners.tuners_utils import BaseTuner
from safetensors import safe_open
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelLoader, QLoRATrainer
from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base
from lightft.errors import AdapterError, InvalidPluginError, InvalidSettingError, LightFTError, UnknownNameError
from lightft.exporters import register
from lightft.models.quantization import guard_cpu_kernels
from lightft.tasks import TokenClassification

TASK = "token-classification"
Trained = Callable[..., Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return adapter folders, each trained once; the base lies beside each in ``base``."""
    made: dict[str, Path] = {}

    def train(
        architecture: str = "bert",
        adapter: AdapterSpec | str = "lora",
        *,
        task: str = TASK,
        quantization: str | None = None,
        dtype: str = "float32",
        decoding: str | None = None,
    ) -> Path:
        name = f"{architecture}-{adapter}-{task}-{quantization}-{dtype}-{decoding}"
        if name not in made:
            folder = tmp_path_factory.mktemp("trained")
            base = save_base(Pair(architecture, task), folder / "base", with_head=False)
            loader = ModelLoader(str(base), task=task, labels=LABELS[task], dtype=dtype)
            settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2, "progress": False}
            settings |= {"adapter": adapter}
            if decoding is not None:
                settings["head"] = TokenClassification(labels=LABELS[task], decoding=decoding)
            trainer = (
                QLoRATrainer(loader, quantization=quantization, **settings)
                if quantization
                else LoRATrainer(loader, **settings)
            )
            made[name] = trainer.save(trainer.train(examples(task)), folder / "adapter")
        return made[name]

    return train


def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(4, 20).reshape(2, 8)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()


def _export(adapter: Path, folder: Path, **options: Any) -> Path:
    return lightft.export(adapter, to="merged", out=folder / "merged", **options)


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as opened:
        return {name: opened.get_tensor(name) for name in list(opened.keys())}


# --- equality


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("adapter", ["lora", "head-only", "full"])
def test_the_merged_checkpoint_answers_like_the_adapter(
    trained: Trained, tmp_path: Path, architecture: str, adapter: str
) -> None:
    folder = trained(architecture, adapter)
    merged = AutoModelForTokenClassification.from_pretrained(_export(folder, tmp_path))
    torch.testing.assert_close(_logits(merged), _logits(lightft.load(folder).model), rtol=0, atol=1e-4)
    assert set(merged.config.label2id) == {"O", "B-LOC", "I-LOC", "B-PER", "I-PER"}
    assert not [module for module in merged.modules() if "lora" in type(module).__module__]


@pytest.mark.parametrize(
    "adapter",
    [
        AdapterSpec("lora", bias="all"),
        "rslora",
        "dora",
        "pissa",
        "vera",
        "ia3",
        "bias-only",
    ],
    ids=str,
)
def test_the_merged_checkpoint_is_what_peft_alone_makes_of_the_folder(
    trained: Trained, tmp_path: Path, adapter: AdapterSpec | str
) -> None:
    folder = trained(adapter=adapter)
    base = AutoModelForTokenClassification.from_pretrained(folder.parent / "base", num_labels=5)
    by_peft = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    merged = AutoModelForTokenClassification.from_pretrained(_export(folder, tmp_path))
    torch.testing.assert_close(_logits(merged), _logits(by_peft), rtol=0, atol=1e-6)
    untrained = AutoModelForTokenClassification.from_pretrained(folder.parent / "base", num_labels=5)
    untrained.classifier = by_peft.classifier
    assert (_logits(merged) - _logits(untrained)).abs().max() > 1e-3


def test_adalora_is_merged_with_the_ranks_it_kept(trained: Trained, tmp_path: Path) -> None:
    folder = trained(adapter="adalora")
    merged = AutoModelForTokenClassification.from_pretrained(_export(folder, tmp_path))
    torch.testing.assert_close(_logits(merged), _logits(lightft.load(folder).model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_4_bit_base_is_merged_as_the_weights_its_bits_stand_for(
    trained: Trained, tmp_path: Path, architecture: str, dtype: str
) -> None:
    folder = trained(architecture, quantization="nf4", dtype=dtype)
    merged = AutoModelForTokenClassification.from_pretrained(_export(folder, tmp_path))
    assert all(parameter.dtype == torch.float32 for parameter in merged.parameters())
    reference = lightft.load(folder, dequantize=True).model.float()
    torch.testing.assert_close(_logits(merged), _logits(reference), rtol=0, atol=1e-4)
    if dtype == "float32":
        torch.testing.assert_close(_logits(merged), _logits(lightft.load(folder).model), rtol=0, atol=1e-4)


# --- what is written


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_written_in_the_dtype_asked_for(trained: Trained, tmp_path: Path, dtype: str) -> None:
    folder = trained()
    out = _export(folder, tmp_path, dtype=dtype)
    assert {tensor.dtype for tensor in _tensors(out).values()} == {getattr(torch, dtype)}
    merged = AutoModelForTokenClassification.from_pretrained(out)
    assert merged.dtype == getattr(torch, dtype)
    largest = (_logits(merged) - _logits(lightft.load(folder).model)).abs().max()
    assert largest < (1e-4 if dtype == "float32" else 0.05)
    found, expected = (lightft.load(path).predict(examples(TASK)) for path in (out, folder))
    assert [prediction.tags for prediction in found] == [prediction.tags for prediction in expected]


@pytest.mark.parametrize(("quantization", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_a_merged_model_is_quantised_again_and_opens_alone(
    trained: Trained, tmp_path: Path, architecture: str, quantization: str, layer: str
) -> None:
    folder = trained(architecture)
    out = _export(folder, tmp_path, quantization=quantization)
    alone = AutoModelForTokenClassification.from_pretrained(out)
    kind = getattr(bitsandbytes.nn, layer)
    packed = [name for name, module in alone.named_modules() if isinstance(module, kind)]
    assert len(packed) == {"bert": 12, "gpt2": 8}[architecture]
    assert alone.classifier.weight.dtype == torch.float32
    # Otherwise bitsandbytes computes in bfloat16 where the processor can.
    guard_cpu_kernels(alone)
    opened = lightft.load(out)
    torch.testing.assert_close(_logits(opened.model), _logits(alone), rtol=0, atol=1e-6)
    assert opened.head == lightft.load(folder).head
    assert not [path for path in out.iterdir() if path.is_dir()]


def test_a_model_quantised_to_4_bits_again_can_be_held_as_the_weights_they_stand_for(
    trained: Trained, tmp_path: Path
) -> None:
    out = _export(trained(), tmp_path, quantization="nf4")
    plain = lightft.load(out, dequantize=True).model
    assert not [module for module in plain.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    torch.testing.assert_close(_logits(plain), _logits(lightft.load(out).model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("quantization", [None, "nf4", "int8"])
def test_what_a_head_learns_beside_its_layer_is_kept(
    trained: Trained, tmp_path: Path, quantization: str | None
) -> None:
    folder = trained(decoding="crf")
    out = _export(folder, tmp_path, quantization=quantization)
    adapted, merged = lightft.load(folder), lightft.load(out)
    assert merged.head == adapted.head
    learned = adapted.model.base_model.model.classifier.modules_to_save["default"]
    assert learned.transitions.abs().max() > 0
    for name in ("transitions", "starts", "ends"):
        assert torch.equal(getattr(merged.model.classifier, name), getattr(learned, name))


def test_the_merged_checkpoint_works_in_a_pipeline(trained: Trained, tmp_path: Path) -> None:
    answers = pipeline("ner", model=str(_export(trained(), tmp_path)))("anna met bert in rome")
    assert all(answer["entity"].partition("-")[2] in LABELS[TASK] for answer in answers)


def test_a_merged_text_classifier_answers_a_pipeline_with_its_labels(trained: Trained, tmp_path: Path) -> None:
    folder = trained(task="text-classification")
    out = _export(folder, tmp_path)
    text = "anna saw a good film"
    (answer,) = pipeline("text-classification", model=str(out))(text)
    expected = lightft.load(folder)(text)
    assert answer["label"] == expected.label
    assert answer["score"] == pytest.approx(expected.score, abs=1e-5)
    assert AutoModelForSequenceClassification.from_pretrained(out).config.id2label == {0: "bad", 1: "good"}


# --- refused before anything is loaded


def test_an_8_bit_base_is_refused_with_the_reason(trained: Trained, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained(quantization="int8"), tmp_path / "adapter"))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="its activations are quantised too"):
        _export(folder, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=4),
        PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=4),
        PromptEncoderConfig(task_type="TOKEN_CLS", num_virtual_tokens=4),
    ],
    ids=["prompt-tuning", "prefix-tuning", "p-tuning"],
)
def test_an_adapter_that_changes_no_weights_is_refused(tmp_path: Path, config: Any) -> None:
    config.base_model_name_or_path = "nobody/nowhere"
    config.save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterError, match=r"changes none of them.*nothing to merge\. Use it as it is"):
        _export(tmp_path / "adapter", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="is no adapter folder: it has neither"):
        _export(tmp_path, tmp_path)


def test_an_unknown_format_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="No exporter named 'mergd'. Did you mean 'merged'"):
        lightft.export(tmp_path, to="mergd", out=tmp_path / "out")
    with pytest.raises(InvalidSettingError, match="exists already"):
        lightft.export(tmp_path, to="merged", out=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtyp": "float32"}, "'merged' has no option 'dtyp'. Did you mean 'dtype'"),
        ({"dtype": "bfloat"}, "'merged' cannot have dtype='bfloat'. Did you mean 'bfloat16'"),
        ({"quantization": "nf3"}, "'merged' cannot have quantization='nf3'. Did you mean 'nf4'"),
        ({"probe": "one text"}, "'merged' cannot have probe='one text': it must be a list"),
    ],
    ids=str,
)
def test_an_option_that_does_not_exist_or_fit_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        _export(tmp_path, tmp_path, **options)


def test_an_exporter_must_take_two_paths_and_options_with_defaults() -> None:
    def one_path(adapter: Path) -> Path:
        return adapter

    def option_without_default(adapter: Path, out: Path, *, level: int) -> Path:
        raise NotImplementedError(adapter, out, level)

    for number, unfit in enumerate([one_path, option_without_default]):
        with pytest.raises(InvalidPluginError, match="a function of two paths"):
            register(f"unfit-{number}")(unfit)


# --- all or nothing


def test_a_crash_on_the_way_leaves_nothing(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained()

    def no_room(self: Any, folder: Path) -> None:
        assert (Path(folder) / "model.safetensors").is_file()
        raise OSError("No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", no_room)
    with pytest.raises(LightFTError, match="merged was not written: No space left"):
        _export(folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_merge_that_answers_otherwise_is_refused_and_leaves_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained()
    merge = BaseTuner.merge_and_unload

    def wrong_merge(self: Any, **options: Any) -> Any:
        model = merge(self, **options)
        model.bert.encoder.layer[0].output.dense.weight.data[0] += 0.01
        return model

    monkeypatch.setattr(BaseTuner, "merge_and_unload", wrong_merge)
    with pytest.raises(AdapterError, match=r"logits lie up to 0\.0\d+ apart .* where 0.0001 is accepted") as refused:
        _export(folder, tmp_path)
    assert "Nothing was written. Use the adapter as it is: lightft.load(" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_peft_cannot_merge_is_refused_with_its_reason(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained()

    def unable(self: Any, **options: Any) -> Any:
        raise NotImplementedError("this kind of layer has no merge")

    monkeypatch.setattr(BaseTuner, "merge_and_unload", unable)
    with pytest.raises(AdapterError, match="peft cannot merge .* this kind of layer has no merge"):
        _export(folder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_merged_folder_says_how_it_is_held(trained: Trained, tmp_path: Path) -> None:
    folder = trained()
    before = json.loads((folder / "lightft.json").read_text())
    after = json.loads((_export(folder, tmp_path, quantization="int8") / "lightft.json").read_text())
    assert (after["base"]["dtype"], after["base"]["quantization"]) == ("float32", "int8")
    assert {**after, "base": before["base"]} == before
