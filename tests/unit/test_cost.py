"""What a run cost: every number counted by hand, on models small enough to do so."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightft import LoRATrainer, ModelLoader, QLoRATrainer, Run, TaskData
from lightft.adapters import AdapterSpec
from lightft.cost import (
    EnergyMeter,
    SavedForBackward,
    Stopwatch,
    TrainingMemory,
    gradient_bytes,
    optimizer_bytes,
    stored_numbers,
    weight_bytes,
)
from lightft.multitask import MultiTaskTrainer
from lightft.tasks import TextClassification
from tests.tiny_models import LABELS, TYPES, classified_texts, tagged_texts

ROOT = Path(__file__).parents[2]
MEMORY = ("weight_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes")


def texts(rows: int = 24) -> TaskData:
    examples = classified_texts(rows + 12)
    return TaskData("text-classification", "texts", LABELS, examples[:rows], examples[rows : rows + 6], examples[-6:])


def trainer_on(folder: Path, output: Path | None = None, trainer: Any = LoRATrainer, **settings: Any) -> LoRATrainer:
    loader = ModelLoader(str(folder), task="text-classification", labels=LABELS, dtype="float32")
    quick = {"epochs": 2, "batch_size": 4, "progress": False, "adapter": AdapterSpec("lora", r=4)}
    return trainer(loader, output_dir=output, **{**quick, **settings})


def saved_by(model: nn.Module, forward: Any) -> int:
    with SavedForBackward(model) as saved:
        loss = forward()
    return saved.bytes_for(loss)


# Activations


def test_a_linear_layer_keeps_its_input_and_relu_its_output_for_the_backward_pass() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    batch = torch.randn(4, 5)
    # The input of the first layer, and what ReLU gives: its output is the input of the second layer, one storage.
    assert saved_by(model, lambda: model(batch).sum()) == 4 * (4 * 5 + 4 * 3)


def test_a_frozen_layer_keeps_no_input() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)).requires_grad_(False)
    model[0].weight.requires_grad_(True)
    batch = torch.randn(4, 5)
    # What the second layer needs, its weight, is there anyway.
    assert saved_by(model, lambda: model(batch).sum()) == 4 * 4 * 5


def test_a_storage_counts_once_and_whole_however_many_views_of_it_are_kept() -> None:
    model = nn.Linear(1, 1)
    whole = torch.randn(1000)
    weight = torch.ones(10, requires_grad=True)
    assert saved_by(model, lambda: (weight * whole[:10]).sum() + (weight * whole[10:20]).sum()) == 4 * 1000


def test_weights_buffers_and_what_was_let_go_do_not_count() -> None:
    model = nn.BatchNorm1d(3).eval()
    batch = torch.randn(4, 3)
    expected = saved_by(model, lambda: model(batch).sum())

    def with_a_detour() -> torch.Tensor:
        detour = (model.weight * torch.randn(10_000, 3)).exp().sum()
        del detour
        return model(batch).sum()

    assert expected == 4 * 4 * 3, "its input; running mean and variance are buffers"
    assert saved_by(model, with_a_detour) == expected


class KeepsOnItsOwn(torch.autograd.Function):
    """A function that keeps tensors as bitsandbytes does, past autograd."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        ctx.tensors = (None, values)
        ctx.more = values.double()
        return values * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2


def test_what_a_python_function_keeps_past_autograd_counts() -> None:
    weight = torch.randn(7, requires_grad=True)
    assert saved_by(nn.Linear(1, 1), lambda: KeepsOnItsOwn.apply(weight + 1).sum()) == 7 * 4 + 7 * 8


def test_of_a_checkpointed_layer_only_its_input_is_kept() -> None:
    layer = nn.Sequential(nn.Linear(5, 50), nn.Tanh(), nn.Linear(50, 1))
    batch = torch.randn(4, 5, requires_grad=True)
    assert saved_by(layer, lambda: layer(batch).sum()) == 4 * (4 * 5 + 4 * 50)
    assert saved_by(layer, lambda: checkpoint(layer, batch, use_reentrant=False).sum()) == 4 * (4 * 5)


def test_gradients_are_the_same_to_the_last_bit_while_they_are_counted() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    batch = torch.randn(4, 5)
    model(batch).logsumexp(-1).sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with SavedForBackward(model) as saved:
        loss = model(batch).logsumexp(-1).sum()
    assert saved.bytes_for(loss) > 0
    loss.backward()
    assert all(torch.equal(one, other.grad) for one, other in zip(plain, model.parameters(), strict=True))


