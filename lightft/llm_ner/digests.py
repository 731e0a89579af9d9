"""Short digests: they tell apart what is too long to stand among settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["digest_of"]


def digest_of(data: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of plain JSON data; the order of keys makes no difference."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
