"""Trainers: the caller's model is left as it was, a run on disk says everything, and a finished run is not made again."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, BertForTokenClassification, PreTrainedModel

import lightft
from lightft import AdapterSpec, Example, LoRATrainer, ModelLoader, QLoRATrainer, Run, TaskData
from lightft.adapters import ADAPTERS, register
from lightft.adapters.attach import attach_adapter
from lightft.comparison import compare_runs
from lightft.errors import AdapterError, DataError, InvalidPluginError, InvalidSettingError, UnknownNameError
from lightft.experiment import as_predictor
from lightft.metrics import score_predictions
from lightft.models import count_parameters
from tests.tiny_models import LABELS, TYPES, classified_texts, instructions, tagged_texts, wordpiece_tokenizer

QUICK: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "progress": False}


def task_data(rows: tuple[Example, ...], task: str, labels: tuple[str, ...] = (), **fields: Any) -> TaskData:
    third = len(rows) // 3
    splits = {"train": rows[: 2 * third], "validation": rows[2 * third :], "test": rows[third:]}
    return TaskData(**{"task": task, "source": "made up", "labels": labels, **splits, **fields})


CLASSES = task_data(classified_texts(), "text-classification", LABELS)
TAGS = task_data(tagged_texts(), "token-classification", TYPES)
CHATS = task_data(instructions(), "causal-lm")


@pytest.fixture
def loader(tiny_bert: Path) -> ModelLoader:
    return ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32")


class Snapshot:
    """Everything about a model that training could change."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.values = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
        self.identities = {name: id(value) for name, value in model.named_parameters()}
        # bitsandbytes moves its own weights to other memory when they are first used.
        plain = {name: value for name, value in model.named_parameters() if type(value) is nn.Parameter}
        self.places = {name: value.data_ptr() for name, value in plain.items()}
        self.trainable = {name: value.requires_grad for name, value in model.named_parameters()}
        self.gradients = {name: value.grad is None for name, value in model.named_parameters()}
        self.modules = {name: (type(module), id(module), module.training) for name, module in model.named_modules()}
        self.hooks = {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks)) for name, module in model.named_modules()
        }
        self.config = copy.deepcopy(model.config.to_dict())
        self.attributes = set(vars(model))

    def assert_same(self, other: Snapshot) -> None:
        for part, value in vars(self).items():
            theirs = vars(other)[part]
            if part in ("values", "buffers"):
                assert set(value) == set(theirs)
                changed = [name for name in value if not torch.equal(value[name], theirs[name])]
                assert changed == []
            else:
                assert value == theirs, part


def logits_of(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokenizer("anna saw a good film")["input_ids"]])).logits


# --- the caller's model


@pytest.mark.parametrize("adapter", ["lora", "head-only", "full"])
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_leaves_the_given_model_as_it_was(
    dropout_bert: Path, adapter: str, settings: dict[str, Any], dtype: str
) -> None:
    model, tokenizer = ModelLoader(str(dropout_bert), labels=LABELS, dtype=dtype).load_model()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    before, logits = Snapshot(model), logits_of(model, tokenizer)
    trainer = LoRATrainer(model, tokenizer, adapter=adapter, **QUICK)
    trained = trainer.train(CLASSES.train, CLASSES.validation, **settings)
    before.assert_same(Snapshot(model))
    assert torch.equal(logits, logits_of(model, tokenizer))
    assert not torch.equal(logits, logits_of(trained, tokenizer))
    assert not any("peft" in type(module).__module__ for module in model.modules())


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_training_leaves_a_quantised_model_as_it_was(loader: ModelLoader, quantization: str) -> None:
    logits = logits_of(*loader.replace(quantization=quantization).load_model())
    # This one was not asked anything before.
    model, tokenizer = loader.replace(quantization=quantization).load_model()
    before = Snapshot(model)
    QLoRATrainer(model, tokenizer, **QUICK).train(CLASSES.train, CLASSES.validation)
    before.assert_same(Snapshot(model))
    assert torch.equal(logits, logits_of(model, tokenizer))