def test_only_batches_larger_than_all_before_are_counted() -> None:
    model = nn.Linear(5, 1)
    memory = TrainingMemory([model])
    counted = []
    for rows in (2, 1, 3, 3, 2, 6):
        if rows == 6:
            memory.end_counting()
        with memory.forward_pass(model, rows) as count_saved:
            loss = model(torch.randn(rows, 5)).sum()
            count_saved(loss)
        loss.backward()
        memory.after_backward()
        counted.append(memory.totals(torch.optim.AdamW(model.parameters()))["activation_bytes"])
    assert counted == [4 * 5 * rows for rows in (2, 2, 3, 3, 3, 3)]


# Weights, gradients, the optimiser's state


def test_4_bit_weights_count_packed_and_with_all_that_unpacks_them() -> None:
    layer = bitsandbytes.nn.Linear4bit(128, 64, quant_type="nf4", compress_statistics=True, compute_dtype=torch.float32)
    layer = layer.to("cpu")
    packed, scales, scale_of_scales = 128 * 64 // 2, 128 * 64 // 64, 4 * 1
    code, code_of_scales, offset, bias = 4 * 16, 4 * 256, 4, 4 * 64
    expected = packed + scales + scale_of_scales + code + code_of_scales + offset + bias
    assert weight_bytes([layer]) == expected
    layer(torch.randn(2, 128))
    assert weight_bytes([layer]) == expected


def test_8_bit_weights_count_with_their_scales_before_and_after_they_are_moved_to_the_layer() -> None:
    layer = bitsandbytes.nn.Linear8bitLt(128, 64, has_fp16_weights=False).to("cpu")
    expected = 128 * 64 + 4 * 64 + 4 * 64
    assert weight_bytes([layer]) == expected
    layer(torch.randn(2, 128))
    assert layer.weight.CB is None
    assert weight_bytes([layer]) == expected


def test_what_two_models_share_counts_once_and_buffers_count_too() -> None:
    one, other = nn.BatchNorm1d(10), nn.BatchNorm1d(10)
    alone = 4 * (10 + 10) + 4 * (10 + 10) + 8
    assert weight_bytes([one]) == alone
    other.weight = one.weight
    assert weight_bytes([one, other]) == 2 * alone - 4 * 10


def test_weights_that_are_views_of_one_file_count_with_their_own_part() -> None:
    layer = nn.Linear(3, 2)
    file = torch.randn(1000)
    layer.weight.data, layer.bias.data = file[100:106].view(2, 3), file[200:202]
    assert weight_bytes([layer.bfloat16().float()]) == weight_bytes([layer]) == 4 * 8
    layer.weight.data = file[100:106].view(2, 3)
    assert weight_bytes([layer]) == 4 * 8


def test_gradients_and_optimiser_state_are_those_of_torchs_adamw() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    model[0].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])
    assert gradient_bytes([model]) == optimizer_bytes(optimizer) == 0
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    trained = 5 * 3 + 3 * 2 + 2
    assert gradient_bytes([model]) == 4 * trained
    # Two moments for each number, and a count of steps for each of three tensors.
    assert optimizer_bytes(optimizer) == 2 * 4 * trained + 3 * 4


# In a training


