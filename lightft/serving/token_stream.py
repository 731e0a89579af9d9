"""Tokens become text while they are written: pieces that together are the whole answer, and a way to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, TextStreamer

__all__ = ["StopWhen", "TokenStream"]


class TokenStream(TextStreamer):  # type: ignore[misc]
    """Tells the text of an answer piece by piece; white space at its ends is left out, as from the whole answer.

    Args:
        tokenizer: the model's.
        tell: is given each piece.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tell: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.tokens = 0
        self.last = -1
        self._tell = tell
        self._prompt_is_next = True
        self._held_back = ""
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        """Read the prompt, or the next token."""
        if self._prompt_is_next:
            self._prompt_is_next = False
        else:
            self.tokens += value.numel()
            self.last = int(value.reshape(-1)[-1])
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Tell ``text``, but for white space that may turn out to end the answer."""
        del stream_end
        text = self._held_back + text
        if not self._begun:
            text = text.lstrip()
        piece = text.rstrip()
        self._held_back = text[len(piece) :] if piece or self._begun else ""
        if piece:
            self._begun = True
            self._tell(piece)


class StopWhen(StoppingCriteria):  # type: ignore[misc]
    """Stops every row as soon as ``stop`` says so."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        """Return for each row whether it is to end."""
        del scores
        return torch.full((input_ids.shape[0],), self._stop(), dtype=torch.bool, device=input_ids.device)
