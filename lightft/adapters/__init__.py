"""Adapters: what is trained on top of a frozen base model."""

from lightft.adapters import full, head_only, lora
from lightft.adapters.spec import ADAPTERS, AdapterKind, AdapterSite, AdapterSpec, register

__all__ = ["ADAPTERS", "AdapterKind", "AdapterSite", "AdapterSpec", "full", "head_only", "lora", "register"]
