"""The energy a device takes, where the machine tells: Intel's and AMD's RAPL for processors, NVML for NVIDIA's GPUs."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

__all__ = ["EnergyMeter"]

_POWERCAP = Path("/sys/class/powercap")
_SECONDS_BETWEEN = 30.0
"""A server's counter starts again after 65 kJ, which takes it more than two minutes."""


class EnergyMeter:
    """Measures the joules that a device takes during a ``with`` block, whatever else runs on it included.

    For a GPU that is the whole board, as NVML counts it (with the package ``nvidia-ml-py``); for anything else all
    processor packages, without memory, as RAPL counts them (David et al. 2010). Linux lets only root read RAPL by default.

    Args:
        device: which computes.
        powercap: where the system shows RAPL.
        seconds_between: how often the counters are read meanwhile, so that none starts again twice unseen.

    Attributes:
        joules: taken in the block; None where the machine does not tell.
    """

    def __init__(
        self, device: torch.device, *, powercap: Path = _POWERCAP, seconds_between: float = _SECONDS_BETWEEN
    ) -> None:
        self.joules: float | None = None
        self._counters = _gpu_counters(device) if device.type == "cuda" else _processor_counters(powercap)
        self._seconds_between = seconds_between
        self._readings: list[int] = []
        self._microjoules = 0
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read_now_and_then, daemon=True)

    def __enter__(self) -> EnergyMeter:
        try:
            self._readings = [counter.microjoules() for counter in self._counters]
        except OSError:
            self._counters = []
        if self._counters:
            self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._counters:
            return
        self._ended.set()
        self._reader.join()
        self._read()
        if self._counters:
            self.joules = self._microjoules / 1e6

    def _read_now_and_then(self) -> None:
        while not self._ended.wait(self._seconds_between):
            self._read()

    def _read(self) -> None:
        """Add what the counters have gone up by since they were last read; one that cannot be read ends the measuring."""
        try:
            readings = [counter.microjoules() for counter in self._counters]
        except OSError:
            self._counters = []
            return
        for counter, before, now in zip(self._counters, self._readings, readings, strict=True):
            self._microjoules += (now - before) % counter.range
        self._readings = readings


class _Counter(Protocol):
    range: int
    """Where it starts again at 0, in microjoules."""

    def microjoules(self) -> int:
        """Return the energy since some time in the past; an OSError where it cannot be read."""


class _Package:
    """A processor package with all its cores."""

    def __init__(self, folder: Path) -> None:
        self.range = int((folder / "max_energy_range_uj").read_text())
        self._file = folder / "energy_uj"

    def microjoules(self) -> int:
        return int(self._file.read_text())


class _Gpu:
    """An NVIDIA GPU of the Volta generation or later."""

    range = 2**64 * 1000

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = importlib.import_module("pynvml")
        self._nvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        self._handle = self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")

    def microjoules(self) -> int:
        try:
            return 1000 * int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as cause:
            raise OSError(str(cause)) from cause


def _processor_counters(powercap: Path) -> list[_Counter]:
    """Return a counter for each package; none where there are none, or one does not tell its range."""
    # intel-rapl-mmio shows the same packages again.
    zones = sorted(powercap.glob("intel-rapl:*"))
    try:
        # Other zones are parts of a package, or the whole board with the packages in it.
        return [_Package(zone) for zone in zones if (zone / "name").read_text().startswith("package")]
    except OSError:
        return []


def _gpu_counters(device: torch.device) -> list[_Counter]:
    if importlib.util.find_spec("pynvml") is None:
        return []
    try:
        return [_Gpu(device)]
    except importlib.import_module("pynvml").NVMLError:
        return []
