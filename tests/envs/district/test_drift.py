"""Vehicles whose arrival SOC the files leave blank: CityLearn moves it by seeded draws while they are away."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live
from schemas import Features, write_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district.physics import Physics

ROWS = 80
BLANK = Features(rows=ROWS, sockets=(3, 6), blank_soc=0.6, inactive=0.2)
FAST = 1e-5


def actions(site: Site, seed: int) -> tuple[Floats, Floats]:
    """(T - 1, B) and (T - 1, N), a third of them nothing, in single precision."""
    rng = np.random.default_rng(seed)
    shapes = (ROWS - 1, len(site.buildings)), (ROWS - 1, len(site.sockets))
    batteries, sockets = (rng.uniform(-1, 1, shape) * (rng.random(shape) < 0.7) for shape in shapes)
    return batteries.astype(np.float32).astype(np.float64), sockets.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("seed", range(12))
def test_drifting_vehicles_arrive_as_in_citylearn(tmp_path: Path, seed: int) -> None:
    """Exact mode: every SOC at a socket to the bit. Fast mode: close. Both in the second episode too."""
    folder = write_schema(tmp_path, seed, BLANK)
    site = read_site(folder)
    assert site.drift is not None
    assert site.unsupported == ()
    exact, fast = Physics([site], 1, exact=True), Physics([site], 1)
    batteries, sockets = actions(site, seed)
    for _ in range(2):
        live = Live(folder, site)
        exact.reset()
        fast.reset()
        for t in range(ROWS - 1):
            expected = live.socket_soc()
            assert np.array_equal(exact.socket_soc[0].numpy(), expected)
            assert np.abs(fast.socket_soc[0].numpy() - expected).max() <= FAST
            live.step(batteries[t], sockets[t])
            for engine in (exact, fast):
                engine.step(torch.tensor(batteries[t : t + 1]), torch.tensor(sockets[t : t + 1]))


def test_the_random_schemas_reach_both_layouts(tmp_path: Path) -> None:
    """Vehicles that keep to one socket, and vehicles that roam, take different ways through the engine."""
    sites = [read_site(write_schema(tmp_path / str(seed), seed, BLANK)) for seed in range(12)]
    assert {Physics([site], 1).roaming is None for site in sites} == {True, False}
    assert any(vehicle.battery.depth_of_discharge < 1 for site in sites for vehicle in site.vehicles)


def test_other_seeds_and_years_drift_in_their_own_way(tmp_path: Path) -> None:
    """Years of one site may differ in it, and a year without blanks leaves nobody to drift."""
    features = Features(rows=ROWS, sockets=(3, 3), buildings=(1, 1), roaming=0, offset=0, blank_soc=0.6)
    folder = write_schema(tmp_path / "a", 4, features)
    other = write_schema(tmp_path / "b", 4, features)
    for name in ("charger_0.csv", "charger_1.csv", "charger_2.csv"):
        (other / name).write_text("".join([(other / name).read_text().splitlines(keepends=True)[0], "3,,,,,\n" * 90]))
    a, b = read_site(folder), read_site(other)
    assert b.drift is None
    together, alone = Physics([a, b], 2, exact=True), Physics([a], 1, exact=True)
    together.reset(torch.tensor([0, 0]), torch.tensor([0, 1]))
    for t in range(ROWS - 1):
        nothing = torch.zeros(2, 1), torch.zeros(2, 3)
        together.step(*nothing)
        alone.step(*(part[:1] for part in nothing))
        assert torch.equal(together.socket_soc[:1], alone.socket_soc), t
        assert not together.socket_soc[1].any()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), blank=st.floats(0.05, 1))
def test_any_schedule_with_blanks(tmp_path_factory: pytest.TempPathFactory, seed: int, blank: float) -> None:
    features = Features(rows=30, sockets=(1, 5), blank_soc=blank)
    folder = write_schema(tmp_path_factory.mktemp("drift"), seed, features)
    site = read_site(folder)
    live, engine = Live(folder, site), Physics([site], 1, exact=True)
    for _ in range(29):
        assert np.array_equal(engine.socket_soc[0].numpy(), live.socket_soc())
        live.step(np.zeros(len(site.buildings)), np.ones(len(site.sockets)))
        engine.step(torch.zeros(1, len(site.buildings)), torch.ones(1, len(site.sockets)))


@pytest.mark.parametrize("exact", [True, False])
def test_a_step_with_drift_reads_nothing_back_from_the_device(tmp_path: Path, exact: bool) -> None:
    """Tensors without data have no values to look at: whatever looks raises."""
    site = read_site(write_schema(tmp_path, 0, BLANK))
    engine = Physics([site], 4, device="meta", exact=exact)
    assert engine.drift is not None
    engine.step(torch.zeros(4, len(site.buildings), device="meta"), torch.zeros(4, len(site.sockets), device="meta"))
