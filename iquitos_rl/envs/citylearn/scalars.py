"""CityLearn's functions on single numbers, without numpy's arrays around each of them.

A step of CityLearn calls `np.clip`, `np.isfinite` or `np.min` on one number at a time, which takes ten times as long as
Python's own arithmetic. `on_scalars` copies such a function, with its formulas, and gives it another `np`.
"""

from __future__ import annotations

import builtins
import math
from bisect import bisect_left
from collections.abc import Mapping
from types import FunctionType
from typing import Any

import numpy as np


class _ScalarNumpy:
    """Stands in for `numpy`: a few functions with the same results on single numbers; everything else is numpy's."""

    nan, inf = np.nan, np.inf
    abs = staticmethod(abs)
    isfinite = staticmethod(math.isfinite)
    isnan = staticmethod(math.isnan)

    @staticmethod
    def isscalar(value: object) -> bool:
        return isinstance(value, (float, int, np.generic))

    @staticmethod
    def clip(value: float, low: float, high: float) -> float:
        return min(max(value, low), high)  # NaN stays NaN, as in numpy

    @staticmethod
    def searchsorted(values: list[float], value: float, side: str) -> int:
        assert side == "left"
        return bisect_left(values, value)

    @staticmethod
    def array(value: Any, **options: Any) -> Any:
        return value if isinstance(value, (float, np.floating)) else np.array(value, **options)

    @staticmethod
    def min(values: Any, **options: Any) -> Any:
        if not all(isinstance(value, (float, np.floating)) for value in values) or any(x != x for x in values):
            return np.min(values, **options)
        return float(builtins.min(values))

    @staticmethod
    def nanmin(values: list[float]) -> Any:
        return np.nanmin(values) if any(x != x for x in values) else builtins.min(values)

    @staticmethod
    def nanmax(values: list[float]) -> Any:
        return np.nanmax(values) if any(x != x for x in values) else builtins.max(values)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def on_scalars(function: Any, names: Mapping[str, str] | None = None) -> Any:
    """A copy of a CityLearn function with `_ScalarNumpy` as its `np`, for functions that see single numbers only.

    Args:
        names: attributes that the copy, where it reads them, reads under another name, old to new: where CityLearn
            stores what a property returns.
    """
    code = function.__code__
    if names:
        code = code.replace(co_names=tuple(names.get(name, name) for name in code.co_names))
    context = {**function.__globals__, "np": _ScalarNumpy()}
    copied = FunctionType(code, context, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied
