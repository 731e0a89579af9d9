"""What importing the deep-learning stack costs, and that it changes nothing for others."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightft.garbage import collected_later, what_stays_set_aside
from lightft.stack import compiling_when_first_called


def _printed_by(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_no_compiler_and_leaves_torch_as_it_was() -> None:
    code = (
        "import gc, sys, torch; compile = torch.compile; import lightft.inference; "
        "print('torch._inductor.compile_fx' in sys.modules, torch.compile is compile, gc.isenabled())"
    )
    assert _printed_by(code) == "False True True"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Which functions were compiled, with which options."""
    compiled = []

    def compile_at_once(model: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        compiled.append((model.__name__, options))
        return model

    monkeypatch.setattr(torch, "compile", compile_at_once)
    return compiled


def test_a_function_is_compiled_once_when_it_is_first_called(compiled: list[tuple[str, dict[str, Any]]]) -> None:
    with compiling_when_first_called():

        @torch.compile(dynamic=False)
        def doubled(number: int) -> int:
            return 2 * number

        @torch.compile
        def halved(number: int) -> float:
            return number / 2

    assert compiled == []
    assert [doubled(3), doubled(4)] == [6, 8]
    assert compiled == [("doubled", {"dynamic": False})]
    assert halved(3) == 1.5
    assert compiled == [("doubled", {"dynamic": False}), ("halved", {})]


def test_a_compiler_that_fails_fails_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", fail)
    with compiling_when_first_called():
        declared = torch.compile(abs)
    with pytest.raises(RuntimeError, match="no compiler here"):
        declared(-1)


def test_what_bitsandbytes_compiles_gives_what_it_does_uncompiled() -> None:
    # In a process of its own, where lightft is what imports bitsandbytes.
    code = (
        "import torch, lightft.stack; from bitsandbytes.backends.default import ops; "
        "compiled = ops._dequantize_blockwise_compute; "
        "stored = torch.arange(128, dtype=torch.uint8), torch.ones(2), torch.linspace(-1, 1, 256), 64, torch.float32; "
        "print(torch.equal(compiled(*stored), compiled.__wrapped__(*stored)))"
    )
    assert _printed_by(code) == "True"


def test_collecting_waits_for_the_end_even_of_a_failure() -> None:
    def load_and_fail() -> None:
        with collected_later():
            with collected_later():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise MemoryError

    assert gc.isenabled()
    with pytest.raises(MemoryError):
        load_and_fail()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collected_later():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_stays_is_not_looked_at() -> None:
    with what_stays_set_aside():
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0
