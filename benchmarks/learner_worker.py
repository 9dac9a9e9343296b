"""One contestant of `speed_learner.py`, in a process and, where it is a peer, in an environment of its own.

    python learner_worker.py CONTESTANT ALGORITHM OBS_DIM ACTION_DIM BATCH_SIZE WIDTH DEVICE

Reads a number of updates a line, makes them on one thread or on a GPU, waits until they are done, and answers with a
JSON line. Only what the contestant itself needs is imported. Nothing is simulated: observations and rewards are random
numbers.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import gymnasium
import numpy as np

Updates = Callable[[int], int]
"""Makes at least so many updates and returns how many."""
STORED, EPISODE = 2_000, 200
PPO_HORIZON, A2C_HORIZON, A2C_ENVS = 1_024, 5, 8


class Null(gymnasium.Env):
    """Random numbers of the given widths; an episode lasts `EPISODE` steps."""

    def __init__(self, obs_dim: int, action_dim: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (obs_dim,))
        self.action_space = gymnasium.spaces.Box(-1, 1, (action_dim,))
        self.rng, self.t = np.random.default_rng(0), 0

    def obs(self) -> Any:
        return self.rng.uniform(-1, 1, self.observation_space.shape).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.obs(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.obs(), float(self.rng.normal()), False, self.t >= EPISODE, {}


def answer(updates: int, wall: float, cpu: float, **more: Any) -> None:
    print("=", json.dumps({"updates": updates, "wall_s": wall, "cpu_s": cpu, **more}), flush=True)


def finished(run: Updates, device: str) -> Updates:
    """The same, done when it returns: a GPU is told what to do and not waited for."""
    if device == "cpu":
        return run
    import torch

    def waiting(n: int) -> int:
        made = run(n)
        torch.cuda.synchronize()
        return made

    return waiting


def serve(make: Callable[[], Updates], name: str) -> None:
    """First the agent and one update, with all that this compiles; then what is asked for."""
    wall, cpu = time.perf_counter(), time.process_time()
    run = make()
    made = run(1)
    answer(made, time.perf_counter() - wall, time.process_time() - cpu, version=f"{name} {version(name)}")
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        made = run(int(line))
        answer(made, time.perf_counter() - wall, time.process_time() - cpu)


def ours(
    algorithm: str, obs_dim: int, action_dim: int, batch: int, width: int, device: str, **settings: Any
) -> Updates:
    import torch

    from iquitos_rl.agents import AGENTS

    torch.set_num_threads(1)
    entry, hidden = AGENTS[algorithm], (width, width)
    if algorithm == "sac":
        config = entry.config(
            hidden=hidden, batch_size=batch, learning_starts=STORED, buffer_size=2 * STORED, **settings
        )
        sac: Any = entry.agent(Null(obs_dim, action_dim), config, device=device)
        sac.learn(STORED)
        return lambda n: sac.train(n) or n
    horizon, envs = (PPO_HORIZON, 1) if algorithm == "ppo" else (A2C_HORIZON, A2C_ENVS)
    more = {"batch_size": batch} if algorithm == "ppo" else {}
    config = entry.config(hidden=hidden, horizon=horizon, **more, **settings)
    agent: Any = entry.agent([lambda: Null(obs_dim, action_dim)] * envs, config, device=device)
    rollout = agent.collector.collect()

    def run(n: int) -> int:
        before = agent.updates
        while agent.updates < before + n:
            agent.update(rollout)
        return int(agent.updates - before)

    return run


def sb3(algorithm: str, obs_dim: int, action_dim: int, batch: int, width: int, device: str) -> Updates:
    import torch
    from stable_baselines3 import A2C, PPO, SAC

    torch.set_num_threads(1)
    net: dict[str, Any] = {"policy_kwargs": {"net_arch": [width, width]}, "device": device}
    if algorithm == "sac":
        sac = SAC(
            "MlpPolicy",
            Null(obs_dim, action_dim),
            batch_size=batch,
            learning_starts=STORED,
            buffer_size=2 * STORED,
            **net,
        )
        sac.learn(STORED)
        return lambda n: sac.train(gradient_steps=n, batch_size=batch) or n
    model: Any
    if algorithm == "ppo":
        model = PPO("MlpPolicy", Null(obs_dim, action_dim), n_steps=PPO_HORIZON, batch_size=batch, n_epochs=10, **net)
        model.learn(1)
        each = 10 * -(-PPO_HORIZON // batch)
    else:
        from stable_baselines3.common.env_util import make_vec_env

        envs = make_vec_env(lambda: Null(obs_dim, action_dim), A2C_ENVS)
        model = A2C("MlpPolicy", envs, n_steps=A2C_HORIZON, **net)
        model.learn(1)
        each = 1

    def run(n: int) -> int:
        calls = -(-n // each)
        for _ in range(calls):
            model.train()
        return calls * each

    return run


def sbx(algorithm: str, obs_dim: int, action_dim: int, batch: int, width: int, device: str) -> Updates:
    from sbx import SAC

    assert device == "cpu"
    assert algorithm == "sac"
    chunk = 8  # a compiled constant of its update
    model = SAC(
        "MlpPolicy",
        Null(obs_dim, action_dim),
        batch_size=batch,
        learning_starts=STORED,
        buffer_size=2 * STORED,
        gradient_steps=chunk,
        policy_kwargs={"net_arch": [width, width]},
    )
    model.learn(STORED)

    def run(n: int) -> int:
        calls = -(-n // chunk)
        for _ in range(calls):
            model.train(gradient_steps=chunk, batch_size=batch)
        np.asarray(model.ent_coef_state.params["log_ent_coef"])  # what was started is waited for
        return calls * chunk

    return run


class Turns:
    """What `cleanrl`'s script takes for a vector of environments; its clock runs while the script does, so an update
    includes acting for one row and storing it."""

    num_envs = 1

    def __init__(self, makers: Any) -> None:
        self.env = Null(*Turns.dims)
        self.action_space = self.single_action_space = self.env.action_space
        self.single_observation_space = self.env.observation_space
        self.left, self.steps, self.begun = 0, 0, (time.perf_counter(), time.process_time())
        self.made = 0

    dims: tuple[int, int]

    def reset(self) -> Any:
        return self.env.reset()[0][None]

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps > STORED + 3:
            self.turn()
        return self.env.obs()[None], np.zeros(1), np.zeros(1, dtype=bool), [{}]

    def turn(self) -> None:
        if self.left == 0:
            wall, cpu = time.perf_counter(), time.process_time()
            first = {} if self.made else {"version": f"cleanrl {version('cleanrl')}"}
            answer(self.made, wall - self.begun[0], cpu - self.begun[1], **first)
            line = sys.stdin.readline()
            if not line:
                raise SystemExit
            self.left = self.made = int(line)
            self.begun = time.perf_counter(), time.process_time()
        self.left -= 1


def cleanrl(algorithm: str, obs_dim: int, action_dim: int, batch: int, width: int, device: str) -> None:
    """Runs its script as it is. Its networks are 256 wide, and it knows an older gym, which `Turns` stands in for."""
    import torch

    assert algorithm == "sac"
    assert width == 256
    torch.set_num_threads(1)
    Turns.dims = obs_dim, action_dim
    gym: Any = types.ModuleType("gym")
    gym.spaces, gym.vector = gymnasium.spaces, types.SimpleNamespace(SyncVectorEnv=Turns)
    sys.modules["gym"] = gym
    os.chdir(tempfile.mkdtemp())  # it leaves event files where it runs
    sys.argv = ["sac", "--batch-size", str(batch), "--buffer-size", str(2 * STORED), "--cuda", str(device == "cuda")]
    sys.argv += ["--learning-starts", str(STORED), "--total-timesteps", str(10**9)]
    runpy.run_module("cleanrl.sac_continuous_action", run_name="__main__")


def main() -> None:
    contestant, algorithm, *numbers, device = sys.argv[1:]
    arguments = (algorithm, *map(int, numbers), device)
    if contestant == "cleanrl":
        cleanrl(*arguments)
    elif contestant == "stable-baselines3":
        serve(lambda: finished(sb3(*arguments), device), "stable_baselines3")
    elif contestant == "sbx":
        serve(lambda: sbx(*arguments), "sbx-rl")
    else:
        settings = dict(word.split("=") for word in contestant.split()[1:])
        serve(lambda: finished(ours(*arguments, **settings), device), "torch")


if __name__ == "__main__":
    main()
