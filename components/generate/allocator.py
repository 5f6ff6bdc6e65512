"""Keeps the C library's allocator from holding on to memory that nobody uses."""

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_MMAP_THRESHOLD_BYTES = 2 << 20
_TRIM_THRESHOLD_BYTES = 16 << 20


def return_free_memory() -> None:
    """Makes glibc hand large blocks back to the system when they are freed; without glibc, does nothing.

    By itself glibc gives each thread a heap of its own, and carves ever larger arrays out of these heaps, which then
    cannot shrink: the longer a run of many threads, the more memory it holds for nothing. Arrays of more than 2 MiB get
    pages of their own here, as all do that are larger than 32 MiB anyway; smaller ones share one heap.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
