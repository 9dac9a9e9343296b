"""A trained policy as the start of a training on other data: its networks, and how it sees a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iquitos_rl.agents.agent import Agent
from iquitos_rl.agents.policy_file import PolicySpec, load_policy
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import first_problem


def policy_folder(run: Path) -> Path:
    """The folder of a policy, from itself or from the output folder of its training."""
    return run / "policy" if (run / "policy").is_dir() else run


def start_spec(run: Path) -> dict[str, Any]:
    """The `policy_spec` of a policy's training environment. Raises UserError: the policy cannot be read."""
    return _spec_of(run).environment


def start_from(agent: Agent, run: Path) -> None:
    """Give an agent a policy's networks; its optimisers, counters and generators stay as they are.

    Raises:
        UserError: the policy cannot be read, is of another algorithm or has other networks, or does not fit the
            agent's environment.
    """
    folder = policy_folder(run)
    meta, tensors = load_policy(folder)
    if meta["algorithm"] != agent.name:
        raise UserError(f"--continue-from {run}: the policy was trained by {meta['algorithm']}, not by {agent.name}")
    try:
        agent.spec.must_match(_spec_of(run))
        agent.networks.load_state_dict(tensors)
    except UserError as error:
        raise UserError(f"--continue-from {run}: {error}") from None
    except RuntimeError:
        raise UserError(
            f"--continue-from {run}: the policy's networks have other sizes than the settings say (agent.hidden)"
        ) from None


def _spec_of(run: Path) -> PolicySpec:
    folder = policy_folder(run)
    try:
        return PolicySpec.model_validate(load_policy(folder)[0]["spec"])
    except ValidationError as error:
        raise UserError(f"{folder}: the policy's spec cannot be read: {first_problem(error)}") from None
