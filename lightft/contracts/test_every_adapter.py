"""What every adapter kind must keep, on every head and in every precision of the base.

A kind is tried with its own defaults, on a BERT and a LLaMA of two layers, 64 wide: what it cannot do there it must refuse.
With the environment variable ``LIGHTFT_MATRIX_PAGE`` the support matrix is written into that page, between
``<!-- kinds:start -->`` and ``<!-- kinds:end -->``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lightft.adapters import ADAPTERS, AdapterSpec
from lightft.contracts import reload_in_new_process
from lightft.contracts.adapter_cells import Bench, Cell
from lightft.contracts.support_matrix import Reasons, cell_words, support_table, write_between

_PAGE = os.environ.get("LIGHTFT_MATRIX_PAGE")
_KEPT: dict[Cell, set[str]] = {}
_CONTRACTS = {"trains", "explains", "reloads", "merges"}


@pytest.fixture(scope="module")
def cells(request: pytest.FixtureRequest) -> list[Cell]:
    """All cells that this run looks at, in order."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [item.callspec.params["cell"] for item in functions if "cell" in item.fixturenames]
    return [cell for cell in dict.fromkeys(asked) if isinstance(cell, Cell)]


@pytest.fixture(scope="module", autouse=True)
def matrix_page(bench: Bench) -> Iterator[None]:
    """Write the matrix when all tests have run, if a page is named."""
    yield
    if _PAGE is not None:
        reasons = Reasons()
        words = {
            cell: cell_words(cell, bench.seen(cell), bench.merged_so_far(cell), kept != _CONTRACTS, reasons)
            for cell, kept in _KEPT.items()
        }
        kinds = list(dict.fromkeys(cell.kind for cell in words))
        write_between(Path(_PAGE), "kinds", support_table(kinds, words, reasons))


@pytest.fixture(scope="module")
def reloaded(bench: Bench, cells: list[Cell]) -> Mapping[str, Mapping[str, object]]:
    """Open all adapters in one new process and compare their logits with those from before."""
    for cell in cells:
        bench.seen(cell)
    finished = subprocess.run(
        [sys.executable, reload_in_new_process.__file__, str(bench.folder)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    compared: dict[str, dict[str, object]] = json.loads(finished.stdout.splitlines()[-1])
    return compared


def test_trains_every_parameter_or_refuses_before_weights_are_read(cell: Cell, bench: Bench) -> None:
    _KEPT.setdefault(cell, set())
    seen = bench.seen(cell)
    if seen.error is not None:
        raise seen.error
    if seen.refusal is not None:
        assert not seen.weights_were_read, f"Refused only after the base had been loaded: {seen.refusal}"
        _KEPT[cell] |= _CONTRACTS
        return
    assert seen.trained
    assert seen.without_gradient == []
    assert seen.unmoved == []
    assert seen.not_float32 == []
    assert seen.changed_base == []
    _KEPT[cell].add("trains")


def test_explains_what_it_would_train(cell: Cell, bench: Bench) -> None:
    seen = bench.seen(cell)
    if seen.refusal is not None:
        assert seen.explanation is None
        return
    assert seen.explanation is not None
    assert seen.explanation.trainable == seen.attached_parameters
    assert f"{cell.kind} trains" in str(seen.explanation)
    _KEPT.setdefault(cell, set()).add("explains")


def test_a_new_process_gets_the_same_logits(
    cell: Cell, bench: Bench, reloaded: Mapping[str, Mapping[str, object]]
) -> None:
    if bench.seen(cell).refusal is not None:
        assert str(cell) not in reloaded
        return
    # In every precision bit for bit: the same operations on the same bits, on one machine.
    assert reloaded[str(cell)] == {"equal": True}
    _KEPT.setdefault(cell, set()).add("reloads")


def test_merges_to_equal_logits_or_says_why_not(cell: Cell, bench: Bench) -> None:
    if bench.seen(cell).refusal is not None:
        assert bench.merged_so_far(cell) is None
        return
    merged = bench.merged(cell)
    if merged.refusal is not None:
        assert not (bench.seen(cell).folder / "merged").exists()
    elif cell.precision == "bfloat16":
        # The merged model is in float32, and bfloat16 rounds each product to 8 bits: a few roundings of 0.4 %.
        assert merged.largest_gap <= merged.largest_logit / 32
    else:
        assert merged.largest_gap <= 1e-4
    _KEPT.setdefault(cell, set()).add("merges")


def test_spec_survives_json(adapter_name: str) -> None:
    spec = AdapterSpec(adapter_name)
    assert AdapterSpec.of(json.loads(json.dumps(spec.to_json()))) == spec


def test_adapter_is_explained(adapter_name: str) -> None:
    assert len(ADAPTERS[adapter_name].build.__doc__ or "") > 40