def test_training_leaves_a_language_model_as_it_was(tiny_llama: Path) -> None:
    model, tokenizer = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32").load_model()
    before = Snapshot(model)
    LoRATrainer(model, tokenizer, **QUICK).train(CHATS.train, CHATS.validation)
    before.assert_same(Snapshot(model))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_second_training_gives_the_same_to_the_last_bit(dropout_bert: Path, in_memory: bool) -> None:
    loader = ModelLoader(str(dropout_bert), labels=LABELS, dtype="float32")
    trainer = LoRATrainer(*loader.load_model(), **QUICK) if in_memory else LoRATrainer(loader, **QUICK)
    first, second = (trainer.train(CLASSES.train, CLASSES.validation) for _ in range(2))
    ours, theirs = dict(first.named_parameters()), dict(second.named_parameters())
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert trainer.predict(first, CLASSES.test) == trainer.predict(second, CLASSES.test)


def test_two_trainings_from_one_model_do_not_touch_each_other(loader: ModelLoader) -> None:
    model, tokenizer = loader.load_model()
    trainer = LoRATrainer(model, tokenizer, **QUICK)
    first = trainer.train(CLASSES.train, CLASSES.validation)
    before = logits_of(first, tokenizer)
    trainer.train(CLASSES.train, CLASSES.validation, seed=1, lora_r=2)
    assert torch.equal(before, logits_of(first, tokenizer))


def test_an_earlier_model_is_saved_with_its_own_settings(loader: ModelLoader, tmp_path: Path) -> None:
    trainer = LoRATrainer(loader, **QUICK)
    first = trainer.train(CLASSES.train, lora_r=2)
    trainer.train(CLASSES.train, lora_r=8, learning_rate=1e-3)
    folder = trainer.save(first, tmp_path / "adapter")
    described = json.loads((folder / "lightft.json").read_text())
    assert described["adapter"]["params"]["r"] == 2
    assert described["training"]["learning_rate"] == 1e-2
    assert lightft.load(folder).predict(CLASSES.test) == trainer.predict(first, CLASSES.test)


