"""Battery parameters as CityLearn resolves them, with those that a schema omits drawn from its seed.

CityLearn draws every omitted parameter from a fresh generator with the same seed (`energy_model.py`,
_get_property_value and the curve setters), so each is the first number of that generator, scaled.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np

from iquitos_rl.cases.schema.values import LARGEST_SEED, Block
from iquitos_rl.cases.site import Battery, Floats

BUILDING_TYPE = "citylearn.citylearn.Building"
IGNORED = ("random_seed", "phase_connection", "seconds_per_time_step", "time_step_ratio", "episode_tracker")
DRAWN = ("efficiency", "capacity_loss_coefficient", "power_efficiency_curve", "capacity_power_curve")
"""Parameters that CityLearn draws for both kinds of battery where they are omitted."""


def device_seed(building: str, building_type: str, device: str, device_type: str, schema_seed: int) -> int:
    """Seed of one device of a building (`internal/loading.py`, load_building)."""
    md5, total = hashlib.md5(usedforsecurity=False), 0
    for text in (building, building_type, device, device_type):
        md5.update(text.encode())
        total += int(md5.hexdigest(), 16)
    return int(str(total * (schema_seed + 1))[:9])


def stationary_battery(attributes: Block, seed: int) -> Battery:
    """Resolve `electrical_storage.attributes`; what has no meaning is recorded.

    Args:
        seed: the device's seed, see `device_seed`.
    """
    for key in attributes.content:
        if key not in Battery.__dataclass_fields__ and key not in IGNORED:
            attributes.error(f"a battery has no attribute {key!r}")
    seed = attributes.whole("random_seed", 0, seed, LARGEST_SEED)
    depth = attributes.number("depth_of_discharge", 0, 1, default=1.0)
    return _battery(
        attributes,
        seed,
        capacity=attributes.number("capacity", 0, math.inf, default=0.0),
        nominal_power=attributes.number("nominal_power", 0, math.inf, default=0.0),
        depth_of_discharge=depth,
        initial_soc=attributes.number("initial_soc", 0, 1, default=1.0 - depth),
        loss_coefficient=attributes.number("loss_coefficient", 0, 1, default=draw(seed, 0.001, 0.009)),
    )


def vehicle_battery(attributes: Block, name: str, schema_seed: int) -> Battery:
    """Resolve `electric_vehicles_def.NAME.battery.attributes` (`internal/loading.py`, load_electric_vehicle)."""
    attributes.check_known((*Battery.__dataclass_fields__, *IGNORED), "battery attribute")
    seed = int(hashlib.md5(f"{schema_seed}:{name}:initial_soc".encode(), usedforsecurity=False).hexdigest()[:8], 16)
    return _battery(
        attributes,
        schema_seed,
        capacity=attributes.number("capacity", 0, math.inf, above=True),
        nominal_power=attributes.number("nominal_power", 0, math.inf, above=True),
        depth_of_discharge=attributes.number("depth_of_discharge", 0, 1, default=1.0),
        initial_soc=attributes.number("initial_soc", 0, 1, default=draw(seed, 0.0, 1.0)),
        loss_coefficient=attributes.number("loss_coefficient", 0, 1, default=0.0),
    )


def drawn(attributes: Block, stationary: bool) -> list[str]:
    """Names of the omitted parameters that CityLearn draws for this battery."""
    names = (*DRAWN, "loss_coefficient" if stationary else "initial_soc")
    return [name for name in names if name not in attributes]


def _battery(attributes: Block, seed: int, **resolved: float) -> Battery:
    efficiency = attributes.number("efficiency", 0, 1, default=draw(seed, 0.90, 0.98), above=True)

    def given_or(key: str, knots: list[list[float]]) -> Floats:
        return attributes.curve(key) if key in attributes else np.array(knots).T.copy()

    power_efficiency_curve = given_or(
        "power_efficiency_curve",
        [
            [0.0, draw(seed, efficiency * 0.85, efficiency * 0.90)],
            [draw(seed, 0.25, 0.35), draw(seed, efficiency * 0.90, efficiency * 0.95)],
            [draw(seed, 0.65, 0.75), draw(seed, efficiency * 0.98, efficiency * 1.0)],
            [draw(seed, 0.75, 0.85), efficiency],
            [1.0, draw(seed, efficiency * 0.95, efficiency * 0.98)],
        ],
    )
    # CityLearn extends the curve in straight lines where it does not reach 0 or 1, and stops beyond an efficiency of 1.
    values = [*power_efficiency_curve[1], *(_extended(power_efficiency_curve, x) for x in (0.0, 1.0))]
    if not all(0 < value <= 1 + 1e-12 for value in values):
        attributes.error("power_efficiency_curve must lie above 0 and at most at 1, for every power from 0 to 1")
    return Battery(
        efficiency=efficiency,
        capacity_loss_coefficient=attributes.number("capacity_loss_coefficient", 0, 1, default=draw(seed, 1e-5, 1e-4)),
        power_efficiency_curve=power_efficiency_curve,
        capacity_power_curve=given_or(
            "capacity_power_curve",
            [
                [0.0, draw(seed, 0.95, 1.0)],
                [draw(seed, 0.75, 0.85), draw(seed, 0.90, 0.95)],
                [1.0, draw(seed, 0.20, 0.30)],
            ],
        ),
        **resolved,
    )


def _extended(curve: Floats, x: float) -> float:
    """A curve's value at x, on the line through its first two knots or its last two where x lies outside of them."""
    k = int(np.clip(np.searchsorted(curve[0], x) - 1, 0, curve.shape[1] - 2))
    slope = (curve[1, k + 1] - curve[1, k]) / (curve[0, k + 1] - curve[0, k])
    return float(curve[1, k] + slope * (x - curve[0, k]))


def draw(seed: int, low: float, high: float) -> float:
    """The first uniform number between low and high of a generator with this seed."""
    return low + (high - low) * _first_number(seed)


@lru_cache
def _first_number(seed: int) -> float:
    return float(np.random.RandomState(seed).random_sample())
