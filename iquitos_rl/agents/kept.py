"""The state of an agent's learning next to its policy on disk: what is needed to go on.

It lies in a folder of its own in the form of a checkpoint (`checkpoints/`), and names the policy that it belongs to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from iquitos_rl.agents import parallel
from iquitos_rl.agents.policy_file import load_policy
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.errors import UserError

if TYPE_CHECKING:
    from iquitos_rl.agents.agent import Agent

LEARNING = "learning"
"""The folder's name; where several processes train the agent, each after the first has one with its number."""


def learning_of(folder: Path, number: int) -> Path:
    """Where a process keeps its state."""
    return folder / (f"{LEARNING}-{number}" if number else LEARNING)


def save_learning(folder: Path, state: dict[str, Any], steps: int, num_envs: int) -> None:
    """Write the state of an agent whose policy has just been written to the same folder.

    Raises:
        UserError: a number is not finite, or the folder cannot be written.
    """
    policy = load_policy(folder)[0]["tensors_sha256"]
    about = {"policy": policy, "num_envs": num_envs, "processes": parallel.processes()}
    Checkpoints(learning_of(folder, parallel.rank()), 0.0, tell=_raised).save(state, steps, about, wait=True)


def load_learning(folder: Path, agent: Agent) -> None:
    """Bring an agent with an environment to where the saved one stopped; nothing where only a policy was saved.

    Raises:
        UserError: the files are damaged, or not of this policy, or of an agent with other environments, or with another
            number of processes.
    """
    if not (folder / LEARNING).is_dir():
        return
    own = learning_of(folder, parallel.rank())
    found = Checkpoints(own, 0.0, tell=_raised).load(agent.state_dict()) if own.is_dir() else None
    processes = 0 if found is None else int(found.about.get("processes", 1))
    if processes not in (0, parallel.processes()) or not own.is_dir():
        kept = f"of {processes} processes" if processes else "of fewer processes"
        raise UserError(f"{folder}: the state is {kept}, and there are {parallel.processes()} here")
    if found is None or found.about.get("policy") != load_policy(folder)[0]["tensors_sha256"]:
        raise UserError(f"{own}: not the state of this policy: a save was cut off; delete it to load the policy")
    saved, here = int(found.about["num_envs"]), agent.environment().num_envs
    if saved != here and found.state.get("buffer") is not None:
        raise UserError(f"{folder}: the replay buffer is of {saved} environments, and there are {here} here")
    try:
        agent.load_state_dict(found.state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{own}: the state does not fit this agent ({reason})") from error
    agent.leave_episodes()


def _raised(text: str) -> NoReturn:
    raise UserError(text)
