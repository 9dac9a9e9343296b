"""In which precision CityLearn computes here is what the package says of it, measured."""

from pathlib import Path

import pytest
from schemas import Features, write_schema

from iquitos_rl.envs.citylearn.precision import computes_in_double
from iquitos_rl.judging import twin


def test_the_engine_equals_citylearn_to_the_bit_or_in_single_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "MEASURED_SECONDS", 0.001)
    found = [twin.compare(write_schema(tmp_path / str(seed), seed, Features(rows=50)), seed=seed) for seed in range(3)]
    soc = max(one.exact["battery SOC"] for one in found)
    net = max(one.spacing["net (kWh)"] for one in found)
    if computes_in_double():
        assert soc < 1e-12
        assert net <= twin.SPACING
    else:
        assert 1e-12 < soc < 1e-4
        assert net > twin.SPACING
    assert all(one.failures() == [] for one in found)
    assert ("to the bit" in "".join(twin.report(found[0]))) == computes_in_double()
