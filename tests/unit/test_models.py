"""Base models: found wherever they are, held as asked, and told apart into head and base."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from lightft import AdapterSpec, LoRATrainer, ModelLoader
from lightft.adapters.attach import attach_adapter
from lightft.errors import AdapterError, InvalidSettingError, ModelLoadError
from lightft.models import (
    count_parameters,
    find_model,
    head_modules,
    linear_modules,
    match_targets,
    provenance_of,
    share_weights,
)
from lightft.models.precision import compute_device, compute_dtype
from tests.hub_double import no_hub, serve_hub
from tests.tiny_models import LABELS, TYPES, classified_texts, llama_config, save_bert, save_gguf, wordpiece_tokenizer


def load(folder: Path, **settings: Any) -> tuple[Any, Any]:
    return ModelLoader(str(folder), **{"labels": LABELS, "dtype": "float32", **settings}).load_model()


# --- where models come from


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/folder", "There is no file or folder 'no/such/folder'"),
        ("/no/such/folder", "There is no file or folder '/no/such/folder'"),
        ("model.gguf", "There is no file or folder 'model.gguf'"),
        ("package:no_such_package/model", "no package 'no_such_package' is installed"),
        (
            "package:lightft/no-such-model",
            "the path after the package's name; beside it there is: __init__.py",
        ),
        ("package:lightft/metrics", "is a folder without a config.json"),
        ("package:lightft/errors.py", "is neither a model folder nor a .gguf file"),
        ("not a name!", "is neither an existing path nor a Hub id"),
    ],
)
def test_what_cannot_be_a_model_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=re.escape(message)):
        ModelLoader(name, labels=LABELS).load_model()


def test_a_folder_of_several_gguf_files_asks_for_one(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=r"name one of its GGUF files \(a.gguf, b.gguf\)"):
        find_model(tmp_path)


def test_a_package_can_hold_a_model(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights_of_ours").mkdir()
    (tmp_path / "weights_of_ours" / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    shutil.copytree(tiny_bert, tmp_path / "weights_of_ours" / "model")
    monkeypatch.syspath_prepend(tmp_path)
    loader = ModelLoader("package:weights_of_ours/model", labels=LABELS, dtype="float32")
    model, _ = loader.load_model()
    direct, _ = load(tiny_bert)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, direct.bert.embeddings.word_embeddings.weight)
    found = provenance_of(model)
    assert found is not None
    assert (found.source.name, found.loader) == ("package:weights_of_ours/model", loader)


def test_a_folder_without_weights_or_tokenizer_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(ModelLoadError, match="was found, but not its tokenizer: there is no vocabulary beside it"):
        load(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="was found, but not its tokenizer"):
        load(tmp_path / "model")
    wordpiece_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="was found but cannot be opened as SequenceClassification"):
        load(tmp_path / "model")
    with pytest.raises(ModelLoadError, match=r"has a config.json but no weights"):
        find_model(tmp_path / "model").digest()


def test_an_encoder_is_no_causal_language_model(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    CLIPVisionModel(config).save_pretrained(tmp_path)
    wordpiece_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="cannot be opened as CausalLM"):
        ModelLoader(str(tmp_path), task="causal-lm").load_model()


def test_the_hub_is_read_at_the_commit_that_is_recorded(
    tmp_path: Path, tiny_bert: Path, other_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub(monkeypatch, tmp_path / "cache") as hub:
        old = hub.add_model("somebody/bert", tiny_bert, revision="v1")
        new = hub.add_model("somebody/bert", other_bert)
        newest, _ = ModelLoader("somebody/bert", labels=LABELS, dtype="float32").load_model()
        pinned, _ = ModelLoader("somebody/bert", labels=LABELS, dtype="float32", revision="v1").load_model()
        for model, commit, folder in ((newest, new, other_bert), (pinned, old, tiny_bert)):
            found = provenance_of(model)
            assert found is not None
            assert (found.source.revision, found.source.digest()) == (commit, f"commit:{commit}")
            direct, _ = load(folder)
            assert torch.equal(model.bert.pooler.dense.weight, direct.bert.pooler.dense.weight)
        with pytest.raises(ModelLoadError, match="'somebody/bert' has no revision 'v3'"):
            ModelLoader("somebody/bert", labels=LABELS, revision="v3").load_model()
        with pytest.raises(ModelLoadError, match="There is no model 'somebody/brt' on the Hub, or it is private"):
            ModelLoader("somebody/brt", labels=LABELS).load_model()
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "README.md").write_text("nothing")
        hub.add_model("somebody/nothing", tmp_path / "empty")
        with pytest.raises(ModelLoadError, match=r"has no config.json, so it holds no transformers model"):
            ModelLoader("somebody/nothing", labels=LABELS).load_model()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub not wait between its attempts to reach the Hub."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


@pytest.mark.usefixtures("patient")
def test_a_hub_that_cannot_be_reached_is_told_from_a_model_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_hub(monkeypatch, tmp_path / "cache")
    with pytest.raises(ModelLoadError, match="The Hub cannot be reached and 'somebody/bert' is not in the local cache"):
        ModelLoader("somebody/bert", labels=LABELS).load_model()


@pytest.mark.usefixtures("patient")
def test_a_cached_hub_model_needs_no_hub(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub(monkeypatch, tmp_path / "cache") as hub:
        commit = hub.add_model("somebody/bert", tiny_bert)
        ModelLoader("somebody/bert", labels=LABELS, dtype="float32").load_model()
    no_hub(monkeypatch, tmp_path / "cache")
    model, _ = ModelLoader("somebody/bert", labels=LABELS, dtype="float32").load_model()
    found = provenance_of(model)
    assert found is not None
    assert found.source.revision == commit


def test_the_digest_tells_weights_of_the_same_shape_apart(tiny_bert: Path, other_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "copy")
    assert find_model(tiny_bert).digest() == find_model(tmp_path / "copy").digest()
    assert find_model(tiny_bert).digest() != find_model(other_bert).digest()


# --- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, "'gpu' is no device"),
        ({"dtype": "float23"}, "No dtype named 'float23'. Did you mean 'float32'?"),
        ({"dtype": "bf16"}, "No dtype named 'bf16'"),
        ({"quantization": "nf3"}, "No quantization named 'nf3'. Did you mean 'nf4'?"),
        (
            {"task": "text-clasification"},
            "No built-in task named 'text-clasification'. Did you mean 'text-classification'?",
        ),
    ],
    ids=str,
)
def test_unknown_settings_are_refused_by_name(tiny_bert: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=re.escape(message)):
        load(tiny_bert, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_this_machine_lacks_is_refused(tiny_bert: Path, device: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"This machine has no device '{device}'"):
        load(tiny_bert, device=device)


def test_a_label_is_named_once(tiny_bert: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"The labels \['a'\] are given more than once"):
        ModelLoader(str(tiny_bert), labels=["a", "b", "a"])


def test_auto_is_the_precision_the_processor_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightft.models import precision

    cpu = torch.device("cpu")
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(precision, "_cpu_multiplies_bfloat16", lambda native=native: native)
        assert compute_dtype("auto", cpu) == dtype
    assert compute_dtype("float16", cpu) == torch.float16
    assert compute_device("cpu") == cpu


# --- what is loaded


def test_labels_become_the_models_outputs(tiny_bert: Path) -> None:
    model, _ = load(tiny_bert)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.label2id == {"negative": 0, "positive": 1}
    tagger, _ = load(tiny_bert, task="token-classification", labels=TYPES)
    assert list(tagger.config.id2label.values()) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert tagger.classifier.out_features == 5
    assert not model.training


def test_the_seed_decides_the_new_head_and_nothing_else_does(tiny_bert: Path) -> None:
    torch.manual_seed(99)
    first, _ = load(tiny_bert)
    torch.manual_seed(5)
    second, _ = load(tiny_bert)
    other, _ = load(tiny_bert, seed=1)
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_a_head_of_another_size_is_replaced_and_counted_as_new(tmp_path: Path, tiny_bert: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "model")
    config = BertConfig.from_pretrained(tiny_bert, num_labels=7)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    model, _ = load(tmp_path / "model")
    found = provenance_of(model)
    assert found is not None
    assert found.new_parameters == {"classifier.weight", "classifier.bias"}
    assert model.classifier.out_features == 2


def test_a_bfloat16_base_has_a_float32_head(tiny_bert: Path, tiny_llama: Path) -> None:
    for folder, head in ((tiny_bert, "classifier"), (tiny_llama, "score")):
        model, tokenizer = load(folder, dtype="bfloat16")
        assert {value.dtype for value in model.base_model.parameters()} == {torch.bfloat16}
        assert {value.dtype for value in getattr(model, head).parameters()} == {torch.float32}
        logits = model(input_ids=torch.tensor([tokenizer("a film")["input_ids"]])).logits
        assert logits.dtype == torch.float32


def test_a_decoder_without_padding_token_gets_one_everywhere_it_is_looked_for(tiny_llama: Path) -> None:
    model, tokenizer = load(tiny_llama)
    assert tokenizer.pad_token == "<pad>"
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


def llama_padded_with(folder: Path, special: list[str], **names: str | None) -> tuple[Any, Any]:
    """Load a language model whose tokenizer has these special tokens and no others, with names for some."""
    vocabulary = {name: index for index, name in enumerate([*special, "a", "b", "c"])}
    backend = Tokenizer(tokenizer_models.WordLevel(vocabulary, unk_token=special[0]))
    backend.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = "<|turn|>{{ messages[0].content }}"
    LlamaForCausalLM(llama_config(len(vocabulary) + 1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load(folder, task="causal-lm", labels=None)


@pytest.mark.parametrize(
    ("special", "names", "expected"),
    [
        (["</s>", "<unk>", "<|pad|>"], {"unk_token": "<unk>"}, "<|pad|>"),
        (["</s>", "<unk>", "<|extra|>"], {"unk_token": "<unk>"}, "<unk>"),
        (["</s>", "<unk>", "<|extra|>"], {"unk_token": "<unk>", "pad_token": "</s>"}, "<unk>"),
        (["<s>", "</s>", "<|turn|>", "<|extra|>"], {"bos_token": "<s>", "unk_token": "</s>"}, "<|extra|>"),
        (["</s>", "<|turn|>"], {"unk_token": "</s>"}, "</s>"),
        (["</s>", "<unk>", "<|pad|>"], {"unk_token": "<unk>", "pad_token": "<unk>"}, "<unk>"),
    ],
    ids=["named for it", "unknown", "unknown, not the end it came with", "unused", "the end for want", "its own"],
)
def test_what_pads_is_not_the_end_token_where_there_is_another(
    tmp_path: Path, special: list[str], names: dict[str, str], expected: str
) -> None:
    model, tokenizer = llama_padded_with(tmp_path / "model", special, eos_token="</s>", **names)
    assert tokenizer.pad_token == expected
    assert model.config.pad_token_id == tokenizer.pad_token_id < model.get_input_embeddings().num_embeddings
    assert len(tokenizer) == len(special) + 3, "no token was added"


def test_a_padding_token_without_an_embedding_is_not_taken(tmp_path: Path) -> None:
    special = ["</s>", "<unk>"]
    llama_padded_with(tmp_path / "model", special, eos_token="</s>", unk_token="<unk>")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<x>", "<y>", "<pad>"]})
    tokenizer.save_pretrained(tmp_path / "model")
    _, tokenizer = load(tmp_path / "model", task="causal-lm", labels=None)
    assert tokenizer.convert_tokens_to_ids("<pad>") >= 6
    assert tokenizer.pad_token == "<unk>"


def test_transformers_verbosity_is_as_it_was(tiny_bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    capfd.readouterr()
    load(tiny_bert)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# --- quantisation


@pytest.fixture(params=["nf4", "int8"])
def quantization(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def quantized_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if type(module).__name__ in ("Linear4bit", "Linear8bitLt")]


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_a_quantised_base_has_a_plain_float32_head_that_learns(tiny_bert: Path, quantization: str, task: str) -> None:
    from tests.tiny_models import tagged_texts

    labels, rows = (LABELS, classified_texts()) if task == "text-classification" else (TYPES, tagged_texts())
    model, tokenizer = load(tiny_bert, quantization=quantization, task=task, labels=labels)
    found = provenance_of(model)
    assert found is not None
    head = head_modules(model, found.new_parameters)
    plain, _ = load(tiny_bert, task=task, labels=labels)
    assert set(quantized_layers(model)) == set(linear_modules(plain, head))
    assert type(model.classifier) is nn.Linear
    assert model.classifier.weight.dtype == torch.float32
    trainer = LoRATrainer(model, tokenizer, epochs=10, learning_rate=1e-2, progress=False)
    adapted = trainer.train(rows, rows, lora_dropout=0.0)
    trained = {name: value for name, value in adapted.named_parameters() if value.requires_grad}
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert any("classifier" in name for name in trained)
    assert trainer.result is not None
    assert trainer.result.best_score is not None
    assert trainer.result.best_score > 0.9


def test_a_causal_model_keeps_its_output_layer(tiny_llama: Path, quantization: str) -> None:
    model, _ = load(tiny_llama, quantization=quantization, task="causal-lm", labels=None)
    assert len(quantized_layers(model)) == 14
    assert type(model.lm_head) is nn.Linear


def test_gradients_on_nf4_are_the_same_after_the_model_has_answered(tiny_bert: Path) -> None:
    import bitsandbytes

    base, tokenizer = load(tiny_bert, quantization="nf4")
    layers = [module for module in base.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert layers
    assert all(layer.support_avx512bf16_for_cpu is False for layer in layers)
    model = attach_adapter(base, "SEQ_CLS", AdapterSpec("lora", dropout=0.0))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B." in name:
                value.normal_(std=0.1)
    ids = torch.tensor([tokenizer("anna saw a very good film")["input_ids"]])

    def gradient() -> torch.Tensor:
        model.zero_grad()
        model(input_ids=ids).logits[0, 1].backward()
        return torch.cat([value.grad.flatten() for value in model.parameters() if value.requires_grad])

    model.train()
    before = gradient()
    packed = [layer.weight.data.clone() for layer in layers]
    model.eval()
    with torch.inference_mode():
        model(input_ids=ids)
    model.train()
    after = gradient()
    assert float(nn.functional.cosine_similarity(before, after, dim=0)) > 0.9999
    assert all(torch.equal(layer.weight.data, was) for layer, was in zip(layers, packed, strict=True))


# --- GGUF


def test_a_gguf_file_is_the_model_that_transformers_reads_from_it(tmp_path: Path) -> None:
    original = save_gguf(tmp_path / "tiny.gguf")
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    model, tokenizer = ModelLoader(str(tmp_path / "tiny.gguf"), task="causal-lm", dtype="float32").load_model()
    ids = torch.tensor([tokenizer("anna met bert in new york")["input_ids"]])
    with torch.inference_mode():
        ours, theirs, before = (some(input_ids=ids).logits for some in (model, direct, original))
    assert torch.equal(ours, theirs)
    assert torch.allclose(ours, before, atol=0.1), "Q8_0 rounds, and that is all that may differ"
    assert not torch.equal(ours, before)


def test_a_gguf_file_is_converted_once_and_can_be_saved_and_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gguf(tmp_path / "tiny.gguf")
    loader = ModelLoader(str(tmp_path / "tiny.gguf"), task="causal-lm", dtype="float32")
    model, tokenizer = loader.load_model()
    from lightft.models import loader as loading

    monkeypatch.setattr(loading, "_convert_gguf", lambda *_: pytest.fail("it was converted already"))
    again, _ = loader.load_model()
    ids = torch.tensor([tokenizer("anna met bert")["input_ids"]])
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    reloaded, _ = ModelLoader(str(tmp_path / "saved"), task="causal-lm", dtype="float32").load_model()
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
        assert torch.equal(model(input_ids=ids).logits, reloaded(input_ids=ids).logits)
    packed, _ = loader.replace(quantization="nf4").load_model()
    assert len(quantized_layers(packed)) == 14


def test_a_changed_gguf_file_is_converted_again(tmp_path: Path) -> None:
    loader = ModelLoader(str(tmp_path / "tiny.gguf"), task="causal-lm", dtype="float32")
    save_gguf(tmp_path / "tiny.gguf")
    first, _ = loader.load_model()
    save_gguf(tmp_path / "tiny.gguf", seed=1)
    second, _ = loader.load_model()
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(ModelLoadError, match=r"The GGUF file of .* cannot be read"):
        ModelLoader(str(tmp_path / "broken.gguf"), task="causal-lm").load_model()


# --- head and base


def test_the_head_is_what_stands_outside_the_base_or_is_new(tiny_bert: Path, tiny_llama: Path) -> None:
    config = BertConfig.from_pretrained(tiny_bert)
    assert head_modules(BertForSequenceClassification(config)) == ("classifier",)
    new = ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]
    assert set(head_modules(BertForSequenceClassification(config), new)) == {"classifier", "bert.pooler"}
    assert head_modules(BertForTokenClassification(config)) == ("classifier",)
    llama, _ = load(tiny_llama, task="causal-lm", labels=None)
    assert head_modules(llama) == ()
    assert head_modules(llama, ["lm_head.weight"]) == ("lm_head",)


def test_all_means_every_linear_layer_of_the_base(tiny_bert: Path, tiny_llama: Path) -> None:
    bert, _ = load(tiny_bert)
    assert len(match_targets(bert, "all", ("classifier",))) == 2 * 6 + 1
    assert "classifier" not in match_targets(bert, "all", ("classifier",))
    llama, _ = load(tiny_llama, task="causal-lm", labels=None)
    assert len(match_targets(llama, "all")) == 2 * 7
    assert "lm_head" not in match_targets(llama, "all")


def test_names_of_layers_match_whole_parts_of_paths(tiny_bert: Path) -> None:
    bert, _ = load(tiny_bert)
    assert match_targets(bert, ["query"], ("classifier",)) == tuple(
        f"bert.encoder.layer.{number}.attention.self.query" for number in range(2)
    )
    assert match_targets(bert, "attention.output.dense") == tuple(
        f"bert.encoder.layer.{number}.attention.output.dense" for number in range(2)
    )
    assert match_targets(bert, ["bert.encoder.layer.0.attention.self.value"]) == (
        "bert.encoder.layer.0.attention.self.value",
    )
    with pytest.raises(
        AdapterError,
        match=r"The target 'q_proj' matches no linear layer of BertForSequenceClassification. Known: all, attention,",
    ):
        match_targets(bert, ["query", "q_proj"], ("classifier",))
    with pytest.raises(AdapterError, match="The target 'uery' matches no"):
        match_targets(bert, ["uery"])
    with pytest.raises(AdapterError, match="The target 'classifier' is part of the head"):
        match_targets(bert, ["classifier"], ("classifier",))


def test_shared_weights_are_the_same_memory_in_another_structure(tiny_bert: Path) -> None:
    model, _ = load(tiny_bert)
    copy = share_weights(model, copied=["classifier"])
    ours, theirs = dict(model.named_parameters()), dict(copy.named_parameters())
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert (value.data_ptr() == theirs[name].data_ptr()) is (not name.startswith("classifier"))
        assert theirs[name] is not value
    copy.bert.encoder.layer[0] = nn.Identity()
    copy.config.hidden_size = 1
    assert not isinstance(model.bert.encoder.layer[0], nn.Identity)
    assert model.config.hidden_size == 64


# --- parameter counts


def test_parameters_are_counted_once_and_by_hand(tiny_bert: Path) -> None:
    model, _ = load(tiny_bert)
    base = sum(value.numel() for value in model.parameters())
    assert count_parameters(model) == (base, base)
    adapted = attach_adapter(model, "SEQ_CLS", AdapterSpec("lora", r=4))
    # attention: 4 layers of 64 → 64; feed-forward 64 → 128 → 64; pooler 64 → 64
    lora = 2 * (4 * 4 * (64 + 64) + 2 * 4 * (64 + 128)) + 4 * (64 + 64)
    head = 64 * 2 + 2
    assert count_parameters(adapted) == (lora + head, base + lora)


def test_a_4_bit_weight_counts_with_its_logical_size(tiny_bert: Path, quantization: str) -> None:
    plain, _ = load(tiny_bert)
    model, _ = load(tiny_bert, quantization=quantization)
    assert count_parameters(model)[1] == count_parameters(plain)[1]
    adapted = attach_adapter(model, "SEQ_CLS", AdapterSpec("lora", r=4))
    assert count_parameters(adapted) == count_parameters(attach_adapter(plain, "SEQ_CLS", AdapterSpec("lora", r=4)))


def test_a_tied_weight_counts_once(tmp_path: Path) -> None:
    from tests.tiny_models import llama_config, llama_tokenizer

    config = llama_config(343)
    config.tie_word_embeddings = True
    from transformers import LlamaForCausalLM

    LlamaForCausalLM(config).save_pretrained(tmp_path)
    llama_tokenizer(chat=False).save_pretrained(tmp_path)
    tied, _ = ModelLoader(str(tmp_path), task="causal-lm", dtype="float32").load_model()
    adapted = attach_adapter(tied, "CAUSAL_LM", AdapterSpec("lora", r=2))
    trainable, total = count_parameters(adapted)
    separate = LlamaForCausalLM(llama_config(343))
    assert total == count_parameters(separate)[1] - 343 * 64 + trainable


def test_another_bert_can_be_made(tmp_path: Path) -> None:
    # The fixtures of this folder rest on it: same seed, same weights.
    first, second = save_bert(tmp_path / "a", seed=3), save_bert(tmp_path / "b", seed=3)
    assert find_model(first).digest() == find_model(second).digest()
