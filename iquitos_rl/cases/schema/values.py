"""Single values of a schema, checked; messages say where they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError


def mapping(value: object, where: str) -> dict[str, Any]:
    """A JSON object, or UserError."""
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a JSON object with keys, not {value!r}")
    return value


def flag(value: object, where: str) -> bool:
    """A truth value as CityLearn accepts it (`utilities.py`, parse_bool), False where it is omitted, or UserError."""
    if value is None:
        return False
    text = str(value).strip().lower()
    if text in ("true", "1", "1.0", "yes", "on"):
        return True
    if text in ("false", "0", "0.0", "no", "off"):
        return False
    raise UserError(f"{where} must be true or false, not {value!r}")


def number(
    attributes: Mapping[str, Any], key: str, where: str, low: float, high: float, default: float | None = None
) -> float:
    """A number between low and high, or the default where it is omitted; anything else raises UserError."""
    value = attributes.get(key)
    if value is None and default is not None:
        return default
    if not is_number(value) or not low <= value <= high:
        span = f"between {low:g} and {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise UserError(f"{where}: {key} must be a number {span}, not {value!r}")
    return float(value)


def whole(attributes: Mapping[str, Any], key: str, where: str, low: int) -> int:
    """A whole number of at least low, or UserError."""
    value = attributes.get(key)
    if not is_number(value) or value != int(value) or value < low:
        raise UserError(f"{where}: {key} must be a whole number of at least {low}, not {value!r}")
    return int(value)


def curve(value: object, key: str, where: str, fewest: int = 2) -> Floats:
    """(2, K) from a list of [x, y] pairs with rising x; anything else raises UserError."""
    try:
        pairs = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.zeros(0)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) < fewest or not np.isfinite(pairs).all():
        raise UserError(f"{where}: {key} must be a list of at least {fewest} [x, y] pairs of numbers")
    if (np.diff(pairs[:, 0]) <= 0).any():
        raise UserError(f"{where}: the first numbers of the pairs of {key} must rise")
    return np.ascontiguousarray(pairs.T)


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
