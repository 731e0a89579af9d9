"""A quantised base that saves no memory is said to, and one that does is left in peace."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from lightft.comparison.memory_remarks import memory_remark, remarks_on_memory
from lightft.comparison.records import ComparisonRow

MB = 10**6
GPU = {"device": "a GPU"}


def row(
    name: str,
    *,
    peak: float | None = None,
    quantization: str | None = None,
    seed: int = 0,
    environment: dict[str, Any] = GPU,
    settings: dict[str, Any] | None = None,
    **megabytes: float,
) -> ComparisonRow:
    given = {"model.name": "base", "adapter.kind": "lora", "adapter.r": 8, "training.batch_size": 16}
    given |= {"model.quantization": quantization} if quantization else {}
    cost: dict[str, Any] = {f"{part}_bytes": int(size * MB) for part, size in megabytes.items()}
    cost |= {"peak_memory_bytes": int(peak * MB), "peak_memory_is_of_process": False} if peak is not None else {}
    return ComparisonRow(
        name=name,
        scores={},
        cost=cost,
        settings={**given, "training.seed": seed, **(settings or {})},
        seed=seed,
        labels=(),
        confusion=None,
        roc=(),
        history=(),
        environment=environment,
    )


PLAIN = row("lora", peak=900, weight=90, gradient=1, optimizer=2, activation=550)


def test_a_base_whose_activations_dominate_is_said_to_save_nothing() -> None:
    packed = row("qlora-nf4", peak=1200, quantization="nf4", weight=40, gradient=1, optimizer=2, activation=600)
    assert remarks_on_memory([PLAIN, packed]) == [
        "qlora-nf4 does not save memory here: peak 1.2 GB against 900 MB of lora; its weights take 40.0 MB instead of "
        "90.0 MB, but activations take 600 MB."
    ]


def test_what_takes_the_most_is_named_whatever_it_is() -> None:
    optimiser = row("q", peak=900, quantization="nf4", weight=40, gradient=150, optimizer=300, activation=200)
    assert "but gradients and the optimiser take 450 MB." in str(memory_remark(optimiser, PLAIN))
    program = row("q", peak=900, quantization="nf4", weight=40, gradient=1, optimizer=2, activation=100)
    assert "but what is not counted, the program itself among it, takes 757 MB." in str(memory_remark(program, PLAIN))
    larger = row("q", peak=900, quantization="nf4", weight=91, gradient=1, optimizer=2, activation=600)
    assert "its weights take 91.0 MB instead of 90.0 MB, and activations take 600 MB." in str(
        memory_remark(larger, PLAIN)
    )


@pytest.mark.parametrize(
    ("peak", "said"),
    [(901, "does not save memory"), (900, "does not save memory"), (856, "hardly saves memory"), (854, None)],
)
def test_five_hundredths_less_are_a_saving(peak: float, said: str | None) -> None:
    remark = memory_remark(row("q", peak=peak, quantization="nf4"), PLAIN)
    assert (said in str(remark)) if said else (remark is None)


def test_peaks_alone_are_enough_for_a_remark() -> None:
    remark = memory_remark(row("q", peak=950, quantization="int8"), row("lora", peak=900))
    assert remark == "q does not save memory here: peak 950 MB against 900 MB of lora."


@pytest.mark.parametrize(
    "other",
    [
        row("no-peak"),
        row("other-base", peak=1, settings={"model.name": "another"}),
        row("other-kind", peak=1, settings={"adapter.kind": "head-only"}),
        row("other-batches", peak=1, settings={"training.batch_size": 8}),
        row("checkpointed", peak=1, settings={"training.gradient_checkpointing": True}),
        row("other-machine", peak=1, environment={"device": "cpu"}),
        row("as-packed", peak=1, quantization="int8"),
    ],
    ids=lambda other: other.name,
)
def test_runs_that_differ_in_more_than_how_the_base_is_held_are_not_held_against_each_other(
    other: ComparisonRow,
) -> None:
    assert remarks_on_memory([other, row("q", peak=1000, quantization="nf4")]) == []


def test_a_peak_of_all_that_the_process_ever_did_tells_nothing() -> None:
    packed, plain = row("q", peak=1000, quantization="nf4"), row("lora", peak=900)
    assert memory_remark(packed, plain) is not None
    for one in (packed, plain):
        one.cost["peak_memory_is_of_process"] = True  # type: ignore[index]
        assert memory_remark(packed, plain) is None
        one.cost["peak_memory_is_of_process"] = False  # type: ignore[index]


def test_each_quantised_method_is_held_against_the_nearest_run_once_for_all_its_seeds() -> None:
    rows = [
        row("far", peak=100, settings={"adapter.r": 64}),
        *(row(f"lora-{seed}", peak=900 + seed, seed=seed) for seed in (0, 1)),
        *(row(f"nf4-{seed}", peak=950, quantization="nf4", seed=seed) for seed in (1, 0)),
        row("int8", peak=960, quantization="int8", settings={"adapter.r": 64}),
        row("saves", peak=80, quantization="int8"),
    ]
    remarks = remarks_on_memory(rows)
    assert [remark.split(" does")[0] for remark in remarks] == ["nf4-1", "int8"]
    assert "of lora-1" in remarks[0]
    assert "of far" in remarks[1]


def test_remarks_need_no_deep_learning_stack() -> None:
    code = "import sys, lightft.comparison.memory_remarks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
