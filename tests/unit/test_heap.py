"""Memory that one pass gave back is there for the next, up to the size that was set."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="it is glibc's heap that is set"
)
# Several passes in a thread, as a service computes them: each fills five blocks and gives them back.
_COUNT_FAULTS = """
import resource, sys, threading
from lightft.portable.heap import keep_freed_memory, share_one_heap
largest, most, size = map(int, sys.argv[1:])
keep_freed_memory(largest, most)
share_one_heap()
faults = []
def passes():
    for _ in range(20):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [bytearray(size) for _ in range(5)]
        del blocks
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=passes)
thread.start()
thread.join()
print(sum(faults[5:]))
"""
MEBIBYTE = 2**20


def _faults(largest_block: int, most: int, size: int) -> int:
    arguments = [str(number) for number in (largest_block, most, size)]
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_FAULTS, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_blocks_up_to_the_size_that_is_kept_are_not_fetched_again() -> None:
    pages_of_a_pass = 5 * 2 * MEBIBYTE // 4096
    assert _faults(4 * MEBIBYTE, 32 * MEBIBYTE, 2 * MEBIBYTE) < pages_of_a_pass
    assert _faults(1 * MEBIBYTE, 32 * MEBIBYTE, 2 * MEBIBYTE) > 10 * pages_of_a_pass


def test_no_more_is_kept_than_was_set() -> None:
    pages_of_a_pass = 5 * 2 * MEBIBYTE // 4096
    assert _faults(4 * MEBIBYTE, 1 * MEBIBYTE, 2 * MEBIBYTE) > 10 * pages_of_a_pass


_FREE_BETWEEN_WHAT_STAYS = """
import sys
from lightft.portable import heap
heap.keep_freed_memory(4 * 2**20, 16 * 2**20)
if sys.argv[1] == "back":
    heap.give_freed_memory_back()
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
blocks = [bytearray(b"1") * 2**18 for _ in range(200)]
full = resident()
blocks[::2] = [None] * 100
print(full - resident())
"""


def _kilobytes_given_back(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FREE_BETWEEN_WHAT_STAYS, how], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_what_is_freed_between_blocks_that_stay_is_given_back_where_that_is_asked_for() -> None:
    freed = 100 * 256
    assert _kilobytes_given_back("back") > 0.9 * freed
    assert _kilobytes_given_back("kept") < 0.1 * freed
