"""Any ready ``PeftConfig``, for the kinds that lightft does not name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightft.adapters.kind import AdapterHooks, AdapterSite, AdapterUse, register
from lightft.adapters.lora import LoraHooks
from lightft.errors import AdapterError, InvalidSettingError

if TYPE_CHECKING:
    from peft import PeftConfig

    from lightft.adapters.spec import AdapterSpec

# Kinds whose targets are norms or embeddings.
_NOT_ON_LINEAR_LAYERS = ("LN_TUNING", "TRAINABLE_TOKENS")
_SHAPED_AS_STORED = ("LOHA", "LOKR")
# What peft or lightft fills in, for a model or a version.
_NOT_CHOSEN = ("task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")


def _hooks(params: Mapping[str, Any]) -> AdapterHooks:
    """Return the hooks of the kind that the config amounts to."""
    config = params["config"] or {"peft_type": "none"}
    if config["peft_type"] == "ADALORA":
        from lightft.adapters.adalora import RankSchedule

        steps = config["total_step"]
        return RankSchedule(
            {
                "warmup": config["tinit"] / steps,
                "settle": config["tfinal"] / steps,
                "orthogonality": config["orth_reg_weight"],
            }
        )
    if config["peft_type"] == "PREFIX_TUNING":
        from lightft.adapters.virtual_tokens import PrefixHooks

        return PrefixHooks(params)
    if config["peft_type"] in ("PROMPT_TUNING", "P_TUNING"):
        from lightft.adapters.virtual_tokens import VirtualTokenHooks

        return VirtualTokenHooks(params)
    start = str(config.get("init_lora_weights", True))
    if start.startswith("pissa") or start == "olora":
        from lightft.adapters.folding import RewritesBase, RewritesUntransposedBase

        return RewritesUntransposedBase(params) if start == "olora" else RewritesBase(params)
    if start == "eva":
        from lightft.adapters.eva import StartsFromActivations

        return StartsFromActivations({**config, **(config.get("eva_config") or {})})
    return _AsPeftMakesIt(config)


class _AsPeftMakesIt(LoraHooks):
    """Of a config that needs nothing beyond what peft does of its own accord."""

    def refusal(self, use: AdapterUse) -> str | None:
        """Refuse 4-bit layers to kinds whose update has the shape of the weight as it is stored."""
        peft_type = self.params["peft_type"]
        if use.quantization == "nf4" and peft_type in _SHAPED_AS_STORED:
            return (
                f"peft's {peft_type} takes the packed shape of 4-bit weights for theirs. Use 'lora' or an 8-bit base."
            )
        return None


@register("peft", learning_rate=1e-3, text_learning_rate=5e-4, causal_learning_rate=2e-4, hooks=_hooks)
def ready_config(site: AdapterSite, *, config: Mapping[str, Any] | None = None) -> PeftConfig:
    """Build a peft config from its own fields; ``task_type`` and the head still come from the task.

    Args:
        site: where the adapter goes.
        config: fields of a ``PeftConfig`` with its ``peft_type``, as plain data. ``LoRATrainer(adapter=config)`` and
            ``AdapterSpec.of(config)`` write it for you.

    Raises:
        AdapterError: the targets match nothing, or lie in the head.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if config is None:
        raise InvalidSettingError("'peft' needs config=: pass a PeftConfig to AdapterSpec.of(config).")
    fields = {name: value for name, value in config.items() if name not in (*_NOT_CHOSEN, "peft_type")}
    if "target_modules" in fields:
        fields["target_modules"] = _targets(site, fields["target_modules"], config["peft_type"])
    if "fan_in_fan_out" in fields and isinstance(fields["target_modules"], list):
        fields["fan_in_fan_out"] = site.is_transposed(fields["target_modules"])
    further = [name for asked in fields.get("modules_to_save") or () for name in _modules(site, asked)]
    fields["modules_to_save"] = list(dict.fromkeys([*site.head, *further])) or None
    built: PeftConfig = PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]](task_type=site.task_type, **fields)
    return built


def spec_of_config(config: PeftConfig) -> AdapterSpec:
    """Return the spec of a ready peft config, as plain data.

    Raises:
        InvalidSettingError: it is no peft config, or holds something that is no plain data.
    """
    from peft import PeftConfig

    from lightft.adapters.spec import AdapterSpec

    if not isinstance(config, PeftConfig):
        raise InvalidSettingError(
            f"{config!r} is no adapter. Give AdapterSpec('lora', r=16), the name of a kind, or a peft config."
        )
    try:
        plain = json.loads(json.dumps(config.to_dict(), default=_plain))
    except TypeError as cause:
        raise InvalidSettingError(f"The {type(config).__name__} cannot be written as JSON: {cause}.") from cause
    return AdapterSpec("peft", config={name: value for name, value in plain.items() if name not in _NOT_CHOSEN})


def _targets(site: AdapterSite, wanted: Any, peft_type: str) -> Any:
    """Return full names for a list or a pattern; None and what peft finds by itself are left to it."""
    if wanted is None:
        return None
    if peft_type in _NOT_ON_LINEAR_LAYERS and not isinstance(wanted, str):
        return [name for asked in wanted for name in _modules(site, asked)]
    if wanted == "all-linear":
        return site.targets("all")
    if not isinstance(wanted, str):
        return site.targets(wanted)
    names = [name for name in site.targets("all") if re.fullmatch(wanted, name)]
    if not names:
        raise AdapterError(
            f"The pattern {wanted!r} of target_modules matches no linear layer of {type(site.model).__name__}. Its first "
            f"are: {', '.join(site.targets('all')[:6])}. Or use target_modules='all-linear'."
        )
    return names


def _modules(site: AdapterSite, asked: str) -> list[str]:
    """Return the full names of the modules that are called ``asked``."""
    names = [name for name, _ in site.model.named_modules() if name == asked or name.endswith(f".{asked}")]
    if not names:
        raise AdapterError(
            f"{asked!r} of the peft config is no module of {type(site.model).__name__}. Name one of its modules; the head "
            "is trained and saved anyway."
        )
    return names


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{value!r} is no plain data")
