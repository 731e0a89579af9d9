"""Keep off the screen what other libraries say and no user can act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

__all__ = ["leave_out_padding_notice", "quiet_peft", "quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the screen: a new head is what was asked for."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def leave_out_padding_notice() -> None:
    """Leave out that a decoder's classifier finds no padding among embeddings: lightft finds where each text ends."""
    for handler in logging.getLogger("transformers").handlers:
        if _is_no_padding_notice not in handler.filters:
            handler.addFilter(_is_no_padding_notice)


def _is_no_padding_notice(record: logging.LogRecord) -> bool:
    return "will not detect padding tokens in `inputs_embeds`" not in record.getMessage()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Leave out what peft says of itself and no user can mend."""
    with warnings.catch_warnings():
        for message in _PEFT_OF_ITSELF:
            warnings.filterwarnings("ignore", message=message)
        yield


_PEFT_OF_ITSELF = (
    # It uses a name that transformers is about to drop,
    r".*is_gradient_checkpointing",
    # takes the names in which its own AdaLoRA stores ranks for mistakes,
    r"The following rank_pattern keys .*\.lora_E'",
    # and a layer that AdaLoRA or EVA left no rank for one that lost its weights,
    r"Adapter '.*': \d+ LoRA tensor\(s\) have invalid shape: [^ ]*:\((0, \d+|\d+, 0)\)",
    # advises EVA's start to be made without memory for the weights it fills,
    r"lora with eva initialization used with low_cpu_mem_usage=False",
    # and does not know the norms that its own kind of tuning is for.
    r"Unsupported layer type '<class 'torch\.nn\.modules\.normalization",
)
