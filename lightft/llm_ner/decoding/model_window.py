"""What is said of a text whose prompt and answer a model cannot read at once."""

from __future__ import annotations

__all__ = ["too_long_for"]


def too_long_for(max_length: int) -> str:
    """Return why there is no answer, where a model reads so many tokens at once."""
    return (
        f"Prompt and answer are longer than the {max_length} tokens the model reads at once. "
        "Cut the text into smaller windows, or show fewer examples."
    )
