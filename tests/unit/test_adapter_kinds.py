"""What each adapter kind does that plain LoRA does not, and what a spec refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import IA3Config, LNTuningConfig, LoHaConfig, LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

import lightft
from lightft import AdapterSpec, LoRATrainer, ModelLoader, QLoRATrainer
from lightft.adapters import ADAPTERS
from lightft.adapters.attach import attach_adapter
from lightft.errors import AdapterError, InvalidSettingError, TrainingError
from lightft.tasks import TextClassification
from tests.tiny_models import LABELS, classified_texts

QUICK = {"epochs": 2, "batch_size": 4, "progress": False, "warmup": 0.0, "learning_rate": 1e-2}
ROWS = classified_texts(16)


@pytest.fixture(scope="module")
def loader(tiny_bert: Path) -> ModelLoader:
    return ModelLoader(str(tiny_bert), labels=LABELS, dtype="float32")


@pytest.fixture(scope="module")
def base(loader: ModelLoader) -> PreTrainedModel:
    return loader.load_model()[0]


def trained(loader: ModelLoader, spec: Any, folder: Path, **settings: Any) -> tuple[Any, LoRATrainer]:
    trainer = LoRATrainer(loader, adapter=spec, **{**QUICK, **settings})
    model = trainer.train(ROWS)
    trainer.save(model, folder)
    return model, trainer


@pytest.fixture(scope="module")
def batch(loader: ModelLoader) -> dict[str, torch.Tensor]:
    head, tokenizer = TextClassification(LABELS), loader.load_tokenizer()
    made = head.collate(head.encode(ROWS, tokenizer, 64)[0], tokenizer)
    made.pop("labels")
    return made


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch).logits


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_kind_that_rewrites_the_base_starts_from_its_answers_and_leaves_it_alone(
    kind: str, base: PreTrainedModel, batch: dict[str, torch.Tensor]
) -> None:
    assert ADAPTERS[kind].changes_base
    before = {name: value.clone() for name, value in base.named_parameters()}
    model = attach_adapter(base, "SEQ_CLS", AdapterSpec(kind, r=4))
    assert all(torch.equal(before[name], value) for name, value in base.named_parameters())
    torch.testing.assert_close(logits(model.eval(), batch), logits(base, batch), atol=1e-4, rtol=1e-4)
    layer = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    rewritten, original = layer.get_base_layer().weight, base.bert.encoder.layer[0].attention.self.query.weight
    assert (rewritten - original).abs().max() > 1e-3


def test_pissa_starts_from_the_top_singular_directions(base: PreTrainedModel) -> None:
    model = attach_adapter(base, "SEQ_CLS", AdapterSpec("pissa", r=4, alpha=4))
    layer = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    weight = base.bert.encoder.layer[0].attention.self.query.weight.detach()
    u, s, v = torch.linalg.svd(weight)
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(product, u[:, :4] @ torch.diag(s[:4]) @ v[:4], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_what_a_rewriting_kind_learned_is_plain_lora_on_the_unchanged_base(
    kind: str, loader: ModelLoader, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    rewritten: dict[str, torch.Tensor] = {}
    spec = AdapterSpec(kind, r=4)
    after_training = type(spec.hooks()).after_training

    def noted(self: Any, model: Any, its_base: Any) -> Any:
        rewritten["logits"] = logits(model.eval(), batch)
        return after_training(self, model, its_base)

    trainer = LoRATrainer(loader, adapter=spec, **QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(spec.hooks()), "after_training", noted)
        model = trainer.train(ROWS)
    folded = logits(model, batch)
    torch.testing.assert_close(folded, rewritten["logits"], atol=1e-5, rtol=1e-4)
    trainer.save(model, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    # Without us: peft on the base as it was.
    plain, _ = loader.load_model()
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "a").eval()
    assert torch.equal(logits(theirs, batch), folded)
    # What was trained is what counts, not what is written.
    assert trainer.result is not None
    assert trainer.result.trainable_parameters < sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)


def test_adalora_takes_ranks_away_and_saves_what_is_left(
    loader: ModelLoader, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    spec = AdapterSpec("adalora", r=2, initial_r=4)
    model, _ = trained(loader, spec, tmp_path / "a", epochs=4)
    pattern = model.peft_config["default"].rank_pattern
    ranks = [sum(kept) for kept in pattern.values()]
    assert sum(ranks) == 2 * len(ranks)
    stored = lightft.load(tmp_path / "a")
    sizes = [
        module.lora_A["default"].shape[0] for module in stored.model.modules() if type(module).__name__ == "SVDLinear"
    ]
    assert sorted(sizes) == sorted(ranks)
    assert torch.equal(logits(stored.model, batch), logits(model, batch))


def test_adalora_penalty_is_pefts_own(base: PreTrainedModel) -> None:
    spec = AdapterSpec("adalora", r=2, initial_r=4, orthogonality=0.5)
    model = attach_adapter(base, "SEQ_CLS", spec)
    ids = torch.tensor([[1, 5, 6, 2]])
    output = model(input_ids=ids, labels=torch.tensor([0]))
    plain = nn.functional.cross_entropy(output.logits, torch.tensor([0]))
    model.peft_config["default"].orth_reg_weight = 0.5
    theirs = model(input_ids=ids, labels=torch.tensor([0])).loss - plain
    torch.testing.assert_close(spec.hooks().penalty(model), theirs, atol=1e-5, rtol=1e-4)


def test_adalora_needs_steps_to_take_ranks_away(loader: ModelLoader) -> None:
    trainer = LoRATrainer(loader, adapter=AdapterSpec("adalora", r=2, initial_r=4), **{**QUICK, "max_steps": 2})
    with pytest.raises(TrainingError, match="there are 2 in all. Train for longer, or use 'lora'"):
        trainer.train(ROWS)


def test_lora_plus_gives_b_its_own_learning_rate(loader: ModelLoader) -> None:
    from lightft.training import Course, _parameter_groups

    base, _ = loader.load_model()
    spec = AdapterSpec("lora-plus", r=4, ratio=8)
    model = attach_adapter(base, "SEQ_CLS", spec)
    groups = _parameter_groups([Course(model, None, (), (), 8, spec.hooks())], 1e-3, 0.0)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rate_of[id(parameter)] == pytest.approx(8e-3 if ".lora_B." in name else 1e-3)


def test_eva_starts_from_the_directions_of_the_layers_inputs(
    loader: ModelLoader, batch: dict[str, torch.Tensor]
) -> None:
    from lightft.adapters import TrainingPlan

    base, _ = loader.load_model()
    spec = AdapterSpec("eva", r=3, rho=1.0)
    hooks = spec.hooks()
    model = attach_adapter(base, "SEQ_CLS", spec, hooks=hooks)
    hooks.before_training(model, TrainingPlan(4, lambda rows: iter([batch] * 8)))
    seen: list[torch.Tensor] = []
    query = base.bert.encoder.layer[0].attention.self.query
    handle = query.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.inference_mode():
        base(**batch)
    handle.remove()
    real = seen[0][batch["attention_mask"].bool()]
    directions = torch.linalg.svd(real - real.mean(0))[2][:3]
    started = model.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query").lora_A["default"].weight
    overlap = torch.linalg.svdvals(directions @ started.detach().T)
    # The cosines of the principal angles between the subspaces; of two random ones the largest is about 0.3. peft's are
    # estimated batch by batch.
    assert float(overlap.min()) > 0.9


def test_eva_needs_a_row_for_each_direction(loader: ModelLoader) -> None:
    spec = AdapterSpec("eva", r=8, rho=2.0)
    with pytest.raises(TrainingError, match="EVA looks for rho · r = 16 directions and needs as many training rows"):
        LoRATrainer(loader, adapter=spec, **QUICK).train(ROWS[:15])
    # Its pooler reads one position a row: batches of four rows would never show it sixteen directions.
    LoRATrainer(loader, adapter=spec, **QUICK).train(ROWS)


def test_bias_training_leaves_the_users_model_as_it_was(loader: ModelLoader) -> None:
    base, tokenizer = loader.load_model()
    before = {name: value.clone() for name, value in base.named_parameters()}
    for spec in (
        AdapterSpec("bias-only"),
        AdapterSpec("lora", r=4, bias="all"),
        AdapterSpec("lora", r=4, bias="lora_only"),
    ):
        adapted = LoRATrainer(base, tokenizer, adapter=spec, **QUICK).train(ROWS)
        moved = [
            name
            for name, value in adapted.named_parameters()
            if name.endswith("bias") and "modules_to_save" not in name and value.requires_grad
        ]
        assert moved
        assert all(torch.equal(before[name], value) for name, value in base.named_parameters())


def test_bias_only_trains_every_bias_and_the_head_and_nothing_else(base: PreTrainedModel) -> None:
    model = attach_adapter(base, "SEQ_CLS", AdapterSpec("bias-only"))
    wanted = {name for name, _ in base.bert.named_parameters(prefix="bert") if name.endswith("bias")}
    found = {
        name.removeprefix("base_model.model.").replace(".base_layer", "")
        for name, value in model.named_parameters()
        if value.requires_grad and "modules_to_save" not in name
    }
    assert found == wanted


def test_fusion_mixes_frozen_adapters_and_saves_plain_lora(
    loader: ModelLoader, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    trained(loader, AdapterSpec("lora", r=2), tmp_path / "a")
    trained(loader, AdapterSpec("rslora", r=3, alpha=3), tmp_path / "b", seed=1)
    spec = AdapterSpec("fusion", adapters=[str(tmp_path / "a"), str(tmp_path / "b")])
    hooks = spec.hooks()
    base, _ = loader.load_model()
    attached = attach_adapter(base, "SEQ_CLS", spec, hooks=hooks).eval()
    name = "base_model.model.bert.encoder.layer.1.output.dense"
    deltas = [
        lora_layers(peft.PeftModel.from_pretrained(loader.load_model()[0], tmp_path / folder))[name].get_delta_weight(
            "default"
        )
        for folder in "ab"
    ]
    mixed = attached.get_submodule(name).get_delta_weight("default")
    torch.testing.assert_close(mixed, (deltas[0] + deltas[1]) / 2, atol=1e-6, rtol=1e-5)
    training = {name for name, value in attached.named_parameters() if value.requires_grad}
    assert all("parametrizations.weight.0.weights" in name or "modules_to_save" in name for name in training)

    model, _ = trained(loader, spec, tmp_path / "fused")
    plain = peft.PeftModel.from_pretrained(loader.load_model()[0], tmp_path / "fused").eval()
    assert torch.equal(logits(plain, batch), logits(model, batch))
    learned = lora_layers(model)[name].get_delta_weight("default")
    share = torch.linalg.lstsq(
        torch.stack([delta.flatten() for delta in deltas], 1), learned.flatten()[:, None]
    ).solution
    assert float(share.sum()) == pytest.approx(1.0, abs=1e-4)
    assert abs(float(share[0]) - 0.5) > 1e-4


def test_fusion_refuses_what_it_cannot_mix(loader: ModelLoader, tmp_path: Path) -> None:
    trained(loader, AdapterSpec("lora", r=2), tmp_path / "lora")
    trained(loader, AdapterSpec("dora", r=2), tmp_path / "dora")

    def fuse(*folders: Path) -> None:
        LoRATrainer(loader, adapter=AdapterSpec("fusion", adapters=[str(folder) for folder in folders]), **QUICK).train(
            ROWS
        )

    with pytest.raises(InvalidSettingError, match="it mixes two or more"):
        fuse(tmp_path / "lora")
    with pytest.raises(AdapterError, match="is DoRA, whose update cannot be mixed"):
        fuse(tmp_path / "lora", tmp_path / "dora")
    with pytest.raises(AdapterError, match="holds no adapter: there is no adapter_config.json"):
        fuse(tmp_path / "lora", tmp_path / "nothing")
    manifest = tmp_path / "lora" / "lightft.json"
    described = json.loads(manifest.read_text())
    described["base"]["digest"] = "sha256:" + 64 * "0"
    manifest.write_text(json.dumps(described))
    with pytest.raises(AdapterError, match="Fuse adapters of one base"):
        fuse(tmp_path / "lora", tmp_path / "lora")


READY = [
    LoHaConfig(r=2, target_modules=["query", "value"]),
    LNTuningConfig(target_modules=["LayerNorm"]),
    IA3Config(target_modules="all-linear", feedforward_modules=[]),
    LoraConfig(r=2, target_modules=r".*layer\.1.*query", use_rslora=True),
]


@pytest.mark.parametrize("config", READY, ids=lambda config: config.peft_type.value)
def test_any_ready_peft_config_trains_and_comes_back(
    config: Any, loader: ModelLoader, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    before = config.to_dict()
    model, trainer = trained(loader, config, tmp_path / "a")
    assert config.to_dict() == before
    assert AdapterSpec.of(json.loads(json.dumps(trainer.adapter.to_json()))) == trainer.adapter
    assert torch.equal(logits(lightft.load(tmp_path / "a").model, batch), logits(model, batch))


def test_a_ready_config_is_held_to_the_same_rules(loader: ModelLoader) -> None:
    def train(config: Any) -> None:
        LoRATrainer(loader, adapter=config, **QUICK).train(ROWS)

    with pytest.raises(AdapterError, match="matches no linear layer"):
        train(LoraConfig(target_modules=r"nothing.*"))
    with pytest.raises(AdapterError, match="'q_projj'"):
        train(LoraConfig(target_modules=["query", "q_projj"]))
    with pytest.raises(AdapterError, match="'embedings' of the peft config is no module"):
        train(LoraConfig(target_modules=["query"], modules_to_save=["embedings"]))
    with pytest.raises(InvalidSettingError, match="is no adapter. Give AdapterSpec"):
        LoRATrainer(loader, adapter=3)
    with pytest.raises(InvalidSettingError, match="pass a PeftConfig to AdapterSpec.of"):
        train("peft")


def test_a_ready_config_that_rewrites_the_base_leaves_the_users_model_alone(
    loader: ModelLoader, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    base, tokenizer = loader.load_model()
    before = {name: value.clone() for name, value in base.named_parameters()}
    for start in ("pissa", "olora"):
        config = LoraConfig(r=2, target_modules=["query"], init_lora_weights=start)
        trainer = LoRATrainer(base, tokenizer, adapter=config, **QUICK)
        model = trainer.train(ROWS)
        trainer.save(model, tmp_path / start)
        assert torch.equal(logits(lightft.load(tmp_path / start).model, batch), logits(model, batch))
        assert all(torch.equal(before[name], value) for name, value in base.named_parameters())


WRONG = [
    ({"r": 0}, "'lora' cannot have r=0: it must be 1 or more"),
    ({"r": "8"}, "'lora' cannot have r='8': it must be a whole number"),
    ({"r": True}, "'lora' cannot have r=True: it must be a whole number"),
    ({"alpha": 0}, "'lora' cannot have alpha=0: it must be above 0"),
    ({"dropout": 1.0}, "'lora' cannot have dropout=1.0: it must be from 0 to below 1"),
    ({"bias": "al"}, "'lora' cannot have bias='al'. Did you mean 'all'?"),
    ({"targets": 3}, "'lora' cannot have targets=3: it must be a string or a list of names"),
]


@pytest.mark.parametrize(("params", "message"), WRONG, ids=str)
def test_a_value_that_cannot_be_is_refused_with_what_can(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message.replace("(", r"\(").replace("?", r"\?")):
        AdapterSpec("lora", params)


def test_a_rank_above_a_layers_smaller_side_is_refused_before_loading(
    loader: ModelLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelLoader, "load_model", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(
        AdapterError, match=r"r=512 is larger than the layer 'bert\..*' allows, whose smaller side is 64. Use r=64"
    ):
        LoRATrainer(loader, adapter=AdapterSpec("lora", r=512), **QUICK).train(ROWS)
    with pytest.raises(AdapterError, match="matches no linear layer"):
        LoRATrainer(loader, adapter=AdapterSpec("lora", targets=["q_proj"]), **QUICK).train(ROWS)


@pytest.mark.parametrize("kind", ["pissa", "olora", "full"])
def test_a_quantised_base_is_refused_before_loading_by_kinds_that_change_weights(
    kind: str, loader: ModelLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelLoader, "load_model", lambda *_: pytest.fail("the weights were loaded"))
    with pytest.raises(
        AdapterError, match=f"'{kind}' cannot be trained on this BertForSequenceClassification: it .*nf4"
    ):
        QLoRATrainer(loader, adapter=kind, **QUICK).train(ROWS)


def test_virtual_tokens_take_their_places_from_the_window(base: PreTrainedModel, loader: ModelLoader) -> None:
    from lightft.tasks.head import max_input_length

    _, tokenizer = loader.load_model()
    positions = base.config.max_position_embeddings
    tokenizer.model_max_length = positions
    for kind in ("prompt-tuning", "p-tuning", "prefix-tuning"):
        model = attach_adapter(base, "SEQ_CLS", AdapterSpec(kind, tokens=5))
        assert max_input_length(model, tokenizer) == positions - 5


def test_prefix_tuning_with_gradient_checkpointing_is_refused(loader: ModelLoader) -> None:
    with pytest.raises(InvalidSettingError, match="Leave it out, or lower max_tokens"):
        LoRATrainer(loader, adapter="prefix-tuning", gradient_checkpointing=True, **QUICK).train(ROWS)
