"""One adapter made of several: what each method adds up, and what does not go together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForTokenClassification

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelLoader, QLoRATrainer
from lightft.combining import METHODS, combine
from lightft.errors import AdapterError, InvalidSettingError, UnknownNameError
from tests.tiny_models import LABELS, TYPES, classified_texts, instructions, tagged_texts

TASK = "token-classification"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Three taggers on one base: two of rank 4, one of rank 2 on other layers and with another scale."""
    folder = tmp_path_factory.mktemp("taggers")
    specs = {
        "first": AdapterSpec("lora", r=4, alpha=8),
        "second": AdapterSpec("lora", r=4, alpha=4),
        "narrow": AdapterSpec("rslora", r=2, alpha=3, targets=["query", "value"]),
    }
    return {
        name: save_tagger(folder / name, tiny_bert, spec, seed=seed) for seed, (name, spec) in enumerate(specs.items())
    }


def save_tagger(folder: Path, base: Path, spec: AdapterSpec | str, *, seed: int = 0, **settings: Any) -> Path:
    loader = ModelLoader(str(base), task=TASK, labels=TYPES, **{"dtype": "float32", **settings})
    return save_trained(LoRATrainer(loader, adapter=spec, progress=False, epochs=1, seed=seed), folder, tagged_texts(4))


