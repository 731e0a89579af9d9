"""Mend what peft leaves of virtual tokens."""

from __future__ import annotations

from peft import PeftModel


def mend_virtual_tokens(model: PeftModel) -> None:
    """To come."""
