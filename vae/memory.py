"""Memory between two batches: kept, where the C library would give it back and fetch it anew."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Of glibc's malloc.h; with their values by default, once blocks as large as those of a batch were freed.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK = 32 * 2**20  # bytes; more is not accepted as MMAP_THRESHOLD
ALL = 2**31 - 1


@contextmanager
def memory_kept() -> Iterator[None]:
    """Let memory that one batch frees serve the next one; given back at the end.

    The activations of a network are freed after each batch, and by default glibc returns them to the kernel, which must
    then map and clear the same pages again for the next batch: for the default network on a CPU a tenth of the time.
    Does nothing where the C library is not glibc.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)
    libc.mallopt(TRIM_THRESHOLD, ALL)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST_BLOCK)
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc, whose interface this is."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # TypeError: on Windows
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
