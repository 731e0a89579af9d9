"""Several adapters over one base: what they answer, what they share, and what does not belong together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelLoader, Prediction, QLoRATrainer
from lightft.adapter_sets import AdapterSet, load_adapters
from lightft.adapter_sets.mixed_batches import mixed_batches
from lightft.errors import AdapterError, InvalidSettingError, UnknownNameError
from tests.tiny_models import LABELS, TYPES, classified_texts, instructions, tagged_texts

TASK = "token-classification"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Adapters of many kinds, of two tasks and three label maps, on one base."""
    folder = tmp_path_factory.mktemp("adapters")
    base = ModelLoader(str(tiny_bert), task=TASK, labels=TYPES, dtype="float32")
    texts = ModelLoader(str(tiny_bert), task="text-classification", labels=LABELS, dtype="float32")
    return {
        "news": save(folder / "news", base, AdapterSpec("lora", r=4), seed=0),
        "tweets": save(folder / "tweets", base, AdapterSpec("rslora", r=2, targets=["query", "value"]), seed=1),
        "letters": save(folder / "letters", base, AdapterSpec("lora", r=3), seed=2),
        "dora": save(folder / "dora", base, AdapterSpec("dora", r=2), seed=3),
        "biased": save(folder / "biased", base, AdapterSpec("lora", r=2, bias="all"), seed=4),
        "ia3": save(folder / "ia3", base, "ia3", seed=5),
        "head": save(folder / "head", base, "head-only", seed=6),
        "people": save(folder / "people", base.replace(labels=("PER", "LOC", "ORG")), "lora", seed=7),
        "mood": save(folder / "mood", texts, AdapterSpec("lora", r=2), seed=8),
        "taste": save(folder / "taste", texts, AdapterSpec("lora", r=2), seed=9),
    }


def save(folder: Path, loader: ModelLoader, spec: AdapterSpec | str, *, seed: int, quantized: bool = False) -> Path:
    examples = {TASK: tagged_texts, "text-classification": classified_texts, "causal-lm": instructions}[loader.task](4)
    kind = QLoRATrainer if quantized else LoRATrainer
    trainer = kind(loader, adapter=spec, epochs=1, seed=seed, progress=False)
    model = trainer.train(examples)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return trainer.save(model, folder)


@pytest.fixture(scope="module")
def adapters(made: dict[str, Path]) -> AdapterSet:
    return load_adapters(made, device="cpu")


@pytest.fixture(scope="module")
def alone(made: dict[str, Path]) -> dict[str, lightft.inference.Predictor]:
    """The same adapters, each opened by itself."""
    return {name: lightft.load(folder, device="cpu") for name, folder in made.items()}


def memory_of(*models: nn.Module) -> dict[int, int]:
    """Return the bytes of every block of memory that the models' weights lie in, by where it starts."""
    storages = [parameter.untyped_storage() for model in models for parameter in model.parameters()]
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


def close(left: Prediction, right: Prediction) -> bool:
    """Whether two predictions are the same up to the rounding of another batch."""
    if left.probabilities is not None and right.probabilities is not None:
        return left.probabilities == pytest.approx(right.probabilities, abs=1e-5)
    scores = [[span.score for span in prediction.predicted] for prediction in (left, right)]
    return left.tags == right.tags and scores[0] == pytest.approx(scores[1], abs=1e-5)


# --- one adapter for all


def test_every_kind_and_task_answers_as_it_does_alone(adapters: AdapterSet, alone: dict[str, Any]) -> None:
    for name, predictor in alone.items():
        examples = classified_texts() if predictor.head.name == "text-classification" else tagged_texts()
        assert adapters.predict(examples, adapter=name) == predictor.predict(examples), name
        assert adapters[name].predict(examples) == predictor.predict(examples)


def test_one_text_a_list_and_a_stream_are_answered_as_by_a_predictor(
    adapters: AdapterSet, alone: dict[str, Any]
) -> None:
    texts = [example.text for example in tagged_texts(6)]
    assert adapters(texts[0], adapter="news") == alone["news"](texts[0])
    assert adapters(texts, adapter="news") == alone["news"](texts)
    stream = adapters((text for text in texts), adapter="news")
    assert isinstance(stream, Iterator)
    assert list(stream) == alone["news"](texts)


def test_a_set_is_a_mapping_of_predictors(adapters: AdapterSet, made: dict[str, Path]) -> None:
    assert adapters.names == tuple(made) == tuple(adapters)
    assert len(adapters) == len(made)
    assert "news" in adapters
    assert "new" not in adapters
    assert isinstance(adapters["news"], lightft.inference.Predictor)
    with pytest.raises(UnknownNameError, match="No adapter named 'new'. Did you mean 'news'"):
        adapters["new"]
    with pytest.raises(UnknownNameError, match="No adapter named 'twets'. Did you mean 'tweets'"):
        adapters(["a film"], adapter=["twets"])


