"""The batched physics against CityLearn itself, and against itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live
from precision import needs_double
from schemas import Features, write_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Charger, Floats, Site
from iquitos_rl.envs.district import curves, physics
from iquitos_rl.envs.district.chargers import make_chargers, request_fast
from iquitos_rl.envs.district.physics import Physics
from iquitos_rl.envs.district.states import named_tensors
from iquitos_rl.errors import UserError

ROWS = 100
TO_THE_BIT = 1e-12
"""CityLearn takes square roots with `pow`, whose last bit may differ: an emptied battery may then keep 1e-16 of SOC."""
CLOSE = 2e-5


def draw_actions(site: Site, seed: int, steps: int) -> tuple[Floats, Floats]:
    """(steps, B) and (steps, N): random, nothing, everything, and the edges of the deadbands."""
    rng = np.random.default_rng(seed)
    batteries = rng.uniform(-1, 1, (steps, len(site.buildings)))
    sockets = rng.uniform(-1, 1, (steps, len(site.sockets)))
    for actions in (batteries, sockets):
        kind = rng.random(actions.shape)
        actions[kind < 0.1] = 0.0
        extreme = (kind >= 0.1) & (kind < 0.3)
        actions[extreme] = np.sign(actions[extreme])
    for n, (b, charger) in enumerate(site.sockets):
        for full, least, sign in (
            (charger.max_charging_power, charger.min_charging_power, 1),
            (charger.max_discharging_power, charger.min_discharging_power, -1),
        ):
            if least > 0 and full > 0:
                at = rng.random(steps) < 0.1
                edge = np.float32(min(least / full, 1.0))
                near = [np.nextafter(edge, np.float32(0)), edge, np.nextafter(edge, np.float32(2))]
                # What a connection's limits scale has been rounded before it meets the deadband again.
                near = [edge * 0.999, edge * 1.001] if site.buildings[b].service else near
                sockets[at, n] = sign * rng.choice(near, at.sum())
    # Single precision holds these numbers too, so that both modes and CityLearn decide on the same requests.
    return batteries.astype(np.float32).astype(np.float64), sockets.astype(np.float32).astype(np.float64)


def both(values: Floats) -> torch.Tensor:
    """The same actions for two environments."""
    return torch.tensor(np.tile(values, (2, 1)))


@needs_double
@pytest.mark.parametrize("seed", range(24))
def test_agrees_with_citylearn(tmp_path: Path, seed: int) -> None:
    """Exact mode: every SOC to the bit, net within 2 units in the last place. Fast mode: close."""
    folder = write_schema(tmp_path, seed, Features(rows=ROWS))
    site = read_site(folder)
    live, exact, fast = Live(folder, site), Physics([site], 2, exact=True), Physics([site], 2)
    batteries, sockets = draw_actions(site, seed, ROWS - 1)
    peak = max(1.0, *(float(np.abs(building.load - building.pv).max()) for building in site.buildings))
    with_battery = np.array([building.battery is not None for building in site.buildings])
    for t in range(ROWS - 1):
        names = [None if c.vehicle[t] < 0 else site.vehicles[c.vehicle[t]].name for _, c in site.sockets]
        assert live.connected() == names
        for engine, tolerance in ((exact, TO_THE_BIT), (fast, CLOSE)):
            assert np.abs(engine.socket_soc[1].numpy() - live.socket_soc()).max(initial=0) <= tolerance
            error = np.abs(engine.state.battery_soc[1].numpy() - live.battery_soc())
            assert error[with_battery].max(initial=0) <= tolerance
        live.step(batteries[t], sockets[t])
        flows = exact.step(both(batteries[t]), both(sockets[t]))
        net = live.net(t)
        assert (np.abs(flows.net[1].numpy() - net) <= 2 * np.spacing(np.abs(net))).all()
        assert np.allclose(flows.socket_soc[1].numpy(), live.socket_soc(t), rtol=0, atol=TO_THE_BIT)
        assert np.allclose(flows.socket_kwh[1].numpy(), live.socket_kwh(t), rtol=0, atol=TO_THE_BIT)
        flows = fast.step(both(batteries[t]), both(sockets[t]))
        assert np.abs(flows.net[1].numpy() - net).max() <= CLOSE * peak
        assert np.abs(flows.socket_soc[1].numpy() - live.socket_soc(t)).max(initial=0) <= CLOSE
    degraded = np.array([building.electrical_storage.degraded_capacity for building in live.env.buildings])
    for engine, tolerance in ((exact, 1e-14), (fast, 1e-5)):
        kept = engine.state.battery_degraded
        ours = (kept if engine.exact else (1 - kept) * engine.battery.capacity)[0].numpy()
        assert np.allclose(ours[with_battery], degraded[with_battery], rtol=tolerance)


def test_the_random_schemas_reach_every_feature(tmp_path: Path) -> None:
    """What the comparison above is worth depends on what it meets."""
    sites = [read_site(write_schema(tmp_path / str(seed), seed, Features(rows=ROWS))) for seed in range(24)]
    buildings = [building for site in sites for building in site.buildings]
    chargers = [charger for site in sites for _, charger in site.sockets]
    services = [building.service.kind for building in buildings if building.service is not None]
    assert {"electrical_service", "charging_constraints"} <= set(services)
    assert {site.seconds_per_time_step for site in sites} == {900, 3600}
    assert {len(site.buildings) for site in sites} == {1, 2, 3}
    assert any(not site.sockets for site in sites)
    assert any(building.battery is None for building in buildings)
    assert any(building.battery is not None and not building.battery_action for building in buildings)
    assert any(building.chargers and not building.socket_action for building in buildings)
    assert any(charger.min_charging_power > 0 for charger in chargers)
    assert any(charger.charge_efficiency_curve is not None for charger in chargers)
    roams = [physics.own_vehicles(physics.vehicle_rows(site), len(site.vehicles)) is None for site in sites]
    assert True in roams
    assert False in roams


@needs_double
@pytest.mark.parametrize("seed", range(3))
def test_the_last_row_has_a_state(tmp_path: Path, seed: int) -> None:
    """CityLearn never reaches the last row; simulated one row longer, it shows the state that we give for it."""
    features = Features(rows=31, offset=0, roaming=0, sockets=(2, 5))
    long = write_schema(tmp_path / "long", seed, features)
    schema = (long / "schema.json").read_text(encoding="utf-8")
    short = tmp_path / "short"
    short.mkdir()
    for file in long.iterdir():
        (short / file.name).write_bytes(file.read_bytes())
    (short / "schema.json").write_text(
        schema.replace('"simulation_end_time_step": 30', '"simulation_end_time_step": 29'), encoding="utf-8"
    )
    site = read_site(short)
    assert site.rows == 30
    engine, live = Physics([site], 2, exact=True), Live(long, read_site(long))
    batteries, sockets = draw_actions(site, seed, 29)
    for t in range(29):
        engine.step(both(batteries[t]), both(sockets[t]))
        live.step(batteries[t], sockets[t])
    assert engine.state.row.tolist() == [29, 29]
    assert np.allclose(engine.socket_soc[0].numpy(), live.socket_soc(), rtol=0, atol=TO_THE_BIT)
    with_battery = [building.battery is not None for building in site.buildings]
    error = np.abs(engine.state.battery_soc[0].numpy() - live.battery_soc())
    assert error[with_battery].max(initial=0) <= TO_THE_BIT


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> list[Site]:
    """Two data years of one structure."""
    folder = tmp_path_factory.mktemp("years")
    first = write_schema(folder / "1", 5, Features(rows=40, buildings=(2, 2), sockets=(4, 4), roaming=0, offset=0))
    second = folder / "2"
    second.mkdir()
    for file in first.iterdir():
        content = file.read_bytes()
        if file.name.startswith("charger_"):  # the same visits, three rows later
            lines = content.splitlines(keepends=True)
            content = b"".join([lines[0], *[b"3,,,,,\r\n"] * 3, *lines[1:-3]])
        (second / file.name).write_bytes(content)
    loads = second / "Building_1.csv"
    loads.write_text(loads.read_text(encoding="utf-8").replace("2", "3"), encoding="utf-8")
    return [read_site(first), read_site(second)]


@pytest.mark.parametrize("exact", [True, False])
def test_environments_do_not_touch_each_other(years: list[Site], exact: bool) -> None:
    """Each of E environments, at its own row of its own year, moves as it would alone."""
    rows, scenarios = torch.tensor([0, 7, 20, 11]), torch.tensor([0, 1, 1, 0])
    together = Physics(years, 4, exact=exact)
    together.reset(rows, scenarios)
    alone = [Physics(years, 1, exact=exact) for _ in range(4)]
    for e, engine in enumerate(alone):
        engine.reset(rows[e : e + 1], scenarios[e : e + 1])
    for k in range(15):
        batteries, sockets = draw_actions(years[0], k, 4)
        flows = together.step(torch.tensor(batteries), torch.tensor(sockets))
        for e, engine in enumerate(alone):
            own = engine.step(torch.tensor(batteries[e : e + 1]), torch.tensor(sockets[e : e + 1]))
            for ours, theirs in zip(named_tensors(flows).values(), named_tensors(own).values()):
                torch.testing.assert_close(ours[e : e + 1], theirs, rtol=1e-6, atol=1e-6)
            assert torch.equal(together.table_row[e : e + 1], engine.table_row)


def test_restart_leaves_the_others_alone(years: list[Site]) -> None:
    engine = Physics(years, 3)
    for k in range(5):
        batteries, sockets = draw_actions(years[0], k, 3)
        engine.step(torch.tensor(batteries), torch.tensor(sockets))
    before = engine.state
    done, row, scenario = torch.tensor([False, True, False]), torch.tensor([9, 3, 9]), torch.tensor([1, 1, 1])
    engine.state = engine.restarted(engine.state, done, row, scenario)
    fresh = Physics(years, 1)
    fresh.reset(torch.tensor([3]), torch.tensor([1]))
    for after, old, new in zip(*(named_tensors(state).values() for state in (engine.state, before, fresh.state))):
        assert torch.equal(after[[0, 2]], old[[0, 2]])
        assert torch.equal(after[1], new[0])


def test_keeping_to_one_socket_is_only_a_short_cut(years: list[Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every vehicle has its own socket nothing is gathered or scattered, and nothing changes."""
    kept = Physics(years, 2, exact=True)
    assert kept.roaming is None
    monkeypatch.setattr(physics, "own_vehicles", lambda vehicle, count: None)
    roaming = Physics(years, 2, exact=True)
    assert roaming.roaming is not None
    batteries, sockets = draw_actions(years[0], 0, years[0].rows - 1)
    for t in range(years[0].rows - 1):
        assert torch.equal(kept.socket_soc, roaming.socket_soc)
        flows = [engine.step(both(batteries[t]), both(sockets[t])) for engine in (kept, roaming)]
        assert all(torch.equal(a, b) for a, b in zip(*(named_tensors(flow).values() for flow in flows)))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("seed", [0, 3, 13])
