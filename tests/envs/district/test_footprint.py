"""The memory that is stated is the memory that is held, and stepping takes no more."""

from __future__ import annotations

import gc

import pytest
import torch
from thermal_schemas import write_thermal_schema

from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.district.footprint import footprint, storages


def alive() -> int:
    """Bytes of every tensor in this process."""
    gc.collect()
    return sum(storages([thing for thing in gc.get_objects() if type(thing) is torch.Tensor]).values())


def stepped(folder, num_envs):
    """An engine after the first step that ends an episode, and actions for it."""
    env = DistrictSite([folder], num_envs, starts="random", episode_steps=24)
    env.reset(seed=0)
    action = torch.zeros(num_envs, env.action_dim)
    while not env.step(action).truncated.any():
        pass
    return env, action


def test_every_byte_is_counted(week_38):
    before = alive()
    env, action = stepped(week_38, 16)
    held = alive() - before - action.nbytes
    found = footprint(env)
    assert found.per_env * 16 + found.shared - env.steps_left.nbytes == held
    assert footprint(stepped(week_38, 48)[0]) == found


def test_the_state_is_about_what_the_planner_is_told(week_38):
    env, _ = stepped(week_38, 16)
    assert env.state_bytes == pytest.approx(footprint(env).per_env, rel=0.02)


@pytest.mark.parametrize(("networks", "occupants"), [(True, False), (False, False), (True, True)])
def test_the_state_of_thermal_devices_is_about_what_the_planner_is_told(tmp_path, networks, occupants):
    env, _ = stepped(write_thermal_schema(tmp_path, 1, networks, occupants=occupants), 16)
    assert env.state_bytes == pytest.approx(footprint(env).per_env, rel=0.05)


@pytest.mark.parametrize("num_envs", [1, 32])
def test_stepping_takes_no_more_memory(week_38, num_envs):
    env, action = stepped(week_38, num_envs)
    found, most = footprint(env), alive()
    for _ in range(60):  # past the end of every episode
        env.step(action)
        assert footprint(env) == found
    assert alive() <= most
