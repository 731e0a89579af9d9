"""Says where a quantised base does not save the memory that it is used to save."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lightft.comparison.records import ComparisonRow
from lightft.wording import size_words

__all__ = ["memory_remark", "remarks_on_memory"]

_TELLING_SHARE = 0.05
"""Peaks that differ by less are no saving: as much comes and goes with what else a process holds."""

_SETTINGS_OF_MEMORY = (
    "training.batch_size",
    "training.max_tokens",
    "training.max_length",
    "training.gradient_checkpointing",
)
_PARTS = ("weight_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes")


def remarks_on_memory(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return a sentence for each method on a quantised base that needs about as much memory as the same one without.

    Runs are held against each other when base model, kind of adapter, batches and device are the same; of several seeds the
    first is. Nothing is said of runs without such a partner, or without a measured peak.
    """
    remarks: dict[Hashable, str | None] = {}
    for row in rows:
        if "model.quantization" not in row.settings or _method_of(row) in remarks:
            continue
        partners = [other for other in rows if _are_alike(row, other) and "model.quantization" not in other.settings]
        if partners:
            nearest = max(partners, key=lambda other: _shared_settings(row, other))
            remarks[_method_of(row)] = memory_remark(row, nearest)
    return [remark for remark in remarks.values() if remark is not None]


def memory_remark(quantised: ComparisonRow, plain: ComparisonRow) -> str | None:
    """Return a sentence if the quantised run's peak is less than 5 % below the other's; None if it is not, or not known."""
    peak, other_peak = _peak(quantised.cost), _peak(plain.cost)
    if peak is None or other_peak is None or peak < (1 - _TELLING_SHARE) * other_peak:
        return None
    verb = "hardly saves memory here" if peak < other_peak else "does not save memory here"
    return (
        f"{quantised.name} {verb}: peak {size_words(peak)} against {size_words(other_peak)} of {plain.name}"
        f"{_reason(quantised.cost, plain.cost, peak)}."
    )


def _reason(quantised: Mapping[str, Any], plain: Mapping[str, Any], peak: int) -> str:
    """Say what became of the weights and what takes the most beside them, where it was counted."""
    if any(part not in quantised for part in _PARTS) or "weight_bytes" not in plain:
        return ""
    weights, other_weights = quantised["weight_bytes"], plain["weight_bytes"]
    beside = {
        "activations take": quantised["activation_bytes"],
        "gradients and the optimiser take": quantised["gradient_bytes"] + quantised["optimizer_bytes"],
        "what is not counted, the program itself among it, takes": peak - sum(quantised[part] for part in _PARTS),
    }
    most = max(beside, key=lambda what: beside[what])
    turn = "but" if weights < other_weights else "and"
    return (
        f"; its weights take {size_words(weights)} instead of {size_words(other_weights)}, "
        f"{turn} {most} {size_words(beside[most])}"
    )


def _peak(cost: Mapping[str, Any]) -> int | None:
    """Return the peak of the training; a peak of all that the process ever did says nothing of it."""
    peak: int | None = cost.get("peak_memory_bytes")
    return None if cost.get("peak_memory_is_of_process") else peak


def _are_alike(one: ComparisonRow, other: ComparisonRow) -> bool:
    same_settings = all(
        one.settings.get(name) == other.settings.get(name)
        for name in ("model.name", "adapter.kind", *_SETTINGS_OF_MEMORY)
    )
    return same_settings and one.environment.get("device") == other.environment.get("device")


def _shared_settings(one: ComparisonRow, other: ComparisonRow) -> int:
    return len([name for name, value in one.settings.items() if other.settings.get(name) == value])


def _method_of(row: ComparisonRow) -> Hashable:
    """Return what runs have in common that differ in no setting of model, adapter or batches but the seed."""
    return tuple(
        (name, str(value))
        for name, value in sorted(row.settings.items())
        if name != "model.seed" and (name.startswith(("model.", "adapter.")) or name in _SETTINGS_OF_MEMORY)
    )
