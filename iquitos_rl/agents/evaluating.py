"""Running a policy for whole episodes, and what they return."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from iquitos_rl.agents.arguments import seed_of, whole
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.envs.gym.adapter import TrainingEnv, as_vector
from iquitos_rl.envs.vector import within
from iquitos_rl.errors import UserError
from iquitos_rl.machine.torch_state import own_defaults

if TYPE_CHECKING:
    from iquitos_rl.agents.agent import Agent


class Episodes(NamedTuple):
    """Finished episodes: those of each environment in turn."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean(self) -> float:
        """Mean return."""
        return sum(self.returns) / len(self.returns)

    @property
    def std(self) -> float:
        """Deviation of the returns."""
        return sqrt(sum((x - self.mean) ** 2 for x in self.returns) / len(self.returns))


def evaluate_policy(
    agent: Agent, env: TrainingEnv, episodes: int = 10, deterministic: bool = True, seed: int | None = 10_000
) -> tuple[float, float]:
    """Mean and deviation of an agent's undiscounted returns; see `run_episodes`."""
    found = run_episodes(agent, env, episodes, deterministic, seed)
    return found.mean, found.std


def run_episodes(
    agent: Agent, env: TrainingEnv, episodes: int = 10, deterministic: bool = True, seed: int | None = 10_000
) -> Episodes:
    """Run a policy for whole episodes.

    Of E environments each runs its share of the episodes, so short episodes do not count more than long ones. Where an
    agent's own training environment is given, its training goes on in new episodes.

    Args:
        env: as agents take it; of the same spaces as those that the agent was trained with.
        seed: of the first environment's first episode; None draws one.

    Raises:
        UserError: an argument is not what it must be, or the environment's spaces differ.
    """
    if not hasattr(agent, "spec") or not hasattr(agent, "act"):
        raise UserError(f"an agent of iquitos_rl can be evaluated, not a {type(agent).__name__}")
    wanted = whole("episodes", episodes, 1)
    generator = None if deterministic else agent.generators["predict"]
    with own_defaults(agent.device), torch.no_grad():
        vector = as_vector(env, agent.device)
        acting = agent.at(PolicySpec.of(vector))
        shares = [wanted // vector.num_envs + (i < wanted % vector.num_envs) for i in range(vector.num_envs)]
        found: list[list[tuple[float, int]]] = [[] for _ in shares]
        running = torch.zeros(2, vector.num_envs, dtype=torch.float64)
        obs = vector.reset(seed_of(seed))
        acting.forget()
        while any(len(done) < share for done, share in zip(found, shares)):
            action = acting.act(obs.to(agent.device), generator)
            step = vector.step(within(action, vector.choices).to(vector.device))
            obs, running[0], running[1] = step.obs, running[0] + step.reward.cpu(), running[1] + 1
            ended = (step.terminated | step.truncated).cpu()
            for i in ended.nonzero().flatten().tolist():
                if len(found[i]) < shares[i]:
                    found[i].append((float(running[0, i]), int(running[1, i])))
            running[:, ended] = 0
            acting.forget(ended.to(agent.device))
        acting.forget()
    if agent.env is not None and _same(vector, agent.env):
        agent.leave_episodes()
    every = [episode for done in found for episode in done]
    return Episodes([total for total, _ in every], [length for _, length in every])


def _same(one: Any, other: Any) -> bool:
    """Whether two vector environments step the same environments."""
    return bool(_inner(one) & _inner(other))


def _inner(vector: Any) -> set[int]:
    envs = [*getattr(vector, "envs", []), *([vector.env] if hasattr(vector, "env") else []), vector]
    return {id(getattr(env, "unwrapped", env)) for env in envs}
