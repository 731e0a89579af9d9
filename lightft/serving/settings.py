"""What a service accepts, how long it lets a request wait, and what it writes down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from lightft.errors import InvalidSettingError

__all__ = ["ServeSettings"]


@dataclass(frozen=True)
class ServeSettings:
    """The limits and manners of a service.

    Attributes:
        api_key: what every route but ``/health`` and ``/demo`` asks for; None asks for none.
        max_body_bytes: of a request.
        max_texts: in one request.
        max_characters: of all texts of a request, or of all messages of a conversation.
        latency_budget_ms: how long one batch may compute; a longer queue is cut into several batches.
        queue_texts: a request is never refused because of fewer waiting texts than this, unless it would be too late.
        queue_ms: beyond ``queue_texts``, a request is refused when it would wait longer than this.
        queue_generations: how many requests to write may wait for one base model.
        deadline_seconds: the answer to ``/predict`` comes within this time, or is refused.
        generation_seconds: the same of ``/generate``.
        body_seconds: how long a client may take to send a request.
        open_bodies: how many requests may be in the middle of being sent.
        stop_seconds: how long accepted work may take to finish after the service was told to stop.
        log_text: write the texts into the log as well.
    """

    api_key: str | None = field(default=None, repr=False)
    max_body_bytes: int = 1_000_000
    max_texts: int = 64
    max_characters: int = 100_000
    latency_budget_ms: float = 50.0
    queue_texts: int = 32
    queue_ms: float = 50.0
    queue_generations: int = 8
    deadline_seconds: float = 30.0
    generation_seconds: float = 120.0
    body_seconds: float = 10.0
    open_bodies: int = 256
    stop_seconds: float = 30.0
    log_text: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name not in ("api_key", "log_text") and not 0 < value < math.inf:
                raise InvalidSettingError(f"{setting.name} is {value}. Give a finite number above 0.")
        if self.api_key is not None and not _fits_into_a_header(self.api_key):
            # The key itself is not repeated.
            raise InvalidSettingError(
                "The API key is empty, has a space at an end, or holds characters that no header can carry. Use ASCII "
                "letters and digits."
            )


def _fits_into_a_header(key: str) -> bool:
    """Whether a client can send ``key`` as it is: HTTP takes the spaces around a header's value away."""
    return bool(key) and key.isascii() and key.isprintable() and key == key.strip()
