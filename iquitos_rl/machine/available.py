"""Measures free memory: of the machine, of the container, of the GPU."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import torch

from iquitos_rl.errors import UserError

MIB = 1 << 20
NO_LIMIT = 1 << 60
"""A control group without a limit reports "max" or a number near 2^63."""


def parse_size(text: str) -> int:
    """Bytes from `8GiB`, `500 MB`, `123`.

    Raises:
        UserError: the text is not a size.
    """
    found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if found is None:
        raise UserError(f"{text!r} is not a size: expected e.g. 8GiB, 500MB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))


def show_size(size: float) -> str:
    """A size as text, in MiB or GiB."""
    return f"{size / (1 << 30):,.2f} GiB" if size >= 10 * (1 << 30) else f"{size / MIB:,.1f} MiB"


def control_group_free(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that this process's control group (a container, a batch job) may still use; None without a limit.

    The tightest group between the process's own and the root counts. File pages that the kernel can drop count as free.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    free: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        unified = controllers == ""
        if not unified and "memory" not in controllers.split(","):
            continue
        base = root if unified else root / "memory"
        names = ("memory.max", "memory.current") if unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        relative = Path(path.lstrip("/"))
        for folder in [base / relative, *(base / parent for parent in relative.parents)]:
            limit, usage = (_number(folder / name) for name in names)
            if limit is not None and usage is not None and limit < NO_LIMIT:
                free.append(max(0, limit - usage + _reclaimable(folder)))
    return min(free, default=None)


def free_ram() -> int:
    """Bytes of RAM that this process can use without swapping."""
    group = control_group_free()
    available = int(psutil.virtual_memory().available)
    return available if group is None else min(group, available)


def free_device(device: torch.device) -> int:
    """Bytes that this process can still use on a CUDA device: what the driver reports as free (shared with other
    processes), plus what PyTorch has reserved but does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max", or this controller does not exist
        return None


def _reclaimable(folder: Path) -> int:
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.split()[0] == "inactive_file")
