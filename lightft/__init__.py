"""Fine-tune language models with adapters, and compare the results so that the answer can be believed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightft import adapters as adapters
    from lightft.adapter_sets import AdapterSet as AdapterSet
    from lightft.adapter_sets import load_adapters as load_adapters
    from lightft.adapters import AdapterSpec as AdapterSpec
    from lightft.combining import combine as combine
    from lightft.comparator import ModelComparator as ModelComparator
    from lightft.data import TaskData as TaskData
    from lightft.data import load_data as load_data
    from lightft.errors import LightFTError as LightFTError
    from lightft.experiment import LoRATrainer as LoRATrainer
    from lightft.experiment import QLoRATrainer as QLoRATrainer
    from lightft.exporters import export as export
    from lightft.inference import load as load
    from lightft.llm_ner import LLMNERExtractor as LLMNERExtractor
    from lightft.models import ModelLoader as ModelLoader
    from lightft.multitask import MultiTaskTrainer as MultiTaskTrainer
    from lightft.recipe import Recipe as Recipe
    from lightft.recipe import run_recipe as run_recipe
    from lightft.records import Example as Example
    from lightft.records import Message as Message
    from lightft.records import Prediction as Prediction
    from lightft.records import Run as Run
    from lightft.records import Span as Span
    from lightft.sweeping import Budget as Budget
    from lightft.sweeping import Range as Range
    from lightft.sweeping import Search as Search
    from lightft.sweeping import grid as grid
    from lightft.sweeping import plan_sweep as plan_sweep
    from lightft.sweeping import sweep as sweep

__version__ = "0.1.0"

# Loaded at first use: importing lightft alone loads no torch and takes milliseconds.
_HOME = {
    "AdapterSet": "lightft.adapter_sets",
    "AdapterSpec": "lightft.adapters",
    "Budget": "lightft.sweeping",
    "Example": "lightft.records",
    "LLMNERExtractor": "lightft.llm_ner",
    "LightFTError": "lightft.errors",
    "LoRATrainer": "lightft.experiment",
    "Message": "lightft.records",
    "ModelComparator": "lightft.comparator",
    "ModelLoader": "lightft.models",
    "MultiTaskTrainer": "lightft.multitask",
    "Prediction": "lightft.records",
    "QLoRATrainer": "lightft.experiment",
    "Range": "lightft.sweeping",
    "Recipe": "lightft.recipe",
    "Run": "lightft.records",
    "Search": "lightft.sweeping",
    "Span": "lightft.records",
    "TaskData": "lightft.data",
    "combine": "lightft.combining",
    "export": "lightft.exporters",
    "grid": "lightft.sweeping",
    "load": "lightft.inference",
    "load_adapters": "lightft.adapter_sets",
    "load_data": "lightft.data",
    "plan_sweep": "lightft.sweeping",
    "run_recipe": "lightft.recipe",
    "sweep": "lightft.sweeping",
}

__all__ = [
    "AdapterSet",
    "AdapterSpec",
    "Budget",
    "Example",
    "LLMNERExtractor",
    "LightFTError",
    "LoRATrainer",
    "Message",
    "ModelComparator",
    "ModelLoader",
    "MultiTaskTrainer",
    "Prediction",
    "QLoRATrainer",
    "Range",
    "Recipe",
    "Run",
    "Search",
    "Span",
    "TaskData",
    "combine",
    "export",
    "grid",
    "load",
    "load_adapters",
    "load_data",
    "plan_sweep",
    "run_recipe",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lightft' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