def test_frozen_weights_are_shared_and_not_copied(loader: ModelLoader) -> None:
    model, tokenizer = loader.load_model()
    trained = LoRATrainer(model, tokenizer, **QUICK).train(CLASSES.train)
    assert (
        trained.get_base_model().bert.embeddings.word_embeddings.weight.data_ptr()
        == model.bert.embeddings.word_embeddings.weight.data_ptr()
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_and_the_head_learn_in_float32_and_the_base_does_not_change(tiny_bert: Path, dtype: str) -> None:
    model, tokenizer = ModelLoader(str(tiny_bert), labels=LABELS, dtype=dtype).load_model()
    fresh = attach_adapter(model, "SEQ_CLS", AdapterSpec("lora"), seed=0)
    start = {name: value.detach().clone() for name, value in fresh.named_parameters()}
    trained = LoRATrainer(model, tokenizer, **QUICK).train(CLASSES.train)
    now = dict(trained.named_parameters())
    assert set(now) == set(start)
    moved = {name for name, value in now.items() if not torch.equal(value, start[name])}
    trainable = {name for name, value in now.items() if value.requires_grad}
    assert moved == trainable
    assert {now[name].dtype for name in trainable} == {torch.float32}
    assert {name.split(".")[-3 if "lora" not in name else -4] for name in trainable if "classifier" in name} == {
        "modules_to_save"
    }
    assert any("classifier" in name for name in trainable)
    assert {value.dtype for name, value in now.items() if name not in trainable and "classifier" not in name} == {
        model.dtype
    }


def test_a_trained_model_that_nobody_holds_is_forgotten(loader: ModelLoader) -> None:
    trainer = LoRATrainer(*loader.load_model(), **QUICK)
    trained = weakref.ref(trainer.train(CLASSES.train, CLASSES.validation))
    gc.collect()
    assert trained() is None


# --- kinds of adapters


def test_head_only_trains_the_head_and_nothing_else(loader: ModelLoader) -> None:
    trainer = LoRATrainer(loader, adapter="head-only", **QUICK)
    trained = trainer.train(CLASSES.train)
    names = {name for name, value in trained.named_parameters() if value.requires_grad}
    assert {name.rpartition("modules_to_save.default.")[2] for name in names} == {"weight", "bias"}
    assert all("classifier" in name for name in names)
    assert count_parameters(trained)[0] == 64 * 2 + 2


def test_head_only_on_a_language_model_is_refused(tiny_llama: Path) -> None:
    loader = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32")
    with pytest.raises(AdapterError, match="LlamaForCausalLM has no head to train"):
        LoRATrainer(loader, adapter="head-only", **QUICK).train(CHATS.train)


def test_full_trains_every_weight_in_float32(tiny_bert: Path) -> None:
    loader = ModelLoader(str(tiny_bert), labels=LABELS, dtype="bfloat16")
    model, _ = loader.load_model()
    trained = LoRATrainer(loader, adapter="full", **QUICK, precision="float32").train(CLASSES.train)
    assert isinstance(trained, BertForSequenceClassification)
    assert all(value.requires_grad and value.dtype == torch.float32 for value in trained.parameters())
    unmoved = [
        name
        for name, value in trained.named_parameters()
        if torch.equal(value.bfloat16().float(), model.get_parameter(name).float())
    ]
    assert unmoved == []


def test_the_paper_of_lora_in_numbers(loader: ModelLoader) -> None:
    model, tokenizer = loader.load_model()
    adapted = attach_adapter(
        model, "SEQ_CLS", AdapterSpec("lora", r=4, alpha=10, targets=["query"], dropout=0.0)
    ).eval()
    assert torch.equal(logits_of(model, tokenizer), logits_of(adapted, tokenizer)), "B starts at zero"
    layer = adapted.get_base_model().bert.encoder.layer[0].attention.self.query
    torch.manual_seed(0)
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
    x = torch.randn(3, 64)
    by_hand = x @ layer.base_layer.weight.T + layer.base_layer.bias
    by_hand = by_hand + 10 / 4 * (x @ layer.lora_A["default"].weight.T) @ layer.lora_B["default"].weight.T
    assert torch.allclose(layer(x), by_hand, atol=1e-5)


def test_arguments_of_train_override_the_adapters(loader: ModelLoader) -> None:
    trainer = LoRATrainer(loader, adapter=AdapterSpec("lora", r=8, alpha=8), **QUICK)
    trained = trainer.train(CLASSES.train, lora_r=2, lora_dropout=0.0, target_modules=["query", "value"])
    config = trained.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.task_type) == (2, 8, 0.0, "SEQ_CLS")
    assert {name.rpartition(".")[2] for name in config.target_modules} == {"query", "value"}
    with pytest.raises(InvalidSettingError, match="'head-only' has no parameter 'r'"):
        LoRATrainer(loader, adapter="head-only").train(CLASSES.train, lora_r=4)
    with pytest.raises(AdapterError, match="The target 'q_proj' matches no linear layer"):
        LoRATrainer(loader, **QUICK).train(CLASSES.train, target_modules=["q_proj"])


def test_equal_specs_are_equal_and_come_back_from_json() -> None:
    spec = AdapterSpec("lora", r=16)
    assert spec == AdapterSpec("lora") == AdapterSpec("lora", {"alpha": 32}) == AdapterSpec.of("lora")
    assert hash(spec) == hash(AdapterSpec("lora"))
    assert spec != AdapterSpec("lora", r=8)
    listed = AdapterSpec("lora", targets=["query", "value"])
    assert AdapterSpec.of(json.loads(json.dumps(listed.to_json()))) == listed
    assert AdapterSpec.of(spec) is spec
    assert str(AdapterSpec("head-only")) == "head-only()"


def test_unknown_adapters_and_parameters_suggest_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"No adapter named 'lroa'\. Did you mean 'lora'\? Known: adalora, bias-only, dora, "
    ):
        AdapterSpec("lroa")
    with pytest.raises(InvalidSettingError, match=r"'lora' has no parameter 'alfa'\. Did you mean 'alpha'\?"):
        AdapterSpec("lora", alfa=3)