# --- memory


def test_memory_is_one_base_and_what_each_adapter_stores(
    adapters: AdapterSet, made: dict[str, Path], tiny_bert: Path
) -> None:
    base = ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32").load_model()[0].bert
    stored = [load_file(folder / "adapter_model.safetensors") for folder in made.values()]
    # Where biases are trained, peft writes those of the head under two names.
    own = sum(
        tensor.nbytes for tensors in stored for name, tensor in tensors.items() if ".modules_to_save." not in name
    )
    # Beside every head peft keeps the untrained one, of which each task and label map has one here.
    heads = sum(
        parameter.nbytes
        for name in ("news", "people", "mood")
        for part, parameter in adapters[name].model.named_parameters()
        if ".original_module." in part
    )
    used = sum(memory_of(*(predictor.model for predictor in adapters.values())).values())
    assert used == sum(memory_of(base).values()) + own + heads


@pytest.mark.parametrize("other", ["tweets", "dora", "people", "mood"])
def test_frozen_weights_are_the_same_memory_whatever_the_task(adapters: AdapterSet, other: str) -> None:
    first, second = (
        {
            name.replace(".base_layer", ""): parameter.data_ptr()
            for name, parameter in adapters[adapter].model.get_base_model().bert.named_parameters()
            if "lora_" not in name
        }
        for adapter in ("news", other)
    )
    common = set(first) & set(second)
    assert len(common) == 37
    assert {name for name in common if first[name] != second[name]} == set()


def test_biases_that_one_adapter_trained_are_its_own(adapters: AdapterSet, alone: dict[str, Any]) -> None:
    name = "bert.encoder.layer.0.attention.output.LayerNorm.bias"
    news, biased = (adapters[adapter].model.get_base_model().get_parameter(name) for adapter in ("news", "biased"))
    assert torch.equal(news, alone["news"].model.get_base_model().get_parameter(name))
    assert torch.equal(biased, alone["biased"].model.get_base_model().get_parameter(name))
    assert not torch.equal(news, biased)


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_and_a_classifier_share_one_base(tmp_path: Path, tiny_llama: Path, tied: bool) -> None:
    import transformers

    base = shutil.copytree(tiny_llama, tmp_path / "base")
    config = transformers.AutoConfig.from_pretrained(base, tie_word_embeddings=tied)
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(base)
    writer = ModelLoader(str(base), task="causal-lm", dtype="float32")
    texts = ModelLoader(str(base), labels=LABELS, dtype="float32")
    folders = {
        "mood": save(tmp_path / "mood", texts, AdapterSpec("lora", r=2), seed=0),
        "writer": save(tmp_path / "writer", writer, AdapterSpec("lora", r=2), seed=1),
    }
    adapters = load_adapters(folders, device="cpu")
    mood, written = adapters.predict(classified_texts(2), adapter=["mood", "writer"])
    assert mood.predicted in LABELS
    assert written.predicted == ""
    assert adapters("say the film", adapter="writer") == lightft.load(folders["writer"], device="cpu")("say the film")
    one, two = (adapters[name].model.get_base_model() for name in ("mood", "writer"))
    assert one.model.embed_tokens.weight.data_ptr() == two.model.embed_tokens.weight.data_ptr()
    assert (two.lm_head.weight.data_ptr() == one.model.embed_tokens.weight.data_ptr()) is tied


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_is_shared_too(tmp_path: Path, tiny_bert: Path, quantization: str) -> None:
    folders = {}
    for seed, (task, labels) in enumerate([(TASK, TYPES), (TASK, TYPES), ("text-classification", LABELS)]):
        loader = ModelLoader(str(tiny_bert), task=task, labels=labels, dtype="float32", quantization=quantization)
        folders[f"{task}-{seed}"] = save(
            tmp_path / str(seed), loader, AdapterSpec("lora", r=2), seed=seed, quantized=True
        )
    adapters = load_adapters(folders, device="cpu")
    tagger, other_tagger, classifier = adapters.names
    for name in adapters.names:
        examples = classified_texts() if name == classifier else tagged_texts()
        assert adapters.predict(examples, adapter=name) == lightft.load(folders[name], device="cpu").predict(examples)
    weights = {
        adapters[name].model.get_base_model().bert.encoder.layer[0].intermediate.dense.base_layer.weight.data_ptr()
        for name in adapters.names
    }
    assert len(weights) == 1
    examples = tagged_texts(6)
    mixed = adapters.predict(examples, adapter=[tagger, other_tagger] * 3)
    assert len(mixed_batches(dict(adapters))) == 1
    for row, name in enumerate([tagger, other_tagger] * 3):
        assert mixed[row].tags == adapters.predict([examples[row]], adapter=name)[0].tags


