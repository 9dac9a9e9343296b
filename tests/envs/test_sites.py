"""Our sites by gymnasium's id are our sites."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from iquitos_rl import A2C
from iquitos_rl.agents import A2CConfig
from iquitos_rl.envs import CityLearnSite, DistrictSite, DistrictVectorEnv
from iquitos_rl.errors import UserError

ID = "iquitos_rl/Site-v0"


def test_one_site_is_citylearns(week_38: Path) -> None:
    env, plain = gymnasium.make(ID, case=week_38), CityLearnSite([week_38])
    obs, expected = env.reset(seed=0)[0], plain.reset(seed=0)[0]
    for t in range(5):
        assert np.array_equal(obs, expected)
        action = np.full(env.action_space.shape or (), 0.1 * t, np.float32)
        obs, expected = env.step(action)[0], plain.step(action)[0]
    agent = A2C(env, A2CConfig(hidden=(8,))).learn(10)
    assert agent.spec.environment, "the description is found through gymnasium's wrappers"


def test_many_sites_are_the_district_engines(week_38: Path) -> None:
    if gymnasium.__version__.startswith("0."):
        how: Any = {"vectorization_mode": "custom", "vector_kwargs": {"case": week_38}}
    else:
        how = {"vectorization_mode": "vector_entry_point", "case": week_38}
    env: Any = gymnasium.make_vec(ID, num_envs=3, **how)
    plain = DistrictVectorEnv(DistrictSite([week_38], 3))
    assert isinstance(env.unwrapped, DistrictVectorEnv)
    assert np.array_equal(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    action = np.full(env.action_space.shape, 0.3, np.float32)
    for one, other in zip(env.step(action)[:4], plain.step(action)[:4]):
        assert np.array_equal(one, other)


def test_what_is_no_case_is_one_sentence(tmp_path: Path, week_38: Path) -> None:
    with pytest.raises(UserError, match=r"neither a folder with a schema.json nor a preset: there are iquitos-128"):
        gymnasium.make(ID, case=tmp_path)
    with pytest.raises(UserError, match=r"socket: .* TaskSettings has"):
        gymnasium.make(ID, case=week_38, socket="each")


@pytest.mark.parametrize("order", ["import gymnasium, iquitos_rl", "from iquitos_rl import SAC; import gymnasium"])
def test_importing_the_package_is_enough(order: str) -> None:
    code = f"{order}; assert '{ID}' in gymnasium.registry"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
