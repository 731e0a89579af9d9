"""What a run costs: seconds, bytes, joules, parameters."""

from lightft.cost.energy import EnergyMeter
from lightft.cost.files import folder_bytes, stored_numbers
from lightft.cost.memory import SavedForBackward, TrainingMemory, gradient_bytes, optimizer_bytes, weight_bytes
from lightft.cost.stopwatch import Stopwatch, peak_memory_bytes

__all__ = [
    "EnergyMeter",
    "SavedForBackward",
    "Stopwatch",
    "TrainingMemory",
    "folder_bytes",
    "gradient_bytes",
    "optimizer_bytes",
    "peak_memory_bytes",
    "stored_numbers",
    "weight_bytes",
]