def test_a_step_reads_nothing_back_from_the_device(tmp_path: Path, seed: int, exact: bool) -> None:
    """Tensors without data have no values to look at: whatever looks raises. So a step can be captured and compiled."""
    site = read_site(write_schema(tmp_path, seed, Features(rows=20)))
    engine = Physics([site], 4, device="meta", exact=exact)
    shape = (4, len(site.buildings)), (4, len(site.sockets))
    flows = engine.step(*(torch.zeros(s, device="meta") for s in shape))
    assert flows.net.shape == shape[0]
    assert flows.socket_soc.shape == shape[1]
    state = engine.state
    engine.restarted(state, torch.zeros(4, dtype=torch.bool, device="meta"), state.row, state.scenario)


def test_refuses_years_of_different_sites(tmp_path: Path) -> None:
    features = Features(rows=20, buildings=(1, 1), sockets=(1, 1))
    a, b = (read_site(write_schema(tmp_path / str(seed), seed, features)) for seed in (1, 2))
    with pytest.raises(UserError, match=r"they differ in site\."):
        Physics([a, b], 1)
    with pytest.raises(UserError, match="no site"):
        Physics([], 1)


@settings(deadline=None, max_examples=200)
@given(st.floats(0.5, 100), st.floats(0.001, 1.2), st.integers(-2, 2), st.sampled_from([-1, 1]))
def test_single_precision_decides_on_a_deadbands_edge_as_citylearn_does(
    full: float, share: float, steps: int, sign: int
) -> None:
    """The edge itself and the nearest numbers on both sides."""
    from citylearn.electric_vehicle_charger import Charger as Theirs

    least = share * full
    own = Charger(
        name="c",
        efficiency=1.0,
        charge_efficiency_curve=None,
        discharge_efficiency_curve=None,
        max_charging_power=full,
        min_charging_power=least,
        max_discharging_power=full,
        min_discharging_power=least,
        phase_connection=None,
        vehicle=np.zeros(1, dtype=np.int64),
        departure=np.zeros(1),
        required_soc=np.zeros(1),
        arrival_soc=np.zeros(1),
        departs=np.zeros(1, dtype=np.bool_),
    )
    action = np.float32(min(share, 1.0))
    for _ in range(abs(steps)):
        action = np.nextafter(action, np.float32(np.sign(steps)))
    expected = Theirs._deadband_power_kw(float(action), full, least)
    engine = make_chargers([own], torch.float32, torch.device("cpu"))
    power = request_fast(engine, torch.tensor([[sign * action]])).item()
    assert power == pytest.approx(sign * expected, rel=1e-6)