@contextmanager
def not_counted(self: TrainingMemory, model: nn.Module, padded_tokens: int) -> Iterator[Any]:
    yield lambda loss: None


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [
        (LoRATrainer, {}),
        (LoRATrainer, {"gradient_checkpointing": True}),
        (LoRATrainer, {"adapter": "full", "precision": "bfloat16"}),
        (LoRATrainer, {"adapter": AdapterSpec("adalora", r=2, initial_r=4)}),
        (QLoRATrainer, {}),
        (QLoRATrainer, {"quantization": "int8"}),
    ],
    ids=["lora", "checkpointing", "full", "adalora", "nf4", "int8"],
)
def test_counting_changes_no_bit_of_what_is_trained(
    trainer: Any, settings: dict[str, Any], dropout_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> tuple[LoRATrainer, dict[str, torch.Tensor]]:
        made = trainer_on(dropout_bert, trainer=trainer, **settings)
        model = made.train(texts().train, texts().validation)
        return made, {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}

    counting, with_counting = trained()
    monkeypatch.setattr(TrainingMemory, "forward_pass", not_counted)
    silent, without_counting = trained()
    assert counting.result.memory["activation_bytes"] > 0 == silent.result.memory["activation_bytes"]
    assert counting.result.history == silent.result.history
    assert with_counting
    assert all(torch.equal(value, without_counting[name]) for name, value in with_counting.items())


def test_bytes_are_the_same_in_another_process(dropout_bert: Path) -> None:
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom tests.unit.test_cost import texts, trainer_on\n"
        "trainer = trainer_on(Path(sys.argv[1]))\ntrainer.train(texts().train, texts().validation)\n"
        "print(json.dumps(trainer.result.memory))"
    )
    command = [sys.executable, "-c", code, str(dropout_bert)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    here = trainer_on(dropout_bert)
    here.train(texts().train, texts().validation)
    assert json.loads(ran.stdout) == here.result.memory
    assert set(here.result.memory) == set(MEMORY)


def test_a_training_holds_two_moments_and_a_gradient_for_each_trained_parameter(tiny_bert: Path) -> None:
    trainer = trainer_on(tiny_bert)
    model = trainer.train(texts().train)
    tensors = sum(value.requires_grad for value in model.parameters())
    trained = trainer.result.trainable_parameters
    assert trainer.result.memory["gradient_bytes"] == 4 * trained
    assert trainer.result.memory["optimizer_bytes"] == 2 * 4 * trained + 4 * tensors
    held = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    assert trainer.result.memory["weight_bytes"] == held > 4 * trainer.result.total_parameters


def test_activations_are_those_of_the_largest_batch_wherever_it_comes(tiny_bert: Path) -> None:
    def activations(**settings: Any) -> int:
        trainer = trainer_on(tiny_bert, epochs=1, **settings)
        trainer.train(texts().train)
        return trainer.result.memory["activation_bytes"]

    alone = {activations(batch_size=1, by_length=False, seed=seed) for seed in range(3)}
    assert len(alone) == 1, "the longest text, in whichever step it is"
    half, quarter = activations(batch_size=4, accumulation=6), activations(batch_size=24, max_tokens=1)
    assert {quarter} == alone, "one row at a time needs as little as a step of one row"
    assert half > 4 * quarter
    assert activations(batch_size=24, gradient_checkpointing=True) < 0.5 * half


def test_a_4_bit_base_counts_all_its_parameters_and_packed_bytes(tiny_bert: Path, tmp_path: Path) -> None:
    plain = trainer_on(tiny_bert, tmp_path / "plain", epochs=1).fit(texts()).cost
    packed = trainer_on(tiny_bert, tmp_path / "packed", QLoRATrainer, epochs=1).fit(texts()).cost
    trainer = trainer_on(tiny_bert, tmp_path / "eighth", QLoRATrainer, epochs=1, quantization="int8")
    eighth = trainer.fit(texts()).cost
    for name in ("trainable_parameters", "total_parameters", "saved_parameters", "adapter_bytes"):
        assert plain[name] == packed[name] == eighth[name]
    assert packed["gradient_bytes"] == plain["gradient_bytes"]
    # Two layers of query, key, value, output, and 64 × 128 and back; the pooler. A block of NF4 is 64 numbers.
    shapes = 9 * [(64, 64)] + 2 * [(64, 128), (128, 64)]
    numbers = sum(math.prod(shape) for shape in shapes)
    nf4 = sum(math.prod(shape) // 2 + math.prod(shape) // 64 + 4 * (1 + 16 + 256 + 1) for shape in shapes)
    int8 = numbers + sum(4 * outputs for inputs, outputs in shapes)
    assert plain["weight_bytes"] - packed["weight_bytes"] == 4 * numbers - nf4
    assert plain["weight_bytes"] - eighth["weight_bytes"] == 4 * numbers - int8


@pytest.mark.parametrize("adapter", [AdapterSpec("lora", r=4), AdapterSpec("full")], ids=lambda spec: spec.kind)
def test_saved_parameters_are_the_numbers_in_the_file(adapter: AdapterSpec, tiny_bert: Path, tmp_path: Path) -> None:
    cost = trainer_on(tiny_bert, tmp_path / "run", adapter=adapter).fit(texts()).cost
    (file,) = (tmp_path / "run" / "adapter").glob("*.safetensors")
    assert cost["saved_parameters"] == sum(tensor.numel() for tensor in load_file(file).values())
    assert cost["saved_parameters"] == cost["trainable_parameters"]
    assert cost["adapter_bytes"] == file.stat().st_size > 4 * cost["saved_parameters"]


def test_numbers_in_several_files_add_up(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(())}, tmp_path / "one.safetensors")
    save_file({"c": torch.zeros(5, dtype=torch.uint8)}, tmp_path / "two.safetensors")
    assert stored_numbers(tmp_path) == 2 * 3 + 1 + 5


def test_speeds_are_counts_by_seconds(tiny_bert: Path, tmp_path: Path) -> None:
    data = texts()
    trainer = trainer_on(tiny_bert, tmp_path / "run")
    run = trainer.fit(data)
    cost = Run.load(tmp_path / "run").cost
    assert cost == run.cost
    tokens = sum(len(trainer.tokenizer(example.text)["input_ids"]) for example in data.test)
    assert cost["predict_tokens_per_second"] * cost["predict_seconds"] == pytest.approx(tokens)
    assert cost["predictions_per_second"] * cost["predict_seconds"] == pytest.approx(len(data.test))
    assert cost["train_rows_per_second"] * cost["train_seconds"] == pytest.approx(2 * len(data.train))
    steps = trainer.result.step_seconds
    assert len(steps) == run.training["steps"] == trainer.result.planned_steps == 2 * trainer.result.steps_per_epoch
    assert cost["seconds_per_step"] == pytest.approx(sum(steps) / len(steps))
    assert sum(steps) < cost["train_seconds"]
    for name in MEMORY:
        assert cost[name] == trainer.result.memory[name] > 0


class SlowToJudge(TextClassification):
    """A classifier that takes its time to validate."""

    def predict(self, *arguments: Any, **settings: Any) -> Any:
        time.sleep(0.2)
        return super().predict(*arguments, **settings)


def test_seconds_to_best_end_with_the_best_epochs_validation(tiny_bert: Path) -> None:
    head = SlowToJudge(labels=LABELS)
    trainer = trainer_on(tiny_bert, head=head, epochs=4, learning_rate=1e-9)
    trainer.train(texts().train, texts().validation)
    assert trainer.result.best_epoch == 1, "no epoch changes anything"
    first, all_four = sum(trainer.result.step_seconds[: trainer.result.steps_per_epoch]), 4 * 0.2
    assert first + 0.2 < trainer.result.seconds_to_best < first + all_four


def test_without_validation_the_best_epoch_is_reached_at_the_end(tiny_bert: Path) -> None:
    trainer = trainer_on(tiny_bert)
    trainer.train(texts().train)
    assert trainer.result.seconds_to_best > sum(trainer.result.step_seconds)


def test_tasks_that_learn_together_hold_their_base_once(tiny_bert: Path, tmp_path: Path) -> None:
    tagged = tagged_texts(36)
    data = {
        "one": texts(),
        "two": TaskData("token-classification", "tags", TYPES, tagged[:24], tagged[24:30], tagged[30:]),
    }
    together = MultiTaskTrainer(
        ModelLoader(str(tiny_bert), dtype="float32"),
        adapter=AdapterSpec("lora", r=4),
        output_dir=tmp_path / "both",
        epochs=1,
        batch_size=4,
        progress=False,
    ).fit(data)
    alone = trainer_on(tiny_bert, tmp_path / "alone", epochs=1).fit(texts())
    for name in MEMORY:
        assert together["one"].cost[name] == together["two"].cost[name]
    # A head of five tags and the frozen copy that peft keeps of it; buffers, two rows of 64 integers, are not shared.
    added = 2 * 4 * (5 * 64 + 5) + 2 * 64 * 8
    assert together["one"].cost["weight_bytes"] == alone.cost["weight_bytes"] + added


# Energy


class FakeRapl:
    """Processor packages as Linux shows them, at readings that a test sets."""

    def __init__(self, folder: Path, *, packages: int = 2, range_: int = 1_000_000) -> None:
        self.folder = folder
        zones = {f"intel-rapl:{number}": f"package-{number}" for number in range(packages)}
        zones |= {"intel-rapl:0:0": "core", "intel-rapl:9": "psys", "intel-rapl-mmio:0": "package-0"}
        for zone, name in {**zones, "intel-rapl": None}.items():
            (folder / zone).mkdir(parents=True)
            if name is not None:
                (folder / zone / "name").write_text(f"{name}\n")
                (folder / zone / "max_energy_range_uj").write_text(f"{range_}\n")
                self.set(zone, 999)

    def set(self, zone: str, microjoules: int) -> None:
        (self.folder / zone / "energy_uj").write_text(f"{microjoules}\n")


CPU = torch.device("cpu")


def test_energy_is_that_of_all_packages_and_of_no_zone_inside_or_around_them(tmp_path: Path) -> None:
    machine = FakeRapl(tmp_path)
    machine.set("intel-rapl:0", 100_000)
    machine.set("intel-rapl:1", 500_000)
    with EnergyMeter(CPU, powercap=tmp_path) as meter:
        for zone in ("intel-rapl:0:0", "intel-rapl:9", "intel-rapl-mmio:0"):
            machine.set(zone, 900_000)
        machine.set("intel-rapl:0", 350_000)
        machine.set("intel-rapl:1", 500_001)
    assert meter.joules == pytest.approx(0.250001)


def test_a_counter_that_starts_again_at_zero_goes_on_counting(tmp_path: Path) -> None:
    machine = FakeRapl(tmp_path, packages=1)
    machine.set("intel-rapl:0", 900_000)
    with EnergyMeter(CPU, powercap=tmp_path) as meter:
        machine.set("intel-rapl:0", 150_000)
    assert meter.joules == pytest.approx(0.25)


def test_a_counter_that_starts_again_twice_is_read_in_between(tmp_path: Path) -> None:
    machine = FakeRapl(tmp_path, packages=1)
    machine.set("intel-rapl:0", 0)
    with EnergyMeter(CPU, powercap=tmp_path, seconds_between=0.02) as meter:
        for reading in (700_000, 400_000, 100_000):
            machine.set("intel-rapl:0", reading)
            waited_until = time.perf_counter() + 10
            while meter._readings != [reading] and time.perf_counter() < waited_until:
                time.sleep(0.01)
    assert meter.joules == pytest.approx(2.1)


def test_energy_is_unknown_where_a_counter_is_missing_unreadable_or_goes_away(tmp_path: Path) -> None:
    with EnergyMeter(CPU, powercap=tmp_path / "nowhere") as meter:
        pass
    assert meter.joules is None
    # As on Linux for anyone but root: the file is there and cannot be opened. A folder cannot be read as a file either.
    machine = FakeRapl(tmp_path / "secret")
    (tmp_path / "secret" / "intel-rapl:1" / "energy_uj").unlink()
    (tmp_path / "secret" / "intel-rapl:1" / "energy_uj").mkdir()
    with EnergyMeter(CPU, powercap=tmp_path / "secret") as meter:
        machine.set("intel-rapl:0", 5_000)
    assert meter.joules is None, "one package of two would be half the truth"
    machine = FakeRapl(tmp_path / "brief")
    with EnergyMeter(CPU, powercap=tmp_path / "brief") as meter:
        (tmp_path / "brief" / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.joules is None
    FakeRapl(tmp_path / "damaged")
    (tmp_path / "damaged" / "intel-rapl:1" / "max_energy_range_uj").unlink()
    with EnergyMeter(CPU, powercap=tmp_path / "damaged") as meter:
        pass
    assert meter.joules is None


class FakeNvml(types.ModuleType):
    """NVML's Python package, with one GPU that takes 1,500 millijoules between two readings."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, knows_energy: bool = True) -> None:
        super().__init__("pynvml")
        self.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        self.knows_energy = knows_energy
        self.millijoules = 10_000

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        assert uuid == "GPU-11-22"
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "handle"
        if not self.knows_energy:
            raise self.NVMLError("Not Supported")
        self.millijoules += 1_500
        return self.millijoules


@pytest.mark.parametrize(("knows_energy", "joules"), [(True, 1.5), (False, None)])
def test_the_energy_of_a_gpu_is_nvmls(
    knows_energy: bool, joules: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(knows_energy=knows_energy))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="11-22"))
    with EnergyMeter(torch.device("cuda")) as meter:
        pass
    assert meter.joules == joules


def test_energy_of_a_gpu_is_unknown_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with EnergyMeter(torch.device("cuda")) as meter:
        pass
    assert meter.joules is None


@pytest.mark.parametrize("told", [True, False])
def test_a_run_holds_its_energy_where_the_machine_tells_and_else_no_such_key(
    told: bool, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told:
        FakeRapl(tmp_path / "powercap")
    counters = EnergyMeter.__init__
    monkeypatch.setattr(
        EnergyMeter, "__init__", lambda self, device: counters(self, device, powercap=tmp_path / "powercap")
    )
    cost = trainer_on(tiny_bert, tmp_path / "run", epochs=1).fit(texts()).cost
    assert cost.get("energy_joules") == (0.0 if told else None)
    assert ("energy_joules" in cost) is told


# Seconds and peak


def test_a_stopwatch_sees_memory_that_was_given_back() -> None:
    with Stopwatch(CPU) as before:
        pass
    with Stopwatch(CPU) as watch:
        block = torch.ones(30_000_000)
        del block
        time.sleep(0.05)
    assert watch.seconds >= 0.05
    if not watch.peak_is_of_process:
        assert watch.peak_bytes - before.peak_bytes > 0.9 * 4 * 30_000_000
