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
    """Leave out peft's own use of a name that transformers is about to drop: no user can mend it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield
