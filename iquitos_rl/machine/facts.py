"""Facts stored with every result: package versions, the machine, and peak memory."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from iquitos_rl.machine.files import digest
from iquitos_rl.machine.inputs import read_text
from iquitos_rl.version import __version__

PACKAGES = ("torch", "citylearn", "gymnasium", "numpy", "tensordict", "pandas", "pvlib", "pydantic")


@cache
def versions() -> dict[str, str]:
    """Version of each package that results depend on; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "iquitos_rl": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def code_digest() -> str:
    """SHA-256 of this package's own modules and their names: two machines with the same run the same code."""
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"))
    return digest(*((file.relative_to(root).as_posix(), read_text(file)) for file in files))


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """The hardware and system that a run used."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": str(device),
        "threads": threads,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu_memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
    return facts


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak memory of this process so far, MiB."""
    if sys.platform == "win32":
        peak = psutil.Process().memory_info().peak_wset / 2**20
    else:
        import resource

        # Linux reports KiB, macOS bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    memory = {"ram_peak_mib": round(peak, 1)}
    if device.type == "cuda":
        memory["gpu_allocated_peak_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
        memory["gpu_reserved_peak_mib"] = round(torch.cuda.max_memory_reserved(device) / 2**20, 1)
    return memory
