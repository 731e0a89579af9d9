"""Which device to compute on, and in which precision the frozen weights are best held there."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from lightft.errors import InvalidSettingError, suggest

__all__ = ["compute_device", "compute_dtype", "has_native_bfloat16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def compute_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``"auto"`` is the first GPU, else the CPU.

    Raises:
        InvalidSettingError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as cause:
        raise InvalidSettingError(f"{name!r} is no device. Use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.") from cause
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InvalidSettingError(f"This machine has no device {name!r} that torch can use. Use 'auto' or 'cpu'.")
    return device


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype called ``name``; ``"auto"`` is bfloat16 where ``device`` multiplies it natively, else float32.

    Raises:
        InvalidSettingError: no such dtype.
    """
    if name == "auto":
        return torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise InvalidSettingError(f"No dtype named {name!r}. {suggest(name, ['auto', *_DTYPES])}")
    return _DTYPES[name]


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware (AVX512-BF16 or AMX on a CPU, Ampere or later on a GPU)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_multiplies_bfloat16()


@cache
def _cpu_multiplies_bfloat16() -> bool:
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return True
    # Arm lists the extension among the processor's features.
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and any(
        line.lower().startswith("features") and " bf16" in line for line in cpuinfo.read_text().splitlines()
    )
