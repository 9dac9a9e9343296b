"""The EV guard: departures stay safe whatever the agent does, and no vehicle is charged beyond its wish."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iquitos_rl.envs.task.sockets import ABOVE_EDGE, guarded_range, steps_needed, urgency


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(
    soc=st.floats(0, 1),
    required=st.floats(0, 1),
    gain=st.floats(0.02, 1.5),
    stay=st.integers(1, 12),
    deadband=st.sampled_from([0.0, 0.1, 0.4]),
    choices=st.lists(st.floats(-1, 1), min_size=12, max_size=12),
)
def test_any_actions_reach_the_wanted_soc_whenever_full_power_can(soc, required, gain, stay, deadband, choices):
    reachable = min(required, soc + stay * gain)
    for step in range(stay):
        left = tensor(stay - step)
        needed = steps_needed(tensor(soc), tensor(required), tensor(gain))
        least, most = guarded_range(needed, left, tensor(gain), tensor(1.0), tensor(0.0), tensor(deadband))
        action = torch.lerp(least, most, (tensor(choices[step]) + 1) / 2).item()
        assert 0 <= least.item() <= most.item() <= 1
        power = action if action >= deadband else 0.0  # CityLearn drops requests inside the deadband
        soc = min(soc + power * gain, 1.0)
    assert soc >= min(reachable, required) - deadband * gain - 1e-9
    if deadband == 0:
        assert soc >= reachable - 1e-9


def test_full_action_stops_at_the_wanted_soc():
    needed = steps_needed(tensor(0.70), tensor(0.75), tensor(0.5))
    _, most = guarded_range(needed, tensor(4.0), tensor(0.5))
    torch.testing.assert_close(tensor(0.70) + most * 0.5, tensor(0.75))


@given(needed=st.floats(-3, 12), left=st.integers(1, 12))
def test_chargers_that_only_charge_need_no_general_case(needed, left):
    simple = guarded_range(tensor(needed), tensor(left), tensor(0.3))
    general = guarded_range(tensor(needed), tensor(left), tensor(0.3), tensor(1.0), tensor(0.0), tensor(0.0))
    torch.testing.assert_close(simple, general)


def test_a_socket_that_can_discharge_may_give_away_only_its_slack():
    # Full: 0.2 above the wish, one step left, a full discharge would cost 0.5.
    needed = steps_needed(tensor(1.0), tensor(0.8), tensor(0.4))
    least, most = guarded_range(needed, tensor(1.0), tensor(0.4), tensor(0.5), tensor(-1.0), tensor(0.0))
    torch.testing.assert_close(tensor(1.0) + least * 0.5, tensor(0.8))
    assert most.item() == 1.0
    # With many steps left it may discharge fully.
    least, _ = guarded_range(needed, tensor(9.0), tensor(0.4), tensor(0.5), tensor(-1.0), tensor(0.0))
    assert least.item() == -1.0


@given(
    soc=st.floats(0, 1),
    required=st.floats(0, 1),
    gain=st.floats(0.02, 1.5),
    drop=st.floats(0.02, 1.5),
    floor=st.floats(0, 0.5),
    stay=st.integers(1, 12),
)
def test_a_socket_that_can_discharge_is_offered_nothing_that_its_battery_cannot_do(
    soc, required, gain, drop, floor, stay
):
    """So that what a fleet's columns show is what it can really take and give."""
    needed = steps_needed(tensor(soc), tensor(required), tensor(gain))
    stored = tensor(soc), tensor(floor)
    bounds = (tensor(drop), tensor(-1.0), None)
    least, most = (x.item() for x in guarded_range(needed, tensor(stay), tensor(gain), *bounds, stored))
    assert -1 <= least <= most <= 1
    assert soc + min(least, 0) * drop >= min(soc, floor) - 1e-9
    assert soc + max(most, 0) * gain <= 1 + max(least, 0) * gain + 1e-9
    unlimited, _ = (x.item() for x in guarded_range(needed, tensor(stay), tensor(gain), *bounds))
    assert least >= unlimited - 1e-12


def test_urgency_is_the_share_of_the_remaining_time():
    assert urgency(tensor(2.0, -1.0, 9.0, 0.0), tensor(4.0, 4.0, 4.0, 0.0)).tolist() == [0.5, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_least_that_is_safe_is_never_dropped_by_rounding(dtype):
    """Whatever the charger, the guard's least request passes the deadband in CityLearn's arithmetic."""
    from citylearn.electric_vehicle_charger import Charger

    for full in (3.7, 7.4, 11.0, 22.0, 60.0):
        for least_kw in np.arange(0.5, 8.0, 0.01):
            smallest = min(min(least_kw, full) / full * ABOVE_EDGE, 1)
            values = [torch.tensor([[x]], dtype=dtype) for x in (0.51, 1.0, 0.5)]
            least, most = guarded_range(*values, smallest=torch.tensor([smallest], dtype=dtype))
            action = torch.lerp(least, most, torch.zeros_like(least)).item()
            assert Charger._deadband_power_kw(action, full, least_kw) > 0
