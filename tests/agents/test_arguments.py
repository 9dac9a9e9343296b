"""Whatever is given to a constructor or a method is right, or one sentence says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from toy import ToyBattery

from iquitos_rl.agents import A2C, AGENTS, PPO, SAC, A2CConfig, PPOConfig, RecurrentPPOConfig, SACConfig, load_agent
from iquitos_rl.errors import UserError

CONFIGS: dict[str, Any] = {
    "sac": SACConfig(hidden=(8,), batch_size=8, learning_starts=10, buffer_size=500),
    "ppo": PPOConfig(hidden=(8,), horizon=10, batch_size=10, epochs=1),
    "a2c": A2CConfig(hidden=(8,)),
    "recurrent_ppo": RecurrentPPOConfig(memory=6, hidden=(8,), horizon=10, sequence=5, batch_size=10, epochs=2),
}
every = pytest.mark.parametrize("name", CONFIGS)


def make(name: str, env: Any = None, **changes: Any) -> Any:
    return AGENTS[name].agent(ToyBattery() if env is None else env, CONFIGS[name], **changes)


def sentence(text: str) -> Any:
    """A UserError of one line."""
    return pytest.raises(UserError, match=rf"(?s)\A(?!.*\n).*{text}")


@every
@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), 3.0, True, -1, 1.5, "3", 2**70, float("nan")])
def test_seeds(name: str, seed: Any) -> None:
    if isinstance(seed, np.integer) or seed == 3:
        assert make(name, seed=seed).seed == 3
    else:
        with sentence("seed must be a whole number"):
            make(name, seed=seed)


@every
def test_no_seed_draws_one_that_can_be_used_again(name: str) -> None:
    one = make(name, seed=None)
    two, three = make(name, seed=one.seed), make(name, seed=None)
    assert torch.equal(*(torch.cat([p.flatten() for p in a.networks.parameters()]) for a in (one, two)))
    assert one.seed != three.seed


@every
def test_devices(name: str) -> None:
    assert make(name, device="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert make(name, device=torch.device("cpu")).device.type == "cpu"
    for wrong in ("gpu", "", None, 3.5, ["cpu"]):
        with sentence("device must be cpu, cuda, cuda:0 or auto, not"):
            make(name, device=wrong)
    if not torch.cuda.is_available():
        with sentence("PyTorch sees no CUDA device"):
            make(name, device="cuda")


@every
def test_configs(name: str) -> None:
    kind = AGENTS[name]
    other = CONFIGS["a2c" if name == "sac" else "sac"]
    for wrong in ({"gamma": 0.9}, other, kind.config, "default", 3):
        with sentence(f"config must be a {kind.config.__name__}, not"):
            kind.agent(ToyBattery(), wrong)


@every
@pytest.mark.parametrize("net", ["actor", "critic"])
def test_networks(name: str, net: str) -> None:
    for wrong in (torch.nn.Linear, "mlp", lambda x: x, [64, 64]):
        with sentence(f"{net} must be a torch.nn.Module, not"):
            make(name, **{net: wrong})


@every
def test_environments(name: str) -> None:
    for wrong in ("Pendulum-v1", None, 3, [], [3], ToyBattery, {"env": ToyBattery}, [lambda: 3]):
        with sentence("environment|cannot train on"):
            AGENTS[name].agent(wrong, CONFIGS[name])
    shared = ToyBattery()
    with sentence("returned the same environment"):
        make(name, [lambda: shared, lambda: shared])
    with sentence("spec must be a PolicySpec"):
        AGENTS[name].agent(None, CONFIGS[name], spec={"obs_dim": 3})


@every
def test_steps(name: str) -> None:
    agent = make(name)
    for wrong in (0, -5, 1.5, float("nan"), float("inf"), "100", True, [1]):
        with sentence("steps must be a whole number of at least 1"):
            agent.learn(wrong)
        with sentence("until must be a whole number of at least 1"):
            agent.learn(until=wrong)
    with sentence("learn needs steps, how many more, or until"):
        agent.learn()
    assert agent.steps == 0
    for right in (np.int64(20), 2e1, np.float32(20)):
        before = agent.steps
        assert agent.learn(right).steps == before + 20
    for wrong in (3, "print"):
        with sentence("on_log must be a function"):
            agent.learn(20, wrong)
        with sentence("on_step must be a function"):
            agent.learn(20, on_step=wrong)
        with sentence("callbacks must have on_step"):
            agent.learn(20, callbacks=[wrong])


@every
def test_observations_to_act_on(name: str) -> None:
    agent, env = make(name), ToyBattery()
    obs = env.reset()[0]
    for wrong in (
        env.reset(),
        None,
        {},
        "x",
        np.zeros(5),
        [1, 2],
        [[1], [2, 3]],
        np.full(4, np.nan),
        np.full(4, np.inf),
    ):
        with sentence("observation"):
            agent.predict(wrong)
    with sentence("predict has no argument state"):
        agent.predict(obs, state=None)
    agent.forget()
    expected = agent.predict(obs)
    for same in (obs[::-1][::-1], obs.astype(">f4"), obs.astype(object), obs.tolist(), obs.astype(np.float64)):
        agent.forget()
        assert np.array_equal(agent.predict(same), expected)
    assert agent.predict(np.zeros((0, 4))).shape == (0, 1)


@every
def test_folders(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(name)
    for wrong in (None, 3, "", b"x" * 3, ["x"]):
        for work in (agent.save, agent.save_policy, type(agent).load, load_agent):
            with sentence("a directory must be a path, not"):
                work(wrong)
    monkeypatch.setenv("HOME", str(tmp_path))
    agent.save("~/mine")
    assert (tmp_path / "mine" / "policy.json").is_file()
    assert load_agent("~/mine").name == name


class Broken(ToyBattery):
    """An environment that does one thing wrong."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong

    def reset(self, **kwargs: Any) -> Any:
        found = super().reset(**kwargs)
        return found[0] if self.wrong == "reset" else found

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        made: dict[str, Any] = {
            "four": (obs, reward, terminated, info),
            "old": (obs, reward, terminated, truncated, [info]),
            "width": (obs[:3], reward, terminated, truncated, info),
            "nothing": (None, reward, terminated, truncated, info),
            "no reward": (obs, None, terminated, truncated, info),
            "two rewards": (obs, [1.0, 2.0], terminated, truncated, info),
            "text": (obs, "1", terminated, truncated, info),
            "ends": (obs, reward, None, truncated, info),
            "inf": (obs * np.inf, reward, terminated, truncated, info),
            "infinite reward": (obs, 1e39, terminated, truncated, info),
        }
        return made.get(self.wrong, (obs, reward, terminated, truncated, info))


