"""Seconds, peak memory and energy of a ``with`` block."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

import torch

from lightft.cost.energy import EnergyMeter

__all__ = ["Stopwatch", "peak_memory_bytes"]

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class Stopwatch:
    """Measures seconds, peak memory and energy of a ``with`` block.

    On a GPU the peak is CUDA's own of the device; on Linux it is the resident set's high-water mark, reset at entry, and
    so includes what the process held before. Elsewhere the mark cannot be reset: ``peak_is_of_process`` is then True and
    the figure is the peak since the process started.

    Attributes:
        device: which computes.
        seconds: on the clock.
        peak_bytes: the peak.
        peak_is_of_process: whether it could not be reset.
        joules: as EnergyMeter measures them; None where the machine does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.peak_bytes = 0
        self.peak_is_of_process = False
        self.joules: float | None = None
        self._energy = EnergyMeter(device)

    def __enter__(self) -> Stopwatch:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.peak_is_of_process = not _reset_resident_peak()
        self._energy.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._started
        self.peak_bytes = peak_memory_bytes(self.device)
        self._energy.__exit__(kind, error, trace)
        self.joules = self._energy.joules


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of ``device``'s memory since it was last reset, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_resident_peak() -> bool:
    """Set the resident set's high-water mark back to what is resident now; False where the system cannot."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True
