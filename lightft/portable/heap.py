"""How the C library's heap keeps the memory that a forward pass gave back for the next one."""

from __future__ import annotations

import ctypes
import platform
import sys

__all__ = ["give_freed_memory_back", "keep_freed_memory", "share_one_heap"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE_AT_FIRST = 128 * 2**10


def keep_freed_memory(largest_block: int, most: int) -> None:
    """Keep freed blocks for the next pass, and give larger ones back to the system at once.

    A pass takes and frees the same blocks as the one before it. To get them from the system again each time costs more than
    to compute with them, most of all on virtual machines, which fetch them from their host. By itself glibc gives the end of
    its heap back, and comes to keep blocks of up to 32 MiB. Before version 2.38 it cannot use a kept block again for one of
    the same size that is aligned as libraries of linear algebra want it: large ones are better given back. Another C library
    is left as it is.

    Args:
        largest_block: bytes of the largest block that is kept, up to 32 MiB.
        most: bytes that are kept at the end of the heap.
    """
    _set(_M_MMAP_THRESHOLD, largest_block)
    _set(_M_TRIM_THRESHOLD, most)


def give_freed_memory_back() -> None:
    """Give each block of 128 KiB or more back when it is freed, as glibc does at first.

    While a model is loaded, large blocks are freed between others that stay. Left in the heap they would be lost: holes that
    no later block fits into.
    """
    keep_freed_memory(_LARGE_AT_FIRST, _LARGE_AT_FIRST)


def share_one_heap() -> None:
    """Let threads that start from now on use the main heap: their own would be given back whatever is to be kept."""
    _set(_M_ARENA_MAX, 1)


def _set(parameter: int, value: int) -> None:
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(parameter, value)