# --- an adapter for each row


def test_a_batch_of_plain_lora_is_read_in_one_pass(
    adapters: AdapterSet, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["news", "tweets", "letters", "tweets", "news", "letters", "news"]
    examples = tagged_texts(7)
    adapters.predict(examples, adapter=names)
    passes = []
    for name in ("news", "tweets", "letters"):
        adapters[name].model.register_forward_hook(lambda *_: passes.append("alone"))
    answers = adapters.predict(examples, adapter=names)
    assert passes == []
    for name, example, answer in zip(names, examples, answers, strict=True):
        (expected,) = alone[name].predict([example])
        assert answer.id == example.id
        assert answer.gold == example.target
        assert close(answer, expected)


def test_text_classifiers_are_mixed_too(adapters: AdapterSet, alone: dict[str, Any]) -> None:
    names = ["mood", "taste"] * 4
    examples = classified_texts(8)
    assert any(set(batches.names) == {"mood", "taste"} for batches in mixed_batches(dict(adapters)))
    answers = adapters([example.text for example in examples], adapter=names)
    for name, example, answer in zip(names, examples, answers, strict=True):
        assert answer.probabilities == pytest.approx(alone[name](example.text).probabilities, abs=1e-5)
    assert len({round(answer.score, 3) for answer in answers}) > 4


def test_rows_of_what_cannot_be_mixed_are_grouped_and_come_back_in_order(
    adapters: AdapterSet, alone: dict[str, Any]
) -> None:
    names = ["dora", "mood", "biased", "people", "dora", "ia3", "mood", "head"]
    examples = [*tagged_texts(8)]
    answers = adapters.predict(examples, adapter=names)
    assert [answer.id for answer in answers] == [example.id for example in examples]
    for name in set(names):
        rows = [row for row, its_name in enumerate(names) if its_name == name]
        assert [answers[row] for row in rows] == alone[name].predict([examples[row] for row in rows]), name


def test_one_batch_may_hold_both(adapters: AdapterSet, alone: dict[str, Any]) -> None:
    names = ["dora", "news", "tweets", "mood", "taste", "dora"]
    examples = tagged_texts(6)
    answers = adapters.predict(examples, adapter=names)
    for name, example, answer in zip(names, examples, answers, strict=True):
        assert close(answer, alone[name].predict([example])[0])


def test_many_rows_for_each_adapter_are_read_adapter_by_adapter(adapters: AdapterSet, alone: dict[str, Any]) -> None:
    names = ["news", "tweets"] * 8
    examples = tagged_texts(16)
    answers = adapters.predict(examples, adapter=names)
    for start, name in enumerate(("news", "tweets")):
        assert answers[start::2] == alone[name].predict(examples[start::2])


def test_only_adapters_that_peft_can_mix_are_mixed(adapters: AdapterSet) -> None:
    assert [batches.names for batches in mixed_batches(dict(adapters))] == [
        ("news", "tweets", "letters"),
        ("mood", "taste"),
    ]


def test_mixing_adds_no_weights_to_memory(adapters: AdapterSet) -> None:
    before = memory_of(*(predictor.model for predictor in adapters.values()))
    (mixed, _) = mixed_batches(dict(adapters))
    added = {
        start: size
        for start, size in memory_of(mixed.predictor(["news"]).model).items()
        if start not in before and size > 1024
    }
    assert added == {}


def test_layers_that_also_read_something_else_are_not_mixed(tmp_path: Path) -> None:
    from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base

    base = save_base(Pair("deberta-v2", TASK), tmp_path / "base", with_head=False)
    loader = ModelLoader(str(base), task=TASK, labels=LABELS[TASK], dtype="float32")
    trainer = LoRATrainer(loader, epochs=1, progress=False)
    folder = trainer.save(trainer.train(examples(TASK)), tmp_path / "adapter")
    adapters = load_adapters({"one": folder, "two": folder}, device="cpu")
    assert mixed_batches(dict(adapters)) == []
    rows = examples(TASK)[:4]
    assert adapters.predict(rows, adapter=["one", "two"] * 2)[::2] == lightft.load(folder).predict(rows[::2])


def test_mixing_leaves_the_callers_random_numbers(made: dict[str, Path]) -> None:
    adapters = load_adapters({name: made[name] for name in ("news", "tweets")}, device="cpu")
    before = torch.get_rng_state()
    adapters.predict(tagged_texts(2), adapter=["news", "tweets"])
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_may_use_and_mix_adapters_at_once(adapters: AdapterSet) -> None:
    examples = tagged_texts(6)
    orders = [["news", "tweets", "letters"] * 2, ["letters", "letters", "news"] * 2, ["dora", "tweets", "news"] * 2]
    expected = [adapters.predict(examples, adapter=order) for order in orders]
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(adapters.predict, examples, adapter=orders[turn % 3]) for turn in range(30)]
        for turn, answer in enumerate(asked):
            assert answer.result() == expected[turn % 3]


