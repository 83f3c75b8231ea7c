"""Settings of the process that make tensor work faster on a CPU."""

from __future__ import annotations

import ctypes
import sys

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
