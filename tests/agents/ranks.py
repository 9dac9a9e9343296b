"""What each process of `test_parallel.py` does: short trainings with known data, and a report of what came out.

It also runs alone, without a process group: then it is the one process that has the whole batch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from scripted_env import ScriptedEnv

from iquitos_rl.agents import parallel, ppo
from iquitos_rl.agents.a2c import A2C, A2CConfig
from iquitos_rl.agents.callbacks import Callback
from iquitos_rl.agents.collector import Batch
from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.agents.recurrent_ppo import RecurrentPPO
from iquitos_rl.agents.sac import SAC, SACConfig
from iquitos_rl.agents.shac import SHAC, SHACConfig
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory import recovery
from iquitos_rl.memory.recovery import Parts

ENVS, STEPS = 4, 12
"""Of all processes together."""
SAC_SMALL = {"hidden": (8,), "batch_size": 16, "learning_starts": 8, "buffer_size": 400, "storage": "float32"}
PPO_SMALL = {"hidden": (8,), "batch_size": 16, "horizon": STEPS, "epochs": 3, "learning_rate": 0.01, "target_kl": 0.002}


class Drift(VectorEnv):
    """Points pushed by actions, x' = x + a, that pay x'^2; each environment has its own start and episode length."""

    differentiable = True

    def __init__(self, first: int, count: int) -> None:
        self.num_envs, self.obs_dim, self.action_dim, self.device = count, 1, 1, torch.device("cpu")
        self.start = torch.linspace(0.2, 1.0, ENVS, dtype=torch.float64)[first : first + count, None]
        self.lengths = torch.tensor([2, 3, 5, 9])[first : first + count]

    def reset(self, seed: int | None = None) -> torch.Tensor:
        self.x, self.t = self.start, torch.zeros(self.num_envs, dtype=torch.int64)
        return self.x

    def step(self, action: torch.Tensor) -> StepResult:
        x, self.t = self.x + action, self.t + 1
        ended, never = self.t >= self.lengths, torch.zeros(self.num_envs, dtype=torch.bool)
        self.t = torch.where(ended, 0, self.t)
        self.x = torch.where(ended[:, None], self.start, x)
        return StepResult(self.x, -x[:, 0].square(), never, ended, x, {})

    def detach(self) -> None:
        self.x = self.x.detach()

    def part(self, first: int, last: int) -> Drift:
        part = Drift(0, last - first)
        part.start, part.lengths = self.start[first:last], self.lengths[first:last]
        part.x, part.t = self.x[first:last], self.t[first:last]
        return part

    def join(self, parts: Any) -> None:
        self.x, self.t = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "t"))

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x, "t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x, self.t = state["x"], state["t"]


class Double(Batch):
    """A batch whose parts stay in float64."""

    def take(self, index):
        return Double(*(field[index] for field in self))


def mine(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """This process's part of what all have along a dimension."""
    return x.chunk(parallel.processes(), dim)[parallel.rank()]


def numbers(agent: Any) -> torch.Tensor:
    return torch.cat([x.detach().double().flatten() for x in agent.networks.state_dict().values()])