def save_trained(trainer: LoRATrainer, folder: Path, examples: Any) -> Path:
    """Save an adapter whose update is far from nothing, so that combinations of it differ."""
    model = trainer.train(examples)
    torch.manual_seed(trainer.config.seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name or (parameter.requires_grad and name.endswith(".bias")):
            parameter.data += 0.05 * torch.randn_like(parameter)
    return trainer.save(model, folder)


def updates(folder: Path) -> dict[str, torch.Tensor]:
    """Return what peft itself adds to the weight of each layer."""
    model = lightft.load(folder, device="cpu").model
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def weighted_sum(folders: Sequence[Path], weights: Sequence[float]) -> dict[str, torch.Tensor]:
    total: dict[str, torch.Tensor] = {}
    for folder, weight in zip(folders, weights, strict=True):
        for name, update in updates(folder).items():
            total[name] = total.get(name, torch.zeros_like(update)) + weight * update
    return total


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(4, 36).reshape(2, 16)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def every_second(chances: torch.Tensor) -> torch.Tensor:
    return (torch.arange(chances.numel()) % 2).reshape(chances.shape).to(chances.dtype)


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert set(left) == set(right)
    return max(float((left[name] - right[name]).abs().max()) for name in left)


# --- what the methods add up


@pytest.mark.parametrize("names", [("first", "second"), ("first", "narrow"), ("narrow", "second", "first")])
def test_cat_is_the_exact_sum_of_the_updates(made: dict[str, Path], tmp_path: Path, names: tuple[str, ...]) -> None:
    folders, weights = [made[name] for name in names], [0.7, -0.4, 1.5][: len(names)]
    out = combine(folders, method="cat", weights=weights, out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(folders, weights)) < 1e-5


def test_svd_of_full_rank_is_the_exact_sum_too(made: dict[str, Path], tmp_path: Path) -> None:
    folders = [made["first"], made["narrow"]]
    out = combine(folders, method="svd", weights=[0.6, 0.8], rank=6, out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(folders, [0.6, 0.8])) < 1e-5


def test_svd_of_lower_rank_is_the_best_of_that_rank(made: dict[str, Path], tmp_path: Path) -> None:
    folders = [made["first"], made["second"]]
    out = combine(folders, method="svd", rank=3, out=tmp_path / "out")
    wanted = weighted_sum(folders, [0.5, 0.5])
    for name, update in updates(out).items():
        left, values, right = torch.linalg.svd(wanted[name])
        best = left[:, :3] * values[:3] @ right[:3]
        torch.testing.assert_close(update, best, rtol=0, atol=1e-5)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 3


def test_a_combination_has_the_logits_of_a_base_with_the_summed_update(made: dict[str, Path], tmp_path: Path) -> None:
    folders, weights = [made["first"], made["second"]], [0.25, 0.75]
    out = combine(folders, method="cat", weights=weights, out=tmp_path / "out")
    wanted = lightft.load(made["first"], device="cpu").model.merge_and_unload()
    own, summed = updates(made["first"]), weighted_sum(folders, weights)
    heads = [lightft.load(folder, device="cpu").model.get_base_model().classifier for folder in folders]
    with torch.no_grad():
        for name, update in summed.items():
            wanted.get_submodule(name).weight += update - own[name]
        for part in ("weight", "bias"):
            mean = sum(
                weight * getattr(head.modules_to_save["default"], part)
                for weight, head in zip(weights, heads, strict=True)
            )
            getattr(wanted.classifier, part).copy_(mean)
    torch.testing.assert_close(logits(lightft.load(out, device="cpu").model), logits(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["svd", "linear", "cat"])
def test_all_weight_on_one_gives_that_one_back(made: dict[str, Path], tmp_path: Path, method: str) -> None:
    out = combine([made["first"], made["second"]], method=method, weights=(1, 0), out=tmp_path / "out")
    assert distance(updates(out), updates(made["first"])) < 1e-5
    theirs, ours = lightft.load(made["first"], device="cpu"), lightft.load(out, device="cpu")
    torch.testing.assert_close(logits(ours.model), logits(theirs.model), rtol=0, atol=1e-5)
    assert ours.predict(tagged_texts())[0].predicted == theirs.predict(tagged_texts())[0].predicted


def test_linear_is_not_the_sum_of_the_updates(made: dict[str, Path], tmp_path: Path) -> None:
    folders = [made["first"], made["second"]]
    out = combine(folders, out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(folders, [0.5, 0.5])) > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_equals_pefts_on_the_real_base(
    made: dict[str, Path], tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    # Layers come in another order on the base itself, so that what is drawn for each would differ.
    monkeypatch.setattr(torch, "bernoulli", every_second)
    folders, weights = [made["first"], made["second"]], [0.5, 1.0]
    density = 0.4 if "ties" in method or "dare" in method else None
    out = combine(folders, method=method, weights=weights, density=density, out=tmp_path / "out")

    theirs = None
    for folder in folders:
        without_head = shutil.copytree(folder, tmp_path / folder.name)
        config = LoraConfig.from_pretrained(str(without_head))
        config.modules_to_save, config.task_type = None, None
        config.save_pretrained(str(without_head))
        if theirs is None:
            base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
            theirs = PeftModel.from_pretrained(base, str(without_head), adapter_name="first")
        else:
            theirs.load_adapter(str(without_head), adapter_name="second")
    theirs.add_weighted_adapter(
        ["first", "second"], weights, "both", combination_type=method.replace("-", "_"), density=density
    )
    expected = {
        name.removeprefix("base_model.model."): module.get_delta_weight("both")
        for name, module in theirs.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert distance(updates(out), expected) < 1e-5


def test_a_rank_stabilised_adapter_in_front_does_not_change_the_scale(made: dict[str, Path], tmp_path: Path) -> None:
    folders = [made["narrow"], made["first"]]
    out = combine(folders, method="cat", weights=[1, 1], out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(folders, [1, 1])) < 1e-5


def test_what_dare_drops_is_told_by_the_seed(made: dict[str, Path], tmp_path: Path) -> None:
    folders = [made["first"], made["second"]]
    before = torch.get_rng_state()
    first, again, other = (
        combine(folders, method="dare-linear", density=0.5, seed=seed, out=tmp_path / name)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert distance(updates(first), updates(again)) == 0
    assert distance(updates(first), updates(other)) > 1e-2


def test_signs_are_elected_among_whole_adapters_by_default(made: dict[str, Path], tmp_path: Path) -> None:
    out = combine([made["first"], made["second"]], method="ties", density=1, out=tmp_path / "out")
    assert json.loads((out / "lightft.json").read_text())["adapter"]["params"]["weights"] == [1.0, 1.0]


def test_layers_of_a_transposed_base_combine_alike(tmp_path: Path) -> None:
    from lightft.contracts.tiny_models import LABELS, Pair, examples, save_base

    base = save_base(Pair("gpt2", TASK), tmp_path / "base", with_head=False)
    folders = []
    for seed in (0, 1):
        loader = ModelLoader(str(base), task=TASK, labels=LABELS[TASK], dtype="float32")
        trainer = LoRATrainer(loader, adapter=AdapterSpec("lora", r=2), epochs=1, seed=seed, progress=False)
        folders.append(save_trained(trainer, tmp_path / f"adapter-{seed}", examples(TASK)))
    for method in ("cat", "svd"):
        rank = 4 if method == "svd" else None
        out = combine(folders, method=method, rank=rank, weights=[0.3, 0.9], out=tmp_path / method)
        assert distance(updates(out), weighted_sum(folders, [0.3, 0.9])) < 1e-5


def test_adapters_of_a_4_bit_base_combine_on_that_base(tmp_path: Path, tiny_bert: Path) -> None:
    folders = []
    for seed in (0, 1):
        loader = ModelLoader(str(tiny_bert), task=TASK, labels=TYPES, dtype="float32")
        trainer = QLoRATrainer(loader, adapter=AdapterSpec("lora", r=2), epochs=1, seed=seed, progress=False)
        folders.append(save_trained(trainer, tmp_path / f"adapter-{seed}", tagged_texts(4)))
    out = combine(folders, method="cat", weights=[1, 0.5], out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(folders, [1, 0.5])) < 1e-5
    assert lightft.load(out).predict(tagged_texts(4))
    manifest = json.loads((out / "lightft.json").read_text())
    assert manifest["base"]["quantization"] == "nf4"
    with pytest.raises(AdapterError, match="the base's quantization in common.*'nf4'.*None"):
        combine([folders[0], save_tagger(tmp_path / "plain", tiny_bert, "lora")], out=tmp_path / "mixed")


def test_a_language_model_has_no_head_and_takes_negative_weights(tmp_path: Path, tiny_llama: Path) -> None:
    folders = []
    for seed in (0, 1):
        loader = ModelLoader(str(tiny_llama), task="causal-lm", dtype="float32")
        trainer = LoRATrainer(loader, adapter=AdapterSpec("lora", r=2), epochs=1, seed=seed, progress=False)
        folders.append(save_trained(trainer, tmp_path / f"adapter-{seed}", instructions(4)))
    out = combine(folders, method="cat", weights=[1, -1], out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(folders, [1, -1])) < 1e-5
    assert isinstance(lightft.load(out).generate("say the film", max_new_tokens=3), str)


# --- what is stored whole


def test_heads_and_biases_are_averaged_by_their_weights(tmp_path: Path, tiny_bert: Path) -> None:
    spec = AdapterSpec("lora", r=2, bias="all")
    folders = [save_tagger(tmp_path / f"adapter-{seed}", tiny_bert, spec, seed=seed) for seed in (0, 1)]
    out = combine(folders, method="cat", weights=[1, 3], out=tmp_path / "out")
    first, second, combined = (dict(lightft.load(folder).model.named_parameters()) for folder in (*folders, out))
    changed = [name for name in first if "modules_to_save" in name or (name.endswith(".bias") and "lora" not in name)]
    assert any("LayerNorm" in name for name in changed)
    for name in changed:
        torch.testing.assert_close(combined[name], 0.25 * first[name] + 0.75 * second[name])
    assert not torch.equal(first[changed[0]], second[changed[0]])


def test_biases_of_one_adapter_alone_are_refused(made: dict[str, Path], tmp_path: Path, tiny_bert: Path) -> None:
    biased = save_tagger(tmp_path / "biased", tiny_bert, AdapterSpec("lora", r=4, bias="all"))
    with pytest.raises(AdapterError, match=r"biased trained bert\..*bias whole, .*first did not"):
        combine([made["first"], biased], out=tmp_path / "out")


def test_heads_need_weights_that_add_up_to_something(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match=r"add up to 0, but heads and biases are averaged"):
        combine([made["first"], made["second"]], method="cat", weights=[1, -1], out=tmp_path / "out")


# --- the folder


def test_the_folder_is_an_ordinary_adapter_that_says_what_it_was_made_of(
    made: dict[str, Path], tmp_path: Path, tiny_bert: Path
) -> None:
    out = combine([made["first"], made["narrow"]], method="svd", out=tmp_path / "new" / "out")
    assert out == tmp_path / "new" / "out"
    base = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=5)
    opened = PeftModel.from_pretrained(base, str(out))
    torch.testing.assert_close(logits(opened), logits(lightft.load(out, device="cpu").model), rtol=0, atol=1e-6)
    manifest = json.loads((out / "lightft.json").read_text())
    assert manifest["adapter"] == {
        "kind": "combined",
        "params": {"method": "svd", "weights": [0.5, 0.5], "rank": 4, "density": None, "seed": 0},
    }
    sources = manifest["training"]["combined_from"]
    assert [source["folder"] for source in sources] == [str(made["first"]), str(made["narrow"])]
    assert [source["adapter"]["kind"] for source in sources] == ["lora", "rslora"]
    assert len({source["digest"] for source in sources}) == 2
    assert (out / "tokenizer.json").is_file()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_a_combination_can_be_combined_again_and_merged(made: dict[str, Path], tmp_path: Path) -> None:
    half = combine([made["first"], made["second"]], method="cat", weights=[1, 1], out=tmp_path / "half")
    out = combine([half, made["narrow"]], method="cat", weights=[1, 1], out=tmp_path / "out")
    assert distance(updates(out), weighted_sum(list(made.values()), [1, 1, 1])) < 1e-5
    merged = AutoModelForTokenClassification.from_pretrained(lightft.export(out, to="merged", out=tmp_path / "merged"))
    torch.testing.assert_close(logits(merged), logits(lightft.load(out).model), rtol=0, atol=1e-4)


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1]}, "There are 1 weights for 2 adapters. Give one for each"),
        ({"weights": [1, float("nan")]}, r"weights=\[1.0, nan\] cannot be used"),
        ({"weights": [0, 0]}, r"finite numbers that are not all 0"),
        ({"method": "ties"}, "method='ties' needs the share of values to keep. Give density"),
        ({"method": "dare-linear-svd"}, "needs the share of values to keep"),
        ({"method": "ties", "density": 0}, "density=0 is out of range"),
        ({"method": "dare-ties", "density": 1.1}, "density=1.1 is out of range"),
        ({"method": "cat", "density": 0.5}, "density=0.5 means nothing to method='cat'"),
        ({"method": "cat", "rank": 4}, "rank=4 means nothing to method='cat'"),
        ({"method": "svd", "rank": 0}, "rank=0 is out of range"),
        ({"method": "svd", "rank": 65}, "rank=65 is larger than the 64 values of the narrowest layer. Use rank=64"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(
    made: dict[str, Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        combine([made["first"], made["second"]], out=tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_linear_of_different_ranks_names_the_methods_that_can(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="have the ranks 2, 4. Use method='svd' or method='cat'"):
        combine([made["first"], made["narrow"]], out=tmp_path / "out")


def test_an_unknown_method_fewer_than_two_and_an_existing_folder_are_refused(
    made: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="No method named 'tie'. Did you mean 'ties'"):
        combine([made["first"], made["second"]], method="tie", out=tmp_path / "out")
    for one in ([made["first"]], str(made["first"])):
        with pytest.raises(InvalidSettingError, match="names 1; two or more can be combined"):
            combine(one, out=tmp_path / "out")
    with pytest.raises(InvalidSettingError, match="exists already. Choose another folder"):
        combine([made["first"], made["second"]], out=made["first"])


def test_another_base_is_refused(made: dict[str, Path], tmp_path: Path, other_bert: Path) -> None:
    other = save_tagger(tmp_path / "other", other_bert, "lora")
    with pytest.raises(AdapterError, match="must have the base's weights in common: .*first has 'sha256:.*other has"):
        combine([made["first"], other], out=tmp_path / "out")


def test_another_task_labels_or_head_are_refused(made: dict[str, Path], tmp_path: Path, tiny_bert: Path) -> None:
    loader = ModelLoader(str(tiny_bert), task=TASK, labels=("PER", "LOC"), dtype="float32")
    turned = save_trained(LoRATrainer(loader, epochs=1, progress=False), tmp_path / "turned", tagged_texts(4))
    with pytest.raises(AdapterError, match=r"the labels in common: .*\('LOC', 'PER'\), .*\('PER', 'LOC'\)"):
        combine([made["first"], turned], out=tmp_path / "out")
    loader = ModelLoader(str(tiny_bert), task="text-classification", labels=LABELS, dtype="float32")
    texts = save_trained(LoRATrainer(loader, epochs=1, progress=False), tmp_path / "texts", classified_texts(4))
    with pytest.raises(AdapterError, match="the task in common"):
        combine([made["first"], texts], out=tmp_path / "out")
    head = lightft.tasks.TokenClassification(TYPES, decoding="argmax")
    loader = ModelLoader(str(tiny_bert), dtype="float32")
    greedy = save_trained(LoRATrainer(loader, head=head, epochs=1, progress=False), tmp_path / "g", tagged_texts(4))
    with pytest.raises(AdapterError, match="the head settings in common"):
        combine([made["first"], greedy], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("dora", "use_dora=True and is more than an update B·A"),
        ("head-only", "has no LoRA update"),
        ("full", "there is no adapter_config.json in it"),
    ],
)
def test_what_is_no_low_rank_update_is_refused_with_the_reason(
    made: dict[str, Path], tmp_path: Path, tiny_bert: Path, kind: str, reason: str
) -> None:
    other = save_tagger(tmp_path / kind, tiny_bert, kind)
    with pytest.raises(AdapterError, match=reason):
        combine([made["first"], other], out=tmp_path / "out")


def test_an_adapter_that_belongs_to_a_changed_base_is_refused(made: dict[str, Path], tmp_path: Path) -> None:
    changed = shutil.copytree(made["second"], tmp_path / "changed")
    config = json.loads((changed / "adapter_config.json").read_text())
    (changed / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": "pissa"}))
    with pytest.raises(AdapterError, match="has init_lora_weights='pissa' and belongs to a base that was changed"):
        combine([made["first"], changed], out=tmp_path / "out")


def test_a_folder_from_elsewhere_is_refused(made: dict[str, Path], tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(AdapterError, match=r"holds no adapter of ours: there is no lightft.json in it"):
        combine([made["first"], tiny_bert], out=tmp_path / "out")
