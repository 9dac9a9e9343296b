"""Nothing in the hot path waits for the device: no value is read back, no number is brought from the host.

On a GPU each such place stops the host until the device has done everything that was asked of it.
"""

from contextlib import contextmanager

import pytest
import torch
from cpu_graphs import waits
from scripted_env import ScriptedEnv
from torch.utils._python_dispatch import TorchDispatchMode

from iquitos_rl.agents import AGENTS
from iquitos_rl.buffers.rollout import FINAL_STEPS
from iquitos_rl.envs.district.env import DistrictSite

SETTINGS = {
    "sac": {"hidden": (8, 8), "batch_size": 32, "learning_starts": 32, "buffer_size": 300},
    "ppo": {"hidden": (8, 8), "batch_size": 16, "horizon": 8},
    "a2c": {"hidden": (8, 8), "horizon": 8},
}


class Watch(TorchDispatchMode):
    """Writes down the operations that would wait."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if waits(function, args):
            self.found.append(function._schema.name)
        return function(*args, **(kwargs or {}))


@contextmanager
def waiting(device="cpu"):
    """Yields the list of what waits. On a GPU PyTorch watches too, and raises."""
    found = []
    with Watch(found), pytest.MonkeyPatch.context() as patch:
        for name in ("tolist", "numpy", "cpu"):  # which on a CPU come to no operation
            own = getattr(torch.Tensor, name)
            patch.setattr(torch.Tensor, name, lambda *args, own=own: (found.append(own.__name__), own(*args))[1])
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield found
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def set_masked(x):
    x[x > 0] = 2.0


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x[0]),
        lambda x: bool(x.all()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        set_masked,
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x + torch.tensor(2.0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.numpy(),
    ],
)
def test_what_waits_is_noticed(read):
    x = torch.ones(3)
    with waiting() as found:
        read(x)
    assert found


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_updates_of_sac_do_not_wait(masked, n_step, device):
    entry = AGENTS["sac"]
    config = entry.config(**SETTINGS["sac"], n_step=n_step, layer_norm=True)
    agent = entry.agent(ScriptedEnv(num_envs=4, masked=masked), config, device, seed=1).learn(80)
    before = agent.updates
    with waiting(device) as found:
        agent.train(20)
    assert agent.updates == before + 20
    assert found == []


@pytest.mark.parametrize(("name", "changes"), [("ppo", {"epochs": 1}), ("ppo", {"epochs": 10}), ("a2c", {})])
def test_on_policy_agents_wait_for_a_rollout_and_not_for_its_steps_and_updates(name, changes, week_38):
    """Twice at the end of a rollout, for three reports, and where the table of last observations may be full."""
    env = DistrictSite([week_38], 4)  # in 48 hours no episode ends
    agent = AGENTS[name].agent(env, AGENTS[name].config(**SETTINGS[name] | changes | {"horizon": 24}), seed=1)
    agent.learn(4 * 24)
    with waiting() as found:
        agent.learn(until=8 * 24)
    assert found.count("tolist") <= 3
    assert len(found) <= 3 + 2 + 24 // FINAL_STEPS