def test_names_and_rows_must_match(adapters: AdapterSet) -> None:
    with pytest.raises(InvalidSettingError, match="There are 1 adapter names for 2 rows. Give one for each"):
        adapters(["a film", "the sea"], adapter=["news"])
    with pytest.raises(InvalidSettingError, match=r"adapter=\['news'\] for one text. Give one name"):
        adapters("a film", adapter=["news"])
    assert adapters([], adapter=[]) == []


# --- change


def test_adapters_come_and_go(made: dict[str, Path], alone: dict[str, Any]) -> None:
    adapters = load_adapters({"news": made["news"], "tweets": made["tweets"]}, device="cpu")
    examples = tagged_texts(4)
    adapters.predict(examples, adapter=["news", "tweets"] * 2)
    with pytest.raises(InvalidSettingError, match="There is an adapter 'news' already. Choose another name"):
        adapters.add("news", made["letters"])
    adapters.remove("news")
    adapters.add("news", made["letters"])
    assert adapters.names == ("tweets", "news")
    answers = adapters.predict(examples, adapter=["news", "tweets"] * 2)
    assert close(answers[0], alone["letters"].predict(examples[:1])[0])
    with pytest.raises(UnknownNameError, match="No adapter named 'letters'"):
        adapters.remove("letters")


def test_the_folders_are_not_needed_once_they_are_open(made: dict[str, Path], tmp_path: Path) -> None:
    folders = {name: shutil.copytree(made[name], tmp_path / name) for name in ("news", "tweets")}
    adapters = load_adapters(folders, device="cpu")
    shutil.rmtree(tmp_path / "news")
    assert len(adapters.predict(tagged_texts(2), adapter=["news", "tweets"])) == 2


def test_a_base_that_moved_is_named(made: dict[str, Path], tmp_path: Path, tiny_bert: Path, other_bert: Path) -> None:
    moved = shutil.copytree(tiny_bert, tmp_path / "moved")
    folders = {name: made[name] for name in ("news", "letters", "mood")}
    adapters = load_adapters(folders, base=str(moved), device="cpu")
    assert len(adapters.predict(tagged_texts(3), adapter=["news", "letters", "mood"])) == 3
    with pytest.raises(AdapterError, match="Use the base it was trained on"):
        load_adapters(folders, base=str(other_bert), device="cpu")


# --- what is refused


def test_an_adapter_of_another_base_is_refused(made: dict[str, Path], tmp_path: Path, other_bert: Path) -> None:
    loader = ModelLoader(str(other_bert), task=TASK, labels=TYPES, dtype="float32")
    other = save(tmp_path / "other", loader, AdapterSpec("lora", r=2), seed=0)
    with pytest.raises(
        AdapterError,
        match=r"'far' was trained on '.*other-bert' with digest 'sha256:.*', 'news' on '.*bert' with digest",
    ):
        load_adapters({"news": made["news"], "far": other}, device="cpu")


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"quantization": "nf4"}])
def test_an_adapter_of_the_same_base_held_otherwise_is_refused(
    made: dict[str, Path], tmp_path: Path, tiny_bert: Path, change: dict[str, str]
) -> None:
    loader = ModelLoader(str(tiny_bert), **{"task": TASK, "labels": TYPES, "dtype": "float32", **change})
    other = save(tmp_path / "other", loader, AdapterSpec("lora", r=2), seed=0, quantized="quantization" in change)
    ((what, value),) = change.items()
    with pytest.raises(AdapterError, match=f"'other' was trained on .* with {what} '{value}', 'news' on"):
        load_adapters({"news": made["news"], "other": other}, device="cpu")


def test_a_model_trained_whole_and_a_folder_from_elsewhere_are_refused(
    made: dict[str, Path], tmp_path: Path, tiny_bert: Path
) -> None:
    loader = ModelLoader(str(tiny_bert), task=TASK, labels=TYPES, dtype="float32")
    whole = save(tmp_path / "whole", loader, "full", seed=0)
    with pytest.raises(AdapterError, match=r"there is no adapter_config.json in it. A model trained whole"):
        load_adapters({"whole": whole}, device="cpu")
    with pytest.raises(AdapterError, match=r"there is no lightft.json in it"):
        load_adapters({"base": tiny_bert}, device="cpu")
