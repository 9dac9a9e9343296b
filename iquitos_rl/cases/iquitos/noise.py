"""Random series of a year, each from its own stream, so that a change in one concept leaves the others alone."""

from __future__ import annotations

import zlib

import numpy as np
from scipy.signal import lfilter

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.site import Floats


def stream(year_seed: int, name: str, *more: int) -> np.random.Generator:
    """The random stream of one concept in one year, such as "clouds"."""
    return np.random.default_rng([year_seed, zlib.crc32(name.encode()), *more])


def ar1(rng: np.random.Generator, count: int, correlation: float, freedom: float | None = None) -> Floats:
    """(count,) series of mean 0 and variance 1 with this correlation of neighbours.

    Args:
        freedom: what is new in each step follows Student's t with so many degrees, above 2; else a normal distribution.
    """
    if freedom is None:
        noise = rng.standard_normal(count)
    else:
        noise = rng.standard_t(freedom, count) / np.sqrt(freedom / (freedom - 2))
    noise[1:] *= np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise), dtype=np.float64)


def daily_ar1(calendar: Calendar, rng: np.random.Generator, correlation: float, freedom: float | None = None) -> Floats:
    """(T,) the same of days, each for all of its hours."""
    day = calendar.day
    return ar1(rng, int(day[-1]) + 1, correlation, freedom)[day]
