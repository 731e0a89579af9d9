"""Write a benchmark's result as one flat JSON object that says where it comes from."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("lightft", "torch", "transformers", "peft", "accelerate", "bitsandbytes")


def describe_machine(script: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the command, machine, versions and date of a result; the data folder is left to the reader."""
    given = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in vars(asked).items()
        if name not in ("data", "out")
    )
    return {
        "command": f"python {script} --data DIR --out FILE {given}".strip(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{f"{package}_version": version(package) for package in _PACKAGES},
        "date": date.today().isoformat(),
    }


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write ``result`` to ``path`` and print it."""
    text = json.dumps(result, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
