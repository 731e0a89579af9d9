"""EVA: LoRA that starts from what varies most in the layers' inputs on your data."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from lightft.adapters.kind import AdapterSite, TrainingPlan, register
from lightft.adapters.lora import LoraHooks, lora_config
from lightft.adapters.schema import AtLeast, Bias, Positive, Rank, Share, Targets
from lightft.errors import TrainingError

if TYPE_CHECKING:
    from peft import LoraConfig

# What the directions are estimated from; the pass over these rows is repeated until they have settled.
_MOST_ROWS = 512


class StartsFromActivations(LoraHooks):
    """Sets A from the data before the first step."""

    @property
    def reads_data(self) -> bool:
        """It decomposes the layers' inputs."""
        return True

    def before_training(self, model: Any, plan: TrainingPlan) -> None:
        """Decompose the layers' inputs on the training data, and give each layer its share of the ranks."""
        import torch
        from peft.tuners.lora.eva import initialize_lora_eva_weights

        needed = round(self.params.get("rho", 2.0) * self.params["r"])
        # A pooler reads one position a row, and peft would wait for ever for a batch with a row for each direction.
        batches = list(islice(plan.batches(needed), max(1, _MOST_ROWS // needed)))
        if not batches:
            raise TrainingError(
                f"EVA looks for rho · r = {needed} directions and needs as many training rows; there are fewer. Lower r or "
                "rho, or use 'lora'."
            )
        was_training = model.training
        with torch.no_grad():
            initialize_lora_eva_weights(
                model,
                batches,
                prepare_model_inputs_fn=lambda inputs, _config: inputs["attention_mask"].bool(),
                prepare_layer_inputs_fn=_real_positions,
                show_progress_bar=False,
            )
        model.train(was_training)


@register("eva", learning_rate=1e-3, text_learning_rate=5e-4, causal_learning_rate=2e-4, hooks=StartsFromActivations)
def eva(
    site: AdapterSite,
    *,
    r: Rank = 16,
    alpha: Positive = 32,
    dropout: Share = 0.1,
    targets: Targets = "all",
    bias: Bias = "none",
    rho: Annotated[float, AtLeast(1)] = 2.0,
    tau: Share = 0.99,
) -> LoraConfig:
    """Explained variance adaptation (Paischer et al. 2024, arXiv:2410.07170).

    A starts as the principal directions of each layer's inputs on the training data, and layers whose inputs vary in
    more directions get more of the ranks. B starts at zero, so that training starts from the base.

    Args:
        site: where the adapter goes.
        r: rank on average over the layers.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
        bias: ``"none"``, ``"all"`` or ``"lora_only"``.
        rho: a layer gets at most ``rho · r`` ranks; 1 leaves all alike.
        tau: cosine similarity between two passes from which a direction counts as settled.
    """
    from peft import EvaConfig

    return lora_config(
        site,
        r=r,
        alpha=alpha,
        dropout=dropout,
        targets=targets,
        bias=bias,
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=rho, tau=tau),
    )


def _real_positions(layer_input: Any, mask: Any, name: str) -> Any:
    """Return the inputs of a layer at the positions that hold text, (positions, features)."""
    del name
    values = layer_input[0] if isinstance(layer_input, tuple) else layer_input
    if values.ndim == 3 and values.shape[:2] == mask.shape:
        return values[mask.to(values.device)]
    # A pooler reads one position a row, and some architectures flatten their tokens.
    return values.reshape(-1, values.shape[-1]).contiguous()
