"""Nothing in the hot path waits for the device: no value is read back, no number is brought from the host.

On a GPU each such place stops the host until the device has done everything that was asked of it.
"""

import pytest
import torch
from cpu_graphs import REFUSED
from scripted_env import ScriptedEnv
from torch.utils._python_dispatch import TorchDispatchMode

from iquitos_rl.agents import AGENTS
from iquitos_rl.buffers.rollout import FINAL_STEPS
from iquitos_rl.envs.district import DistrictSite

SETTINGS = {
    "sac": {"hidden": (8, 8), "batch_size": 32, "learning_starts": 32, "buffer_size": 300},
    "ppo": {"hidden": (8, 8), "batch_size": 16, "horizon": 8},
    "a2c": {"hidden": (8, 8), "horizon": 8},
}


class Waits(TorchDispatchMode):
    """Counts the operations that would wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name in REFUSED:
            self.found.append(function._schema.name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "read", [float, bool, torch.Tensor.nonzero, lambda x: x[x > 0], lambda x: x + torch.tensor(2.0)]
)
def test_what_waits_is_noticed(read):
    x = torch.ones(())
    with Waits() as waits:
        read(x)
    assert waits.found


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_updates_of_sac_do_not_wait(masked, n_step):
    entry = AGENTS["sac"]
    config = entry.config(**SETTINGS["sac"], n_step=n_step, layer_norm=True)
    agent = entry.agent(ScriptedEnv(num_envs=4, masked=masked), config, seed=1).learn(80)
    before = agent.updates
    with Waits() as waits:
        agent.train(20)
    assert agent.updates == before + 20
    assert waits.found == []


@pytest.mark.parametrize(("name", "changes"), [("ppo", {"epochs": 1}), ("ppo", {"epochs": 10}), ("a2c", {})])
def test_on_policy_agents_wait_for_a_rollout_and_not_for_its_steps_and_updates(name, changes, week_38):
    """Twice at the end of a rollout, and whenever the table of final observations might be full."""
    env = DistrictSite([week_38], 4)  # in 48 hours no episode ends
    agent = AGENTS[name].agent(env, AGENTS[name].config(**SETTINGS[name] | changes | {"horizon": 24}), seed=1)
    agent.learn(4 * 24)
    with Waits() as waits:
        agent.learn(8 * 24)
    assert len(waits.found) <= 2 + 24 // FINAL_STEPS
