"""LoKr: an update of each weight that is a Kronecker product of two small matrices."""

from lightft import adapters
from lightft.adapters import AdapterHooks
from lightft.adapters.schema import Positive, Rank, Share, Targets


class RefusesPackedWeights(AdapterHooks):
    """What PEFT's LoKr cannot train on; asked before any weight is loaded."""

    def refusal(self, use):
        """Say why not, and what to do instead."""
        if use.quantization == "nf4":
            return "peft shapes the update like the stored weight, and 4-bit weights are packed. Use 'lora', or 'int8'."
        if use.has_transposed_layers:
            return f"peft's LoKr knows no layers that hold (inputs, outputs), as {use.architecture} does. Use 'lora'."
        return None


@adapters.register("lokr", learning_rate=2e-3, text_learning_rate=1e-3, hooks=RefusesPackedWeights)
def lokr(site, *, r: Rank = 8, alpha: Positive = 8, dropout: Share = 0.0, targets: Targets = "all"):
    """Low-rank Kronecker product (Yeh et al. 2023, arXiv:2309.14859): W + (alpha / r) · C ⊗ (B·A), with C at zero first.

    A Kronecker product of small matrices may have full rank: fewer parameters than LoRA of the same reach.

    Args:
        site: where the adapter goes.
        r: rank of the second factor.
        alpha: the update is scaled by ``alpha / r``.
        dropout: share of the update's rows that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
    """
    from peft import LoKrConfig

    return LoKrConfig(
        task_type=site.task_type,
        r=r,
        alpha=alpha,
        rank_dropout=dropout,
        target_modules=site.targets(targets),
        modules_to_save=list(site.head) or None,
    )
