"""VeRA: one pair of frozen random matrices for all layers, and two small vectors each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightft.adapters.kind import AdapterSite, register
from lightft.adapters.schema import Positive, Rank, Share, Targets

if TYPE_CHECKING:
    from peft import VeraConfig


@register("vera", learning_rate=1e-2, text_learning_rate=5e-3, causal_learning_rate=2e-3)
def vera(
    site: AdapterSite,
    *,
    r: Rank = 256,
    dropout: Share = 0.0,
    targets: Targets = "all",
    initial: Positive = 0.1,
    seed: int = 0,
) -> VeraConfig:
    """Vector-based random matrix adaptation (Kopiczko et al. 2023, arXiv:2310.11454): W + diag(b)·B·diag(d)·A.

    A and B are random, frozen and shared by all layers; only the vectors b, which start at zero, and d are trained.

    Args:
        site: where the adapter goes.
        r: rows of A, columns of B; no more parameters are trained for it than one per row.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
        initial: what d starts at.
        seed: of the random matrices.
    """
    from peft import VeraConfig

    layers = site.targets(targets)
    return VeraConfig(
        task_type=site.task_type,
        r=r,
        vera_dropout=dropout,
        d_initial=initial,
        projection_prng_key=seed,
        # Drawn anew they would depend on the version of the random generator.
        save_projection=True,
        target_modules=layers,
        fan_in_fan_out=site.is_transposed(layers),
        modules_to_save=list(site.head) or None,
    )
