"""Full fine-tuning: every weight of the model learns."""

from __future__ import annotations

from lightft.adapters.spec import AdapterSite, register


@register("full", learning_rate=5e-5, causal_learning_rate=2e-5, changes_base=True)
def full(site: AdapterSite) -> None:
    """Train the whole model, base and head; what is saved is an ordinary checkpoint."""
    del site
