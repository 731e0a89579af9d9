"""Hooks of the kinds that put something learned before each text."""

from __future__ import annotations

from lightft.adapters.kind import AdapterHooks, AdapterUse
from lightft.adapters.prompts import refusal

__all__ = ["PrefixHooks", "VirtualTokenHooks"]


class VirtualTokenHooks(AdapterHooks):
    """Of prompt tuning and P-tuning."""

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse where a model finds its answer by looking among token ids."""
        return refusal("prompt-tuning", use)


class PrefixHooks(AdapterHooks):
    """Of prefix tuning."""

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse where attention takes no keys and values from outside."""
        return refusal("prefix-tuning", use)