def scripted(masked: bool = True) -> ScriptedEnv:
    return ScriptedEnv(num_envs=ENVS // parallel.processes(), masked=masked)


def drawn(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def rollout(seed: int) -> Double:
    """This process's part of a rollout of (T, E) transitions."""
    randn = drawn(seed)
    fields = [randn(STEPS, ENVS, 4), randn(STEPS, ENVS, 2), randn(STEPS, ENVS), randn(STEPS, ENVS, 2) < 1]
    fields += [randn(STEPS, ENVS) for _ in range(3)]
    return Double(*(mine(x, 1).flatten(0, 1) for x in fields))


def in_double(agent: Any) -> Any:
    agent.networks.double()
    agent.micro_batch = Parts("gradient", agent.device, floor=1)
    if isinstance(recovery.failure, Shortage):
        recovery.failure.again()
    return agent


def minibatches(world: int) -> Callable[..., Iterator[torch.Tensor]]:
    """Orders that so many processes have drawn: each its own, and one process theirs together."""

    def drawn_before(size: int, batch_size: int, epochs: int, _: Any) -> Iterator[torch.Tensor]:
        per, batch = ENVS // world, 16  # row t * per + e of process r is row t * ENVS + r * per + e of all
        for epoch in range(epochs):
            generators = [torch.Generator().manual_seed(100 * epoch + r) for r in range(world)]
            orders = [torch.randperm(STEPS * per, generator=g).split(batch // world) for g in generators]
            for parts in zip(*orders):
                whole = torch.cat([i // per * ENVS + r * per + i % per for r, i in enumerate(parts)])
                yield whole if parallel.processes() == 1 else parts[parallel.rank()]

    return drawn_before


def on_policy(agent: Any) -> dict[str, Any]:
    """Three rollouts' updates."""
    in_double(agent)
    for seed in range(3):
        batch, policy = rollout(seed), agent.policy
        with torch.no_grad():
            log_prob = policy.log_prob(batch.action, policy.mean(batch.obs), batch.live)
        agent.update(batch._replace(log_prob=log_prob))
    return {"numbers": numbers(agent), "updates": agent.updates, **agent.metrics.means()}


def off_policy(agent: Any) -> dict[str, Any]:
    """Four updates with given batches."""
    in_double(agent)
    for seed in range(4):
        randn = drawn(seed)
        batch = {"observation": randn(16, 4), "action": randn(16, 2).tanh(), "reward": randn(16)}
        batch |= {"next_observation": randn(16, 4), "discount": 0.9 * (randn(16) < 1).double()}
        agent.update({name: mine(x) for name, x in batch.items()}, mine(randn(2, 16, 2), 1))
    return {"numbers": numbers(agent), **agent.metrics.means()}


def by_gradient() -> dict[str, Any]:
    """A training of SHAC without noise: its environments do the same wherever they are."""
    count = ENVS // parallel.processes()
    settings = {"hidden": (8,), "horizon": 6, "batch_size": 64, "normalise_obs": False, "noise": 0.0}
    agent = in_double(SHAC(Drift(count * parallel.rank(), count), SHACConfig(**settings), seed=1))
    agent.rehearse = lambda: None  # which is in float32
    found: list[Any] = []
    agent.learn(5 * ENVS * 6, on_log=found.append)
    return {"numbers": numbers(agent), "steps": agent.steps, **found[-1].metrics}


def updates(world: int) -> dict[str, dict[str, Any]]:
    """What every algorithm makes of the same data, in as many processes as there are."""
    with patch.object(ppo, "minibatches", minibatches(world)):
        return {
            "ppo": on_policy(PPO(scripted(), PPOConfig(**PPO_SMALL), seed=1)),
            "a2c": on_policy(A2C(scripted(), A2CConfig(hidden=(8,), horizon=STEPS), seed=1)),
            "sac": off_policy(SAC(scripted(masked=False), SACConfig(**SAC_SMALL), seed=1)),
            "shac": by_gradient(),
        }


class Shortage:
    """Memory runs out in the second process, and only there: at the start of each agent's first gradient, in the middle
    of the next attempt, and once in a window of environments."""

    def __init__(self) -> None:
        self.left = {"gradient": [], "window": []}
        self.raised = 0

    def again(self) -> None:
        """For another agent."""
        self.left = {"gradient": [True, False, True], "window": [False, True] if parallel.processes() == 2 else []}

    def __call__(self, what: str) -> None:
        left = self.left.get(what)
        if parallel.rank() == 1 and left and left.pop(0):
            self.raised += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Injected.")


class Seen(ScriptedEnv):
    """Keeps what it showed, with a mean and a scale of its own in each process."""

    def _obs(self) -> torch.Tensor:
        return super()._obs() * (1 + parallel.rank()) + parallel.rank()


def training(name: str, folder: Path) -> dict[str, Any]:
    """A training from its first step, saved in the middle; and the rest of it by an agent that was loaded."""
    kinds = {"sac": (SAC, SACConfig(**SAC_SMALL, normalise_obs=True, update_ratio=0.3, log_every=40))}
    kinds |= {"ppo": (PPO, PPOConfig(**PPO_SMALL)), "a2c": (A2C, A2CConfig(hidden=(8,), horizon=STEPS, log_every=40))}
    kind, config = kinds[name]
    agent = kind(Seen(ENVS // parallel.processes()), config, seed=1)
    told: list[Any] = []
    counted: list[int] = []
    agent.learn(2 * ENVS * STEPS, on_log=told.append, on_step=counted.append)
    env = agent.environment()
    normaliser = agent.networks.normaliser
    found = {
        "numbers": numbers(agent),
        "steps": agent.steps,
        "updates": agent.updates,
        "counted": counted,
        "told": [(each.steps, each.updates, each.episodes, each.metrics) for each in told],
        "episodes": int(sum((step.terminated | step.truncated).sum() for step in env.steps)),
        "actions": torch.stack(env.actions),
        "observations": torch.stack(env.observations).double(),
        "statistics": [normaliser.count.clone(), normaliser.mean.clone(), normaliser.squares.clone()],
    }
    agent.save(folder / name, buffer=True)
    agent.leave_episodes()
    loaded = kind.load(folder / name, Seen(ENVS // parallel.processes()), seed=1)
    found["resumed"] = [numbers(each.learn(until=4 * ENVS * STEPS)) for each in (agent, loaded)]
    return found


class StopOnFirst(Callback):
    def on_log(self, agent: Any, progress: Any) -> None:
        if parallel.rank() == 0 and progress.steps >= 2 * ENVS * STEPS:
            agent.stop()


def sentence(work: Callable[[], object]) -> str:
    try:
        work()
    except UserError as error:
        return str(error)
    return "nothing was raised"


def refusals(early: PPO) -> dict[str, str]:
    """What each process is told, in the same order everywhere."""
    small = PPOConfig(**PPO_SMALL)
    whole = PPO(scripted(), small)
    more = 10 * ENVS * STEPS
    return {
        "recurrent": sentence(lambda: RecurrentPPO(scripted())),
        "seed": sentence(lambda: PPO(scripted(), small, seed=parallel.rank())),
        "environments": sentence(lambda: PPO(ScriptedEnv(1 + parallel.rank()), small)),
        "setting": sentence(lambda: PPO(scripted(), small.model_copy(update={"gamma": 0.9 + 0.01 * parallel.rank()}))),
        "batch": sentence(lambda: PPO(scripted(), small.model_copy(update={"batch_size": 15})).learn(more)),
        "steps": sentence(lambda: whole.learn(more + parallel.rank())),
        "early": sentence(lambda: early.learn(more)),
    }


def stopped() -> int:
    agent = PPO(scripted(), PPOConfig(**PPO_SMALL))
    return agent.learn(10 * ENVS * STEPS, callbacks=[StopOnFirst()]).steps


def report(world: int, folder: Path, early: PPO) -> dict[str, Any]:
    found: dict[str, Any] = {"updates": updates(world)}
    with patch.object(recovery, "failure", Shortage()) as shortage:
        found["short"] = {"updates": updates(world), "raised": shortage.raised}
    if world == 2:
        found |= {name: training(name, folder) for name in ("ppo", "a2c", "sac")}
        found |= {"refusals": refusals(early), "stopped": stopped()}
    return found


def main(rank: int, folder: Path) -> None:
    """Take part in a group of 4, and, the first two, in one of 2; leave what came out in the folder."""
    torch.set_num_threads(1)
    try:
        early = PPO(scripted(), PPOConfig(**PPO_SMALL))
        for world in (4, 2):
            if rank < world:
                store = f"file://{folder}/store-{world}"
                dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
                torch.save(report(world, folder, early), folder / f"{world}-{rank}.pt")
                dist.destroy_process_group()
    except BaseException:
        (folder / f"error-{rank}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        raise
