"""How the C library keeps freed memory, fixed for this process."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Constants from glibc's malloc.h."""
LARGE_BLOCK, KEPT = 4 << 20, 16 << 20
"""Blocks of at least LARGE_BLOCK bytes are returned to the system when freed; of smaller ones, KEPT bytes are kept."""


@cache
def fix_thresholds() -> None:
    """Fix from which sizes on freed memory is returned to the system; does nothing where glibc is not the C library.

    By default both thresholds move with the largest block freed so far, up to 32 MiB. A training with tensors just
    below it keeps memory that no count of its tensors explains, and one with small tensors may return what its next
    update needs, page by page. With fixed thresholds large blocks are returned, and those of an update are used again.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)


def trim() -> None:
    """Return what is free to the system now."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
