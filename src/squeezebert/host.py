"""What the host offers: cores to use, and settings of the process that make tensor work faster on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names in glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory for the next tensor instead of returning it to the system.

    A pass allocates and frees the same few large buffers again and again; glibc hands them back each time, and the
    system clears every page anew. Kept, a feed-forward layer of 1,024 tokens takes less than half the time. The process
    holds on to the most it ever used. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, 32 << 20)  # bytes; the most that glibc accepts
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def usable_cpus() -> int:
    """Cores that this process may use, by affinity and by its container's quota, which torch does not know of."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or no quota: "max"
        return count
