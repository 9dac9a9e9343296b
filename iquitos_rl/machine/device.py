"""The device that a setting means on this machine."""

from __future__ import annotations

import torch

from iquitos_rl.errors import UserError


def choose_device(setting: str) -> torch.device:
    """The device that a setting means on this machine.

    Raises:
        UserError: cuda was asked for and there is none.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")