MESSAGES = {
    "reset": "reset of a Broken must return obs and info",
    "four": "step of a Broken must return obs, reward, terminated, truncated and info",
    "old": "step of a Broken must return obs, reward, terminated, truncated and info",
    "width": r"must have shape \(4,\)",
    "nothing": "must be an array, not a NoneType",
    "no reward": "the reward of environment 0 is None|a reward must be one number",
    "two rewards": "a reward must be one number",
    "ends": "terminated and truncated must each be a bool",
    "inf": "observation column 0 of environment 0 is (NaN|-?inf)",
    "infinite reward": r"the reward of environment 0 is 1e\+39, not a finite",
}


@every
@pytest.mark.parametrize("wrong", MESSAGES)
def test_environments_that_do_not_keep_to_gymnasium(name: str, wrong: str) -> None:
    with sentence(MESSAGES[wrong]):
        make(name, Broken(wrong)).learn(30)


class OldReset(ToyBattery):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class ManyInfos(ToyBattery):
    """A reward in an array, and an info that is a float, text or missing."""

    number = 0

    def step(self, action: Any) -> Any:
        obs, reward, *ends, _ = super().step(action)
        self.number += 1
        cost: Any = [0.5, "much", None][self.number % 3]
        return obs, np.array([reward]), *ends, {"cost": cost} if self.number % 4 else {}


