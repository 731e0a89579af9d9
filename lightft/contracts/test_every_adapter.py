"""What every adapter kind must keep, on every head and in every precision of the base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightft.adapters import ADAPTERS, AdapterSpec
from lightft.contracts import reload_in_new_process
from lightft.contracts.adapter_cells import Bench, Cell
from lightft.errors import AdapterError


@pytest.fixture(scope="module")
def reloaded(bench: Bench, request: pytest.FixtureRequest) -> dict[str, dict[str, object]]:
    """Open all adapters in one new process and compare their logits with those from before."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    for cell in {item.callspec.params["cell"] for item in functions if "cell" in item.fixturenames}:
        bench.seen(cell)
    finished = subprocess.run(
        [sys.executable, reload_in_new_process.__file__, str(bench.folder)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    compared: dict[str, dict[str, object]] = json.loads(finished.stdout.splitlines()[-1])
    return compared


def test_trains_every_parameter_or_refuses_before_weights_are_read(cell: Cell, bench: Bench) -> None:
    seen = bench.seen(cell)
    if seen.error is not None:
        raise seen.error
    if seen.refusal is not None:
        assert not seen.weights_were_read, seen.refusal
        return
    assert seen.trained
    assert seen.without_gradient == []
    assert seen.unmoved == []
    assert seen.not_float32 == []
    assert seen.changed_base == []


def test_explains_what_it_trains(cell: Cell, bench: Bench) -> None:
    seen = bench.seen(cell)
    if seen.refusal is not None:
        return
    assert seen.explanation is not None
    assert cell.kind in str(seen.explanation)
    assert seen.explanation.trainable == seen.trained_parameters


def test_a_new_process_gets_the_same_logits(cell: Cell, bench: Bench, reloaded: dict[str, dict[str, object]]) -> None:
    if bench.seen(cell).refusal is None:
        assert reloaded[str(cell)] == {"equal": True}


def test_merges_to_equal_logits_or_says_why_not(cell: Cell, bench: Bench) -> None:
    seen = bench.seen(cell)
    if seen.refusal is None:
        merged = bench.merged(cell)
        assert merged.largest_gap <= 1e-4
