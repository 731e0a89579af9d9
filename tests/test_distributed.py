"""Several processes take the same steps as one: the loss is a mean over the labels of all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from lightft.contracts.tiny_models import Pair, save_base

SCRIPT = Path(__file__).with_name("train_in_two_processes.py")


def _train(base: Path, out: Path, *launcher: str) -> dict[str, torch.Tensor]:
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, str(SCRIPT), str(base), str(out)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return torch.load(out)


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    base = save_base(Pair("bert", "token-classification"), tmp_path / "base", with_head=False)
    alone = _train(base, tmp_path / "alone.pt")
    together = _train(
        base, tmp_path / "together.pt", "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"
    )
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-5, msg=name)
