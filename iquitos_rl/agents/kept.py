"""The state of an agent's learning next to its policy on disk: what is needed to go on.

It lies in a folder of its own in the form of a checkpoint (`checkpoints/`), and names the policy that it belongs to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from iquitos_rl.agents.policy_file import load_policy
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.errors import UserError

if TYPE_CHECKING:
    from iquitos_rl.agents.agent import Agent

LEARNING = "learning"
"""The folder's name."""


def save_learning(folder: Path, state: dict[str, Any], steps: int, num_envs: int) -> None:
    """Write the state of an agent whose policy has just been written to the same folder.

    Raises:
        UserError: a number is not finite, or the folder cannot be written.
    """
    about = {"policy": load_policy(folder)[0]["tensors_sha256"], "num_envs": num_envs}
    Checkpoints(folder / LEARNING, 0.0, tell=_raised).save(state, steps, about, wait=True)


def load_learning(folder: Path, agent: Agent) -> None:
    """Bring an agent with an environment to where the saved one stopped; nothing where only a policy was saved.

    Raises:
        UserError: the files are damaged, or not of this policy, or of an agent with other environments.
    """
    if not (folder / LEARNING).is_dir():
        return
    found = Checkpoints(folder / LEARNING, 0.0, tell=_raised).load(agent.state_dict())
    if found is None or found.about.get("policy") != load_policy(folder)[0]["tensors_sha256"]:
        raise UserError(
            f"{folder / LEARNING}: not the state of this policy: a save was cut off; delete it to load the policy"
        )
    saved, here = int(found.about["num_envs"]), agent.environment().num_envs
    if saved != here and found.state.get("buffer") is not None:
        raise UserError(f"{folder}: the replay buffer is of {saved} environments, and there are {here} here")
    try:
        agent.load_state_dict(found.state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / LEARNING}: the state does not fit this agent ({reason})") from error
    agent.leave_episodes()


def _raised(text: str) -> NoReturn:
    raise UserError(text)
