"""Arguments of the agents' constructors and methods: each is right, or one sentence says what is wrong."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from iquitos_rl.errors import UserError

C = TypeVar("C")


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number of any type: 20_000, 2e4, numpy.int64(3). Raises UserError: it is no such number, or too small."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
    else:
        number = int(float(value)) if isinstance(value, Real) and float(value).is_integer() else -1
    if not least <= number < 2**63 or isinstance(value, bool):
        raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return number


def seed_of(value: Any) -> int:
    """A seed; None draws one. Raises UserError: it is no whole number from 0 to 2^63 - 1."""
    return secrets.randbelow(2**31) if value is None else whole("seed", value)


def device_of(value: Any) -> torch.device:
    """A device; `auto` is CUDA where there is one. Raises UserError: there is no such device."""
    if isinstance(value, str) and value == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError, ValueError, AssertionError):
        raise UserError(f"device must be cpu, cuda, cuda:0 or auto, not {value!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: PyTorch sees no CUDA device here; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {device}: PyTorch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def config_of(kind: type[C], value: Any) -> C:
    """Settings, by default as shipped. Raises UserError: they are not of that kind."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        given = "the class itself" if value is kind else f"a {type(value).__name__}"
        how = f"{kind.__name__}(**settings)" if isinstance(value, dict) else f"{kind.__name__}(...)"
        raise UserError(f"config must be a {kind.__name__}, not {given}: write {how}")
    return value


def network_of(name: str, value: Any) -> nn.Module | None:
    """A network, or None. Raises UserError: it is something else."""
    if value is not None and not isinstance(value, nn.Module):
        raise UserError(f"{name} must be a torch.nn.Module, not {_kind(value)}")
    return value


def folder_of(value: Any) -> Path:
    """A folder, `~` for the user's own. Raises UserError: it is no path."""
    if not isinstance(value, str | PathLike) or not fspath(value):
        raise UserError(f"a directory must be a path, not {value!r}")
    return Path(fspath(value)).expanduser()


def callable_of(name: str, value: Any) -> Callable[..., Any] | None:
    """A function, or None. Raises UserError: it cannot be called."""
    if value is not None and not callable(value):
        raise UserError(f"{name} must be a function, not {_kind(value)}")
    return value  # type: ignore[no-any-return]


def _kind(value: Any) -> str:
    return f"the class {value.__name__}: make one" if isinstance(value, type) else f"a {type(value).__name__}"
