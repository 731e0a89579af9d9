"""AdaLoRA: LoRA that takes ranks from layers that do not need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import AdapterHooks, AdapterSite, TrainingPlan, register
from lightft.adapters.schema import NonNegative, Positive, Rank, Share, Targets
from lightft.errors import InvalidSettingError, TrainingError

if TYPE_CHECKING:
    from peft import AdaLoraConfig
    from torch import Tensor
    from transformers import PreTrainedModel

_NAME = "default"
# peft wants the schedule when the adapter is built; the number of steps is known only when training begins.
_UNKNOWN_STEPS = 10**9


class RankSchedule(AdapterHooks):
    """Takes ranks away while training, on a schedule given in shares of all steps."""

    def before_training(self, model: Any, plan: TrainingPlan) -> None:
        """Tell peft when to begin and to end taking ranks away."""
        if plan.steps is None:
            raise TrainingError(
                "AdaLoRA takes ranks away on a schedule of steps, and training by max_seconds has no known number of them. "
                "Use max_steps, or 'lora'."
            )
        config = model.peft_config[_NAME]
        first, last = (max(1, round(self.params[name] * plan.steps)) for name in ("warmup", "settle"))
        if plan.steps - first - last < 1:
            raise TrainingError(
                f"AdaLoRA needs steps to take ranks away between its first {first} and its last {last}; there are "
                f"{plan.steps} in all. Train for longer, or use 'lora'."
            )
        config.tinit, config.tfinal, config.total_step = first, last, plan.steps

    def penalty(self, model: Any) -> Tensor:
        """Return how far A and B are from orthogonal, ‖A·Aᵀ − I‖ + ‖BᵀB − I‖, averaged over matrices (equation 4)."""
        import torch

        norms = []
        for name, weight in model.named_parameters():
            if weight.requires_grad and (f".lora_A.{_NAME}" in name or f".lora_B.{_NAME}" in name):
                gram = weight @ weight.T if ".lora_A." in name else weight.T @ weight
                norms.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
        return float(self.params["orthogonality"]) * torch.stack(norms).mean()

    def after_step(self, model: Any, step: int) -> None:
        """Let peft weigh the importance of each rank, and take some away."""
        for name, weight in model.named_parameters():
            # A layer that had no part in this step, as one that only another task reads.
            if ".lora_" in name and weight.requires_grad and weight.grad is None:
                weight.grad = weight.new_zeros(weight.shape)
        model.base_model.update_and_allocate(step)

    def after_training(self, model: Any, base: PreTrainedModel) -> Any:
        """Cut away the ranks that were taken: what is saved is as small as what is left.

        On a base in bfloat16 or float16 they stay, at zero: peft rounds what it cuts to the base's precision.
        """
        import torch

        if base.dtype in (torch.bfloat16, torch.float16):
            model.peft_config[_NAME].rank_pattern = None
            return model.eval()
        left = {
            name: (weight != 0).view(-1).tolist()
            for name, weight in model.base_model.model.named_parameters()
            if f".lora_E.{_NAME}" in name
        }
        model.base_model.resize_modules_by_rank_pattern(left, _NAME)
        model.peft_config[_NAME].rank_pattern = left
        return model.eval()


@register("adalora", learning_rate=2e-3, text_learning_rate=1e-3, causal_learning_rate=5e-4, hooks=RankSchedule)
def adalora(
    site: AdapterSite,
    *,
    r: Rank = 8,
    initial_r: Rank = 12,
    alpha: Positive = 32,
    dropout: Share = 0.1,
    targets: Targets = "all",
    warmup: Share = 0.1,
    settle: Share = 0.4,
    orthogonality: NonNegative = 0.1,
) -> AdaLoraConfig:
    """Adaptive budget allocation (Zhang et al. 2023, arXiv:2303.10512): W + alpha · B·Λ·A, with Λ pruned while training.

    Every layer starts with ``initial_r`` ranks. Between the warm-up and the last ``settle`` of the steps the least
    important ones over the whole model are taken away until ``r`` are left on average.

    Args:
        site: where the adapter goes.
        r: rank that is left, on average over the layers.
        initial_r: rank each layer starts with.
        alpha: scales the update (peft divides it by ``initial_r``).
        dropout: share of the update's inputs that are zeroed in training.
        targets: ``"all"``, an intent such as ``"attention"``, or names of layers.
        warmup: share of the steps before the first rank is taken.
        settle: share of the steps after the last one.
        orthogonality: weight of the penalty that keeps A and B near orthogonal.
    """
    del warmup, settle, orthogonality
    from peft import AdaLoraConfig

    if initial_r <= r:
        raise InvalidSettingError(
            f"'adalora' cannot have initial_r={initial_r} with r={r}: it takes ranks away. Give an initial_r above r."
        )
    layers = site.targets(targets)
    site.check_rank(initial_r, layers, "initial_r")
    return AdaLoraConfig(
        task_type=site.task_type,
        init_r=initial_r,
        target_r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=layers,
        fan_in_fan_out=site.is_transposed(layers),
        modules_to_save=list(site.head) or None,
        total_step=_UNKNOWN_STEPS,
    )
