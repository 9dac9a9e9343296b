"""The bill against a brute force: months, periods, several buildings, exports."""

import json

import numpy as np
import pytest
import torch

from iquitos_rl.envs.task.objective import (
    Objective,
    ObjectiveSettings,
    Tariff,
    Weights,
    demand_increase,
    read_tariff,
    step_bill,
)
from iquitos_rl.errors import UserError

TARIFF = Tariff(currency="PEN", peak_hours=(18, 19), demand_charge_peak=48.5, demand_charge_off_peak=22.8)


def test_demand_increases_of_a_month_sum_to_its_highest_import_in_each_period():
    rng = np.random.default_rng(0)
    import_kwh = torch.from_numpy(rng.uniform(0, 900, (200, 3, 2)))  # steps, environments, buildings
    peak = torch.from_numpy(rng.random((200, 3)) < 0.3)
    meter = torch.stack([peak, ~peak], dim=-1) * 4.0  # quarters of an hour
    running = torch.zeros(3, 2, 2, dtype=torch.float64)
    charged = torch.zeros(3, 2, dtype=torch.float64)
    for step in range(200):
        cost, running = demand_increase(import_kwh[step], running, meter[step], TARIFF)
        charged += cost
    for e in range(3):
        in_peak = import_kwh[peak[:, e], e].max(0).values * 4
        off_peak = import_kwh[~peak[:, e], e].max(0).values * 4
        torch.testing.assert_close(charged[e], 48.5 * in_peak + 22.8 * off_peak)


def _bill(net, price=0.3, carbon=0.45, running=0.0, peak=True, missing=0.0, **settings):
    shape = (1, len(net))
    full = lambda value: torch.full(shape, value, dtype=torch.float64)  # noqa: E731
    terms, _ = step_bill(
        Objective(TARIFF, ObjectiveSettings(**settings)),
        torch.tensor([net], dtype=torch.float64),
        full(price),
        full(carbon),
        full(running).unsqueeze(-1).expand(1, len(net), 2),
        torch.tensor([[float(peak), float(not peak)]], dtype=torch.float64),
        torch.tensor([missing], dtype=torch.float64),
        1.0,
    )
    return terms


def test_each_term_by_hand():
    terms = _bill([100.0, 50.0], running=40.0, missing=2.0, carbon_price=0.1, shortfall_price=5.0)
    assert terms.energy.item() == pytest.approx(45.0)
    assert terms.demand.item() == pytest.approx(48.5 * (60 + 10))
    assert terms.carbon.item() == pytest.approx(0.1 * 0.45 * 150)
    assert terms.shortfall.item() == pytest.approx(10.0)


def test_exports_earn_nothing_and_do_not_pay_for_a_neighbour():
    assert _bill([100.0, -500.0]).energy.item() == pytest.approx(30.0)
    assert all(term.item() == 0 for term in _bill([-500.0]))


def test_weights_leave_out_what_a_preset_does_not_reward():
    terms = _bill([100.0], missing=1.0)
    co2 = terms.weighted(Objective(TARIFF, ObjectiveSettings(preset="co2")).weights)
    assert co2.item() == pytest.approx(terms.carbon.item() + terms.shortfall.item())
    assert terms.weighted(Weights(1, 1, 1, 1)).item() == pytest.approx(sum(term.item() for term in terms))


def test_a_folder_without_tariff_has_no_demand_charge(tmp_path):
    assert read_tariff(tmp_path) == Tariff()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        (json.dumps({"demand_charge_peak": -1}), "demand_charge_peak: Input should be greater than or equal to 0"),
        (json.dumps({"peak_hours": [24]}), "peak_hours: 0: Input should be less than or equal to 23"),
    ],
)
def test_a_broken_tariff_is_refused_in_one_sentence(tmp_path, content, message):
    (tmp_path / "tariff.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"tariff\.json") as error:
        read_tariff(tmp_path)
    assert message in str(error.value)
