"""Turns the device setting into a PyTorch device."""

from __future__ import annotations

import torch

from iquitos_rl.errors import UserError


def choose_device(setting: str) -> torch.device:
    """The PyTorch device for `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UserError: the setting is cuda and PyTorch sees no CUDA device.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")
