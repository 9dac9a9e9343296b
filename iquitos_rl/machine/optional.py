"""Packages that are not installed with this one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from iquitos_rl.errors import UserError


def optional(module: str, extra: str) -> Any:
    """Import a module of the extra's. Raises UserError: it, or what it needs itself, is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{module} cannot be imported ({error}): pip install 'iquitos_rl[{extra}]'") from None
