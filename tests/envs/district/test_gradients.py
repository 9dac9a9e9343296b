"""Autograd through the engine against finite differences in float64, device by device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.settings import ObjectiveSettings
from iquitos_rl.envs.task.site_task import TaskSettings

HOURS = 30
TERMS = ("energy_cost", "demand_cost", "carbon_cost", "shortfall_cost", "comfort_cost")


def doubled(thing, seen=None):
    """Every float32 tensor that an engine holds in float64, in place, so that differences are not rounded away."""
    seen = set() if seen is None else seen
    if isinstance(thing, torch.Tensor):
        return thing.double() if thing.dtype == torch.float32 else thing
    if thing is torch.float32:
        return torch.float64
    if isinstance(thing, tuple):
        parts = [doubled(part, seen) for part in thing]
        return type(thing)(*parts) if hasattr(thing, "_fields") else tuple(parts)
    if isinstance(thing, list):
        thing[:] = [doubled(part, seen) for part in thing]
    elif type(thing).__module__.startswith("iquitos_rl.envs") and id(thing) not in seen and hasattr(thing, "__dict__"):
        seen.add(id(thing))
        for name, part in vars(thing).items():
            vars(thing)[name] = doubled(part, seen)
    return thing


def bill(env, actions):
    """The sum of the year's first terms (E,) of actions (K, E, A), in float64."""
    obs, state = env.reset(seed=0), env.physics.state
    del obs
    env.physics.state = doubled(state)
    env._peak, env._net, env._now = doubled((env._peak, env._net, env._now))
    total = 0.0
    for action in actions:
        step = env.step(action)
        total = total + sum(step.info[term].double() for term in TERMS if term in step.info)
    return total


def kind(folder, name):
    """A site with one kind of device alone."""
    networks = name == "networks"
    site = read_site(write_thermal_schema(folder, {"networks": 8}.get(name, 4), networks=networks, outages=False))
    if name != "sockets":
        bare = [replace(b, chargers=(), service=None) for b in site.buildings]
        site = replace(site, buildings=tuple(bare), vehicles=(), drift=None)
    if name in ("tanks", "networks"):
        site = replace(site, buildings=tuple(replace(b, battery=None, battery_action=False) for b in site.buildings))
    if name == "batteries":
        site = replace(site, buildings=tuple(replace(b, end_uses=(), dynamics=None) for b in site.buildings))
    return site


@pytest.mark.parametrize(
    ("name", "step", "close"),
    [("batteries", 1e-6, 1e-4), ("tanks", 1e-6, 1e-4), ("sockets", 1e-6, 1e-4), ("networks", 1e-3, 1e-2)],
)
def test_the_gradient_is_that_of_finite_differences(tmp_path, name, step, close):
    """Along random directions. At a kink the slopes of the two sides differ, and autograd's is one of them or between
    them, so the median must agree with one side. Networks read single precision: a larger step, and less close."""
    site = kind(tmp_path / "site", name)
    task = TaskSettings(sockets="each", objective=ObjectiveSettings(preset="comfort" if name == "networks" else "bill"))
    env = doubled(DistrictSite([site], 1, task))
    rng = np.random.default_rng(1)
    assert env.action_dim > 0
    actions = torch.from_numpy(rng.uniform(-0.3, 0.3, (HOURS, 1, env.action_dim))).requires_grad_()
    (gradient,) = torch.autograd.grad(bill(env, actions).sum(), actions)
    assert gradient.abs().max() > 0
    errors = []
    with torch.no_grad():
        here = float(bill(env, actions).sum())
        for _ in range(12):
            along = torch.from_numpy(rng.standard_normal(actions.shape))
            more, less = (float(bill(env, actions + sign * step * along).sum()) for sign in (1, -1))
            slope, ahead, behind = float((gradient * along).sum()), (more - here) / step, (here - less) / step
            errors.append(min(abs(slope - ahead), abs(slope - behind)) / max(abs(slope), 1e-3))
    assert np.median(errors) < close, errors
