"""Let a controller run a site for a year on CityLearn, write down every hour, and audit the energy balance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from iquitos_rl.baselines.controller import Controller
from iquitos_rl.cases.site import Bools, Floats, Site
from iquitos_rl.envs.citylearn.env import CityLearnSite, Flows
from iquitos_rl.errors import Failure
from iquitos_rl.judging.kpis import Series
from iquitos_rl.judging.series import Indoors, indoors, simulated_series

BALANCE_TOLERANCE_KWH = 1e-3


class AuditError(Failure):
    """A simulated year contradicts itself: its figures must not be published."""

    prefix = "audit failed"


@dataclass(frozen=True)
class Year:
    """Every hour of one simulated year, K = T - 1 steps."""

    site: Site
    flows: Flows
    """Each field (K, ...) over the hours."""
    actions: Floats
    """(K, A) as the controller gave them."""
    info: dict[str, Floats]
    """Name to (K,): the money, energy and carbon of each step, see `CityLearnSite`."""
    reward: Floats
    """(K,)."""
    series: Series | None = None
    """What KPIs are computed from; None where CityLearn cannot work out its baseline."""
    inside: Indoors | None = None
    """None where no temperature is simulated."""

    @property
    def hours(self) -> int:
        return len(self.reward)

    @property
    def balance_residual_kwh(self) -> float:
        """Largest over hours and buildings, see `balance_residual`."""
        return float(np.abs(balance_residual(self.site, self.flows)).max(initial=0.0))


def unmetered(site: Site, flows: Flows) -> Floats:
    """(K, B) kWh that came from PV and battery and that nothing used.

    net - (load - PV + battery + other + appliances + sockets)
    """
    building = np.array([b for b, _ in site.sockets], dtype=np.int64)
    vehicles = np.zeros_like(flows.net)
    for b in range(len(site.buildings)):
        vehicles[..., b] = flows.sockets[..., building == b].sum(-1)
    used = flows.load + flows.other + flows.appliances + vehicles
    return np.asarray(flows.net - (used - flows.pv + flows.battery))


def outages(site: Site, rows: int) -> Bools:
    """(K, B) whether a building has no grid."""
    without = np.zeros(rows, dtype=bool)
    return np.stack([without if b.outage is None else b.outage[:rows] for b in site.buildings], axis=-1)


def curtailed(site: Site, flows: Flows) -> Floats:
    """(K, B) kWh of PV that is lost in outages, since it can go nowhere."""
    return unmetered(site, flows) * outages(site, len(flows.net))


def balance_residual(site: Site, flows: Flows) -> Floats:
    """(K, B) kWh by which the meter is off; in an outage, by which a building used more than its PV and battery gave.

    A building without the grid may leave PV unused, see `curtailed`.
    """
    residual = unmetered(site, flows)
    return np.where(outages(site, len(residual)), residual.clip(max=0), residual)


def simulate_year(
    env: CityLearnSite, controller: Controller, year: int = 0, on_hour: Callable[[int], None] | None = None
) -> Year:
    """Run a controller from the first hour of a year to the last.

    Args:
        on_hour: called with the number of hours done, for a progress bar.

    Raises:
        AuditError: at some hour the energies that CityLearn booked do not add up to within 1e-3 kWh.
    """
    obs, _ = env.reset(options={"year": year})
    steps: list[tuple[Flows, Floats, dict[str, float], float]] = []
    site, ended = env.task.sites[year], False
    while not ended:
        action = controller(obs)
        obs, reward, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        assert env.flows is not None
        steps.append((env.flows, np.asarray(action, dtype=np.float64), info, reward))
        if on_hour is not None:
            on_hour(len(steps))
    booked, actions, infos, rewards = zip(*steps)
    flows = Flows(*map(np.stack, zip(*booked)))
    residual = np.abs(balance_residual(site, flows))
    wrong = ~(residual <= BALANCE_TOLERANCE_KWH)  # also true of NaN
    if wrong.any():
        hour, b = np.argwhere(wrong)[0]
        name, excess = site.buildings[b].name, residual[hour, b]
        raise AuditError(f"hour {hour}, {name}: the energy balance is off by {excess:.6g} kWh")
    info = {name: np.array([info[name] for info in infos]) for name in infos[0]}
    try:
        series = simulated_series(env.simulator)
    except TypeError:
        series = None
    simulated = any(b.dynamics is not None for b in site.buildings)
    inside = indoors(env.simulator, len(steps)) if simulated else None
    return Year(site, flows, np.stack(actions), info, np.array(rewards), series, inside)
