"""Task heads: what a base model can be fine-tuned to do."""

from lightft.tasks.causal_lm import CausalLM
from lightft.tasks.head import TASKS, Encoding, LearnsFromTraining, TaskHead, register
from lightft.tasks.losses import LossSettings
from lightft.tasks.text_classification import TextClassification
from lightft.tasks.token_classification import TokenClassification

__all__ = [
    "TASKS",
    "CausalLM",
    "Encoding",
    "LearnsFromTraining",
    "LossSettings",
    "TaskHead",
    "TextClassification",
    "TokenClassification",
    "register",
]
