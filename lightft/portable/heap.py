"""How the C library's heap keeps the memory that a forward pass gave back for the next one."""

from __future__ import annotations

import ctypes
import platform
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory(largest_block: int, most: int, *, one_heap: bool = False) -> None:
    """Keep freed blocks for the next pass, and give larger ones back to the system at once.

    A pass takes and frees the same blocks as the one before it. To get them from the system again each time costs more than
    to compute with them, most of all on virtual machines, which fetch them from their host. By itself glibc gives all of a
    thread's heap back, and comes to keep blocks of up to 32 MiB elsewhere. Another C library is left as it is.

    Args:
        largest_block: bytes of the largest block that is kept, up to 32 MiB.
        most: bytes that are kept at the end of the heap.
        one_heap: let the threads to come share one heap: those of their own are given back whatever ``most`` says.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, largest_block)
    mallopt(_M_TRIM_THRESHOLD, most)
    if one_heap:
        mallopt(_M_ARENA_MAX, 1)
