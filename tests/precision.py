"""For tests that compare with CityLearn to the bit, which numpy 1 is needed for."""

import pytest

from iquitos_rl.envs.citylearn.precision import computes_in_double

needs_double = pytest.mark.skipif(
    not computes_in_double(), reason="with numpy 2 CityLearn computes in single precision"
)