def test_an_adapter_of_another_package_trains_saves_and_loads(loader: ModelLoader, tmp_path: Path) -> None:
    from peft import IA3Config

    @register("scaling", learning_rate=2e-2)
    def scaling(site: Any, *, feedforward: bool = False) -> IA3Config:
        return IA3Config(
            task_type=site.task_type,
            target_modules=site.targets("all"),
            feedforward_modules=site.targets("output.dense") if feedforward else [],
            modules_to_save=list(site.head),
        )

    try:
        trainer = LoRATrainer(loader, adapter="scaling", epochs=2, progress=False)
        trained = trainer.train(CLASSES.train)
        folder = trainer.save(trained, tmp_path / "adapter")
        assert lightft.load(folder).predict(CLASSES.test) == trainer.predict(trained, CLASSES.test)
        assert json.loads((folder / "lightft.json").read_text())["training"]["learning_rate"] == 2e-2
    finally:
        ADAPTERS.remove("scaling")


def test_an_adapter_that_does_not_keep_its_contract_is_refused(loader: ModelLoader) -> None:
    with pytest.raises(InvalidPluginError, match="must take the site and then keyword-only parameters with defaults"):
        register("odd")(lambda site, r: None)
    with pytest.raises(InvalidPluginError, match="must take the site"):

        @register("odd")
        def odd(site: Any, *, r: int) -> None: ...

    with pytest.raises(InvalidPluginError, match="There is already an adapter named 'lora'"):
        register("lora")(lambda site: None)

    register("nothing")(lambda site: None)
    try:
        with pytest.raises(AdapterError, match="'nothing' built no peft config but does not declare changes_base"):
            LoRATrainer(loader, adapter="nothing", **QUICK).train(CLASSES.train)
    finally:
        ADAPTERS.remove("nothing")


def test_peft_may_not_train_another_module_than_the_head(loader: ModelLoader) -> None:
    model, _ = loader.load_model()
    model.bert.encoder.layer[0].classifier = nn.Linear(64, 64)
    with pytest.raises(AdapterError, match="but the head is"):
        attach_adapter(model, "SEQ_CLS", AdapterSpec("lora", targets=["query"]))


# --- heads and labels from what is there