KNOTS = st.lists(st.tuples(st.integers(0, 50), st.floats(0, 2)), min_size=2, max_size=6, unique_by=lambda knot: knot[0])


@settings(deadline=None, max_examples=60)
@given(st.lists(KNOTS, min_size=1, max_size=4), st.floats(-0.2, 1.2))
def test_curves_of_any_length_in_one_stack(knots: list[list[tuple[int, float]]], q: float) -> None:
    """Both evaluations equal a curve at a time, inside its knots and beyond."""
    own = [np.array(sorted(curve), dtype=np.float64).T / np.array([[50.0], [1.0]]) for curve in knots]
    where = torch.device("cpu")
    stacked = curves.make_curves(own, torch.float64, where)
    argument = torch.full((1, len(own)), q, dtype=torch.float64)
    for curve, exact, fast, exact_bounded, fast_bounded in zip(
        own,
        *(
            evaluate(stacked, argument)[0].expand(len(own)).tolist()
            for evaluate in (curves.exact, curves.fast, curves.exact_bounded, curves.fast_bounded)
        ),
    ):
        k = int(np.clip(np.searchsorted(curve[0], q, side="left") - 1, 0, curve.shape[1] - 2))
        slope = (curve[1, k + 1] - curve[1, k]) / (curve[0, k + 1] - curve[0, k])
        value = curve[1, k] + slope * (q - curve[0, k])
        assert exact == pytest.approx(value, abs=1e-9)
        assert fast == pytest.approx(value, abs=1e-9)
        assert exact_bounded == pytest.approx(np.interp(q, *curve), abs=1e-9)
        assert fast_bounded == pytest.approx(np.interp(q, *curve), abs=1e-9)