@every
def test_environments_that_are_only_unusual(name: str) -> None:
    with sentence("reset of a OldReset takes no seed"):
        make(name, OldReset()).learn(30)
    make(name, [ManyInfos, ManyInfos]).learn(40)


class Shaped(gymnasium.Env[Any, Any]):
    """Any spaces; checks what it is given."""

    def __init__(self, obs: Box, action: Box) -> None:
        self.observation_space, self.action_space, self.t = obs, action, 0
        obs.seed(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        assert type(action) is np.ndarray
        self.t += 1
        return self.observation_space.sample(), 1.0, False, self.t == 7, {}


@every
@pytest.mark.parametrize("shape", [(), (1,), (2,), (4, 5)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_an_agent_acts_in_boxes_of_any_shape_and_type(name: str, shape: Any, dtype: Any) -> None:
    obs, action = Box(0, 9, shape, dtype), Box(0, 3, shape, dtype)
    env = Shaped(obs, action)
    agent = make(name, env).learn(20)
    for deterministic in (True, False):
        found = agent.predict(env.reset()[0], deterministic)
        assert action.contains(found)
        assert found.shape == shape
    assert agent.predict(np.stack([env.reset()[0]] * 3)).shape == (3, *shape)
    tensor = agent.predict(torch.as_tensor(np.asarray(env.reset()[0])))
    assert isinstance(tensor, torch.Tensor)
    assert tuple(tensor.shape) == shape


@pytest.mark.parametrize("kind", [PPO, A2C])
def test_an_observation_that_is_not_finite_is_in_no_statistics(kind: Any, tmp_path: Path) -> None:
    agent = make(kind.name)
    agent.learn(20)
    inner = agent.env.envs[0]
    honest = inner._observe
    inner._observe = lambda: honest() * np.array([1, np.inf, 1, 1], np.float32)
    with sentence("observation column 1 of environment 0 is"):
        agent.learn(40)
    assert all(x.isfinite().all() for x in agent.policy.normaliser.buffers())
    agent.save(tmp_path)
    agent.policy.normaliser.mean[2] = torch.inf
    with sentence("normaliser.mean is not finite: the policy is not saved"):
        agent.save(tmp_path)


@every
def test_a_policy_is_not_loaded_onto_other_spaces(name: str, tmp_path: Path) -> None:
    obs, action = Box(-1, 1, (3,)), Box(-1, 1, (2,))
    make(name, Shaped(obs, action)).save(tmp_path)
    for env, message in (
        (Shaped(obs, Box(-10, 10, (2,))), "the low of the environment's action"),
        (Shaped(obs, Box(-1, 1, (2,), np.float64)), "the dtype of the environment's action"),
        (Shaped(obs, Box(-1, 1, (2, 1))), "the shape of the environment's action"),
        (Shaped(Box(-1, 1, (3, 1)), action), "the shape of the environment's observation"),
        (Shaped(Box(-1, 2, (3,)), action), "the high of the environment's observation"),
    ):
        with sentence(message):
            load_agent(tmp_path, env)
    assert load_agent(tmp_path, Shaped(obs, action)).env is not None


def test_many_times_the_same_step_is_not_made_one() -> None:
    """SB3 #40, #720: years and degrees that float16 cannot tell apart."""

    class Slow(ToyBattery):
        observation_space = Box(-np.inf, np.inf, (2,))

        def _observe(self) -> Any:
            return np.array([2020 + self._hour / 365, 40.7128 + self._hour * 1e-4], np.float32)

    agent = SAC(Slow(), CONFIGS["sac"]).learn(23)
    rows = agent.buffer.sample(500)["observation"]
    assert len(rows.unique(dim=0)) == 23
