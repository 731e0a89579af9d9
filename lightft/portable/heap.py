"""How the C library's heap keeps the memory that a forward pass gave back for the next one."""

from __future__ import annotations

import ctypes
import platform
import sys

__all__ = ["keep_freed_memory", "share_one_heap"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory(largest_block: int, most: int) -> None:
    """Keep freed blocks for the next pass, and give larger ones back to the system at once.

    A pass takes and frees the same blocks as the one before it. To get them from the system again each time costs more than
    to compute with them, most of all on virtual machines, which fetch them from their host. By itself glibc gives the end of
    its heap back, and comes to keep blocks of up to 32 MiB. Another C library is left as it is.

    Args:
        largest_block: bytes of the largest block that is kept, up to 32 MiB.
        most: bytes that are kept at the end of the heap.
    """
    _set(_M_MMAP_THRESHOLD, largest_block)
    _set(_M_TRIM_THRESHOLD, most)


def share_one_heap() -> None:
    """Let threads that start from now on use the main heap: their own would be given back whatever is to be kept."""
    _set(_M_ARENA_MAX, 1)


def _set(parameter: int, value: int) -> None:
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(parameter, value)
