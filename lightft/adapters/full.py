"""Full fine-tuning: every weight of the model learns."""

from __future__ import annotations

from lightft.adapters.kind import AdapterHooks, AdapterSite, AdapterUse, register


class _TrainsTheBase(AdapterHooks):
    @property
    def needs_float32_base(self) -> bool:
        """Every weight is trained."""
        return True

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse a quantised base, whose weights have no gradients."""
        if use.quantization is not None:
            return (
                f"it trains the base itself, which is frozen in {use.quantization}. Use LoRATrainer on a base that is not "
                "quantised, or another adapter."
            )
        return None


@register("full", learning_rate=5e-5, causal_learning_rate=2e-5, changes_base=True, hooks=_TrainsTheBase)
def full(site: AdapterSite) -> None:
    """Train the whole model, base and head; what is saved is an ordinary checkpoint."""
    del site
