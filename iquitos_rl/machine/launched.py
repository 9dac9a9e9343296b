"""Whether torchrun has started this process, and how many of them."""

from __future__ import annotations

import os


def launched() -> int:
    """How many processes torchrun has started together; 1 without it. Needs no torch."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