def test_a_model_in_memory_tells_its_task_and_labels(tiny_bert: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(
        tiny_bert, id2label={0: "positive", 1: "negative"}, label2id={"positive": 0, "negative": 1}
    )
    trainer = LoRATrainer(model, wordpiece_tokenizer(), **QUICK)
    trainer.train(CLASSES.train, CLASSES.validation)
    assert trainer.head is not None
    assert trainer.head.labels == ("positive", "negative")
    unnamed = BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    trainer = LoRATrainer(unnamed, wordpiece_tokenizer(), **QUICK)
    trainer.train(CLASSES.train, CLASSES.validation)
    assert trainer.head is not None
    assert trainer.head.labels == LABELS
    tagger = BertForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    trainer = LoRATrainer(tagger, wordpiece_tokenizer(), **QUICK)
    trainer.train(TAGS.train, TAGS.validation)
    assert trainer.head is not None
    assert trainer.head.labels == TYPES


def test_too_few_outputs_are_refused_with_what_to_do(tiny_bert: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    with pytest.raises(
        DataError, match=r"The data has 2 labels .*needs 2 outputs; it has 3. Load it with ModelLoader\(name"
    ):
        LoRATrainer(model, wordpiece_tokenizer(), **QUICK).train(CLASSES.train)
    with pytest.raises(InvalidSettingError, match="A BertModel has no task head"):
        LoRATrainer(model.bert, wordpiece_tokenizer(), **QUICK).train(CLASSES.train)


def test_labels_come_from_the_data_where_the_loader_names_none(tiny_bert: Path) -> None:
    trainer = LoRATrainer(ModelLoader(str(tiny_bert), dtype="float32"), **QUICK)
    trainer.train(CLASSES.train)
    assert trainer.head is not None
    assert trainer.head.labels == LABELS


def test_a_trainer_says_what_it_lacks(loader: ModelLoader) -> None:
    model, _ = loader.load_model()
    with pytest.raises(InvalidSettingError, match="A model in memory needs its tokenizer"):
        LoRATrainer(model)
    fresh = LoRATrainer(loader)
    with pytest.raises(InvalidSettingError, match="has no tokenizer yet: call train"):
        fresh.predict(model, CLASSES.test)
    with pytest.raises(InvalidSettingError, match="Train first"):
        fresh.predictor(model)
    with pytest.raises(InvalidSettingError, match="nothing to save yet"):
        fresh.save(model, "somewhere")
    with pytest.raises(InvalidSettingError, match="give the trainer output_dir"):
        fresh.fit(CLASSES)


def test_evaluating_is_scoring_the_predictions(loader: ModelLoader) -> None:
    trainer = LoRATrainer(loader, **QUICK)
    trained = trainer.train(CLASSES.train, CLASSES.validation)
    predictions = trainer.predict(trained, CLASSES.test)
    assert [prediction.gold for prediction in predictions] == [example.target for example in CLASSES.test]
    names = ("accuracy", "macro_f1", "weighted_f1", "roc_auc")
    assert trainer.evaluate(trained, CLASSES.test) == score_predictions(predictions, names, LABELS)
    right = sum(prediction.predicted == prediction.gold for prediction in predictions)
    assert trainer.evaluate(trained, CLASSES.test)["accuracy"] == right / len(CLASSES.test)


def test_a_model_can_be_evaluated_before_it_is_trained(loader: ModelLoader) -> None:
    model, tokenizer = loader.load_model()
    before = LoRATrainer(model, tokenizer).evaluate(model, CLASSES.test)
    assert 0 <= before["accuracy"] <= 1


def test_the_length_of_a_training_is_that_of_its_predictions(loader: ModelLoader, tmp_path: Path) -> None:
    trainer = LoRATrainer(loader, **QUICK)
    trained = trainer.train(CLASSES.train, max_length=7)
    assert trainer.predictor(trained).max_length == 7
    assert json.loads((trainer.save(trained, tmp_path / "adapter") / "lightft.json").read_text())["max_length"] == 7


# --- runs


@pytest.mark.parametrize("data", [CLASSES, TAGS, CHATS], ids=lambda data: data.task)
def test_a_run_says_everything(tiny_bert: Path, tiny_llama: Path, tmp_path: Path, data: TaskData) -> None:
    folder = tiny_llama if data.task == "causal-lm" else tiny_bert
    loader = ModelLoader(str(folder), task=data.task, labels=data.labels or None, dtype="float32")
    trainer = LoRATrainer(loader, adapter=AdapterSpec("lora", r=4), output_dir=tmp_path / "runs" / "first", **QUICK)
    run = trainer.fit(data)
    assert sorted(file.name for file in (tmp_path / "runs" / "first").iterdir()) == [
        "adapter",
        "predictions.jsonl",
        "run.json",
    ]
    stored = Run.load(tmp_path / "runs" / "first")
    assert stored.to_json() == run.to_json()
    assert (run.name, run.task, run.labels, run.seed) == ("first", data.task, data.labels, 0)
    assert run.adapter == {"kind": "lora", "params": AdapterSpec("lora", r=4).params}
    assert run.model["name"] == str(folder)
    assert run.model["digest"].startswith("sha256:")
    assert run.data["fingerprint"] == data.fingerprint
    assert run.data["test_fingerprint"] == data.split_fingerprint("test")
    assert run.data["rows"] == {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    assert run.data["tested_on"] == "test"
    assert run.training["learning_rate"] == 1e-2
    assert run.training["best_epoch"] in (1, 2)
    assert [prediction.id for prediction in run.predictions] == [example.id for example in data.test]
    assert [prediction.gold for prediction in stored.predictions] == [example.target for example in data.test]
    assert all(run.cost[name] > 0 for name in run.cost if name not in ("peak_memory_is_of_process", "padding_share"))
    assert 0 <= run.cost["padding_share"] < 1
    adapted = lightft.load(tmp_path / "runs" / "first" / "adapter")
    assert (run.cost["trainable_parameters"], run.cost["total_parameters"]) == (
        sum(
            value.numel()
            for name, value in adapted.model.named_parameters()
            if "lora" in name or "modules_to_save" in name
        ),
        count_parameters(adapted.model)[1],
    )
    weights = tmp_path / "runs" / "first" / "adapter" / "adapter_model.safetensors"
    assert run.cost["adapter_bytes"] == weights.stat().st_size
    assert {row["epoch"] for row in run.history if f"validation_{run.metrics[0]}" in row} == {1, 2}
    assert run.environment["device"] == "cpu"
    assert adapted.predict(data.test) == list(run.predictions)


def test_a_finished_run_is_returned_on_resume_and_never_written_over(loader: ModelLoader, tmp_path: Path) -> None:
    def trainer(**settings: Any) -> LoRATrainer:
        return LoRATrainer(loader, output_dir=tmp_path / "run", **{**QUICK, **settings})

    run = trainer().fit(CLASSES)
    written = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    seen: list[Any] = []
    again = trainer(callbacks=[seen.append]).fit(CLASSES, resume=True)
    assert seen == [], "nothing was trained"
    assert again.to_json() == run.to_json()
    assert again.predictions == Run.load(tmp_path / "run").predictions
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == written
    with pytest.raises(
        InvalidSettingError, match=r"already holds the run 'run'. Choose another output_dir, or delete it"
    ):
        trainer().fit(CLASSES)
    fewer = replace(CLASSES, train=CLASSES.train[1:])
    for other, data in (
        (trainer(learning_rate=1e-3), CLASSES),
        (trainer(seed=1), CLASSES),
        (trainer(adapter="head-only"), CLASSES),
        (trainer(adapter=AdapterSpec("lora", r=2)), CLASSES),
        (trainer(), fewer),
    ):
        with pytest.raises(InvalidSettingError, match="already holds the run 'run', made with other settings or data"):
            other.fit(data, resume=True)
    with pytest.raises(InvalidSettingError, match="made with other settings or data"):
        QLoRATrainer(loader, output_dir=tmp_path / "run", **QUICK).fit(CLASSES, resume=True)


def test_a_run_that_was_broken_off_is_made_again(loader: ModelLoader, tmp_path: Path) -> None:
    def breaking(row: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LoRATrainer(loader, output_dir=tmp_path / "run", callbacks=[breaking], **QUICK).fit(CLASSES)
    run = LoRATrainer(loader, output_dir=tmp_path / "run", **QUICK).fit(CLASSES, resume=True)
    assert Run.load(tmp_path / "run").to_json() == run.to_json()


def test_without_a_test_split_the_validation_split_is_predicted_and_the_run_says_so(
    loader: ModelLoader, tmp_path: Path
) -> None:
    data = replace(CLASSES, test=())
    run = LoRATrainer(loader, output_dir=tmp_path / "run", name="named", **QUICK).fit(data)
    assert run.name == "named"
    assert run.data["tested_on"] == "validation"
    assert run.data["test_fingerprint"] == data.split_fingerprint("validation")
    assert [prediction.id for prediction in run.predictions] == [example.id for example in data.validation]


def test_the_same_run_twice_predicts_the_same(loader: ModelLoader, tmp_path: Path) -> None:
    first, second = (LoRATrainer(loader, output_dir=tmp_path / name, **QUICK).fit(CLASSES) for name in "ab")
    assert first.predictions == second.predictions
    assert (tmp_path / "a" / "adapter" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "b" / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["full", "head-only"])
def test_every_kind_makes_a_run_that_can_be_loaded(
    loader: ModelLoader, tmp_path: Path, adapter: str, precision: str
) -> None:
    trainer = LoRATrainer(loader, adapter=adapter, output_dir=tmp_path / "run", precision=precision, **QUICK)
    run = trainer.fit(CLASSES)
    assert run.adapter == {"kind": adapter, "params": {}}
    assert lightft.load(tmp_path / "run" / "adapter").predict(CLASSES.test) == list(run.predictions)
    model, _ = loader.load_model()
    everything = count_parameters(model)[1]
    assert run.cost["total_parameters"] == everything
    assert run.cost["trainable_parameters"] == (everything if adapter == "full" else 130)
    assert trainer.fit(CLASSES, resume=True).to_json() == run.to_json()


def test_a_task_follows_the_data_where_the_loader_leaves_it_open(tiny_bert: Path, tmp_path: Path) -> None:
    loader = ModelLoader(str(tiny_bert), dtype="float32")
    run = LoRATrainer(loader, output_dir=tmp_path / "run", **QUICK).fit(TAGS)
    assert (run.task, run.labels) == ("token-classification", TYPES)


def test_a_model_that_a_loader_loaded_pads_with_what_its_head_looks_for(tiny_llama: Path) -> None:
    model, _ = ModelLoader(str(tiny_llama), labels=LABELS, dtype="float32").load_model()
    assert as_predictor(model).tokenizer.pad_token_id == model.config.pad_token_id


def test_what_did_not_fit_is_in_the_run(loader: ModelLoader, tmp_path: Path) -> None:
    run = LoRATrainer(loader, output_dir=tmp_path / "run", max_length=7, **QUICK).fit(CLASSES)
    tokenizer = wordpiece_tokenizer()
    longer, tested = (
        sum(len(tokenizer(example.text)["input_ids"]) > 7 for example in split)
        for split in (CLASSES.train, CLASSES.test)
    )
    assert run.data["encoding"] == {"truncated_texts": longer, "truncated_test_texts": tested}
    assert longer > 0
    assert any(
        f"{longer} training texts and {tested} test texts were cut" in note for note in compare_runs([run]).notes
    )


# --- QLoRA


@pytest.mark.parametrize(("quantization", "kind"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_qlora_quantises_a_model_that_a_loader_loaded(loader: ModelLoader, quantization: str, kind: str) -> None:
    model, tokenizer = loader.load_model()
    before = Snapshot(model)
    trainer = QLoRATrainer(model, tokenizer, quantization=quantization, **{**QUICK, "epochs": 6})
    trained = trainer.train(CLASSES.train, CLASSES.validation)
    packed = [
        name
        for name, module in trained.named_modules()
        if name.endswith("base_layer") and type(module).__name__ == kind
    ]
    assert len(packed) == 13
    assert type(trained.get_base_model().classifier.modules_to_save["default"]) is nn.Linear
    before.assert_same(Snapshot(model))
    assert trainer.evaluate(trained, CLASSES.test)["accuracy"] > 0.8
    again = trainer.train(CLASSES.train, CLASSES.validation)
    assert trainer.predict(again, CLASSES.test) == trainer.predict(trained, CLASSES.test)


def test_qlora_is_nf4_unless_the_loader_or_the_user_says_otherwise(loader: ModelLoader, tmp_path: Path) -> None:
    assert QLoRATrainer(loader, output_dir=tmp_path / "a", **QUICK).fit(CLASSES).model["quantization"] == "nf4"
    eight = loader.replace(quantization="int8")
    run = QLoRATrainer(eight, output_dir=tmp_path / "b", **QUICK).fit(CLASSES)
    assert run.model["quantization"] == "int8"
    assert lightft.load(tmp_path / "b" / "adapter").predict(CLASSES.test) == list(run.predictions)


def test_qlora_refuses_what_cannot_be(loader: ModelLoader, tiny_bert: Path) -> None:
    with pytest.raises(
        AdapterError, match="'full' cannot be trained on .* it trains the base itself, which is frozen in nf4"
    ):
        QLoRATrainer(loader, adapter="full", **QUICK).train(CLASSES.train)
    foreign = BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    with pytest.raises(InvalidSettingError, match=r"was not loaded by a ModelLoader.*Give QLoRATrainer a ModelLoader"):
        QLoRATrainer(foreign, wordpiece_tokenizer(), **QUICK).train(CLASSES.train)
    with pytest.raises(InvalidSettingError, match="No quantization named 'nf5'"):
        QLoRATrainer(loader, quantization="nf5", **QUICK).train(CLASSES.train)
