"""Training that starts with a policy: its networks and its view of a site are taken over, and nothing else."""

from __future__ import annotations

import pytest
import torch
from sites import generated_site

from iquitos_rl import PPO, SAC
from iquitos_rl.agents.ppo import PPOConfig
from iquitos_rl.agents.start import policy_folder, start_from, start_spec
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.errors import UserError

SMALL = PPOConfig(hidden=(8,), horizon=8)


@pytest.fixture(scope="module")
def years(tmp_path_factory):
    """Two years of one site, and another site."""
    folder = tmp_path_factory.mktemp("years")
    features = {"buildings": (1, 1), "sockets": (2, 2), "blank_soc": 0.0, "roaming": 0.0}
    return [generated_site(folder / str(seed), seed, **features) for seed in (3, 5)]


@pytest.fixture(scope="module")
def run(years, tmp_path_factory):
    """A run's folder with a policy that has learned a little."""
    folder = tmp_path_factory.mktemp("run")
    agent = PPO(DistrictSite([years[0]], 2), SMALL, seed=1)
    agent.learn(32)
    agent.save_policy(folder / "policy")
    return folder


def test_the_networks_are_the_policys_and_the_optimiser_is_fresh(years, run):
    spec = start_spec(run)
    env = DistrictSite([years[0]], 2, spec=spec)
    agent = PPO(env, SMALL, seed=7)
    before = {name: x.clone() for name, x in agent.networks.state_dict().items()}
    start_from(agent, run)
    policy = PPO.load(run / "policy")
    for name, tensor in policy.networks.state_dict().items():
        assert torch.equal(agent.networks.state_dict()[name], tensor)
    assert any(not torch.equal(before[name], x) for name, x in policy.networks.state_dict().items())
    assert agent.steps == 0
    assert all(not own.state for own in agent.optimizers.values())
    assert env.policy_spec["encoding"] == spec["encoding"]
    assert env.policy_spec["reward_scale"] == spec["reward_scale"]
    agent.learn(16)
    assert policy_folder(run) == policy_folder(run / "policy") == run / "policy"


def test_what_does_not_fit_is_one_sentence(years, run, tmp_path):
    spec = start_spec(run)
    with pytest.raises(UserError, match="other sizes than the settings say"):
        start_from(PPO(DistrictSite([years[0]], 2, spec=spec), PPOConfig(hidden=(9,), horizon=8)), run)
    with pytest.raises(UserError, match="trained by ppo, not by sac"):
        start_from(SAC(DistrictSite([years[0]], 2, spec=spec)), run)
    other = generated_site(tmp_path / "other", 4, buildings=(2, 2), sockets=(1, 1))
    with pytest.raises(UserError, match="other observation columns"):
        DistrictSite([other], 2, spec=spec)
    with pytest.raises(UserError, match=r"policy\.json"):
        start_spec(tmp_path / "nothing")
