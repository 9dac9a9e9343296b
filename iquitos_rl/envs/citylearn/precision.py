"""In which precision CityLearn computes, which is a matter of the numpy that is installed.

CityLearn stores in single precision. With numpy 1 a stored number times a Python float is computed in double precision,
and the district engine's exact mode does the same. With numpy 2 (NEP 50) such a product is rounded to single precision
at once, so CityLearn there differs from itself on numpy 1 in the seventh digit, and so does the engine from it.
"""

from __future__ import annotations

import numpy as np


def computes_in_double() -> bool:
    """Whether CityLearn computes in double precision here: the engine's exact mode then equals it to the bit."""
    return isinstance(np.float32(1) * 1.0, np.float64)
