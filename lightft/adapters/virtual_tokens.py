"""What the kinds with virtual tokens refuse."""

from __future__ import annotations

from lightft.adapters.kind import AdapterHooks, AdapterUse


class VirtualTokenHooks(AdapterHooks):
    """Prompt tuning and P-tuning."""

    def refusal(self, use: AdapterUse) -> str | None:
        return None


class PrefixHooks(AdapterHooks):
    """Prefix tuning."""

    def refusal(self, use: AdapterUse) -> str | None:
        return None
