"""A trained policy on disk, policy.safetensors (weights) and policy.json (what they are), and how to apply it.

Nothing in the files is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from iquitos_rl.checkpoints.state import first_not_finite
from iquitos_rl.envs.spaces import ActionSpace, ObservationSpace, kept
from iquitos_rl.envs.task.buildings import KEY, Buildings
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import TENSOR_BYTES, read_bytes, read_json

FORMAT_VERSION = 1
MOST_COLUMNS = 10_000_000
"""Of an observation or an action; more would be an error in a file."""
TENSORS, META = "policy.safetensors", "policy.json"
_KEYS = {"format_version": int, "algorithm": str, "config": dict, "spec": dict, "tensors_sha256": str}


class PolicySpec(BaseModel):
    """What a policy must know of its environment to act without it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    obs_dim: int = Field(ge=1, le=MOST_COLUMNS, description="Width D of an observation.")
    action_dim: int = Field(ge=1, le=MOST_COLUMNS, description="Width A of an action.")
    action_low: list[float] = Field(description="What -1 means to the environment, for each action.")
    action_high: list[float] = Field(description="What 1 means to the environment, for each action.")
    action_mask_columns: list[Annotated[int, Field(ge=-1, lt=MOST_COLUMNS)]] | None = Field(
        description="See `VectorEnv.action_mask_columns`."
    )
    environment: dict[str, Any] = Field(description="The environment's own `policy_spec`, e.g. names and bounds.")
    obs_space: ObservationSpace | None = Field(None, description="How observations become rows; null: they are rows.")
    action_space: ActionSpace | None = Field(None, description="The same for actions.")

    @cached_property
    def way_in(self) -> ObservationSpace:
        """From the environment's observations to rows (B, D)."""
        return self.obs_space or ObservationSpace.flat(self.obs_dim)

    @cached_property
    def way_out(self) -> ActionSpace:
        """From actions (B, A) to those that the environment takes."""
        return self.action_space or ActionSpace.flat(self.action_low, self.action_high)

    @property
    def buildings(self) -> Buildings | None:
        """Where each building's columns and actions are, for a policy that is one network for all of them; else None.

        Raises:
            UserError: what the environment says of it cannot be read, or is of another observation or action.
        """
        found = Buildings.read(self.environment)
        if found is not None and (found.width > self.obs_dim or found.num_actions != self.action_dim):
            raise UserError("the policy's map of buildings is not of its observation and action")
        return found

    def flat(self) -> PolicySpec:
        """For a policy that takes the site as a whole."""
        return self.model_copy(update={"environment": {k: x for k, x in self.environment.items() if k != KEY}})

    def arranged(self, saved: PolicySpec) -> PolicySpec:
        """This environment for a policy that was trained in another, whose order of columns and devices it keeps.

        Raises:
            UserError: the policy reads what there is not here, or cannot move what there is.
        """
        if saved.buildings is None:
            return self.flat()
        if self.buildings is None:
            raise UserError("the policy is one network for every building, and here nothing says what is a building's")
        order = self.buildings.arranged(saved.buildings)
        return self.model_copy(update={"environment": {**self.environment, KEY: order.model_dump(mode="json")}})

    @model_validator(mode="after")
    def _fits(self) -> PolicySpec:
        columns = self.action_mask_columns
        if not len(self.action_low) == len(self.action_high) == self.action_dim:
            raise ValueError("action_low and action_high must have a number for each action")
        if any(low > high for low, high in zip(self.action_low, self.action_high)):
            raise ValueError("action_low must not be above action_high")
        if columns is not None and len(columns) != self.action_dim:
            raise ValueError("action_mask_columns must have a column for each action")
        if columns is not None and not all(-1 <= column < self.obs_dim for column in columns):
            raise ValueError("action_mask_columns must be columns of the observation, or -1")
        if self.obs_space is not None and self.obs_space.width != self.obs_dim:
            raise ValueError("obs_space must have as many columns as obs_dim says")
        if self.action_space is not None and self.action_space.width != self.action_dim:
            raise ValueError("action_space must have as many numbers as action_dim says")
        return self

    @classmethod
    def of(cls, env: VectorEnv) -> PolicySpec:
        """From an environment."""
        columns = env.action_mask_columns
        return cls(
            obs_dim=env.obs_dim,
            action_dim=env.action_dim,
            action_low=env.action_low.expand(env.action_dim).tolist(),
            action_high=env.action_high.expand(env.action_dim).tolist(),
            action_mask_columns=None if columns is None else columns.tolist(),
            environment=env.policy_spec,
            obs_space=env.obs_space,
            action_space=env.action_space,
        )

    def must_match(self, saved: PolicySpec) -> None:
        """Check that a saved policy can act here.

        Raises:
            UserError: this environment's observations or actions are not shaped like those that it was trained with.
        """
        for name in ("obs_dim", "action_dim", "action_mask_columns"):
            if getattr(self, name) != getattr(saved, name):
                here, there = getattr(self, name), getattr(saved, name)
                raise UserError(f"the environment's {name} is {here}, the saved policy was trained with {there}")
        if self.obs_space is not None and saved.obs_space is not None:
            self.obs_space.must_equal(saved.obs_space)
        if saved.action_space is not None:
            self.way_out.must_equal(saved.action_space)
        for name in ("action_low", "action_high"):  # all that older files have
            here, there = (kept(np.array(getattr(spec, name))) for spec in (self, saved))
            if here != there:
                raise UserError(f"the environment's {name} is {here}, the saved policy was trained with {there}")


def apply_policy(
    act: Callable[[Tensor], Tensor], obs: Any, spec: PolicySpec, device: torch.device | str = "cpu"
) -> Any:
    """Actions as the environment takes them, from `act`, which maps observations (B, D) to actions (B, A).

    Args:
        obs: the environment's observation, or a batch of B of them: arrays, tensors, or the Dict or Tuple of them.

    Returns:
        An action of the environment's action space, or B of them: an integer for Discrete, an array, or a tensor where
        the observation is one.

    Raises:
        UserError: this is no observation of the space, or it holds a number that is not finite.
    """
    space = spec.way_in
    if isinstance(obs, Tensor) and len(space.parts) == 1 and space.parts[0].choices is None:
        batched = space.is_batch([obs])
        rows = obs.detach().to(device, torch.float32).reshape(-1, space.width)
    else:
        array, batched = space.batch(obs)
        rows = torch.from_numpy(array).to(device)
    if not rows.isfinite().all():
        column = int((~rows.isfinite()).nonzero()[0, -1])
        raise UserError(f"observation column {space.column_name(column)} is not a finite number")
    with torch.no_grad():
        actions = spec.way_out.values(act(rows).cpu().numpy())
    action = actions if batched else spec.way_out.one(actions[0])
    return torch.from_numpy(np.asarray(action)).to(obs.device) if isinstance(obs, Tensor) else action


def save_policy(
    directory: str | Path,
    *,
    algorithm: str,
    config: BaseModel,
    spec: dict[str, Any],
    tensors: dict[str, Tensor],
    networks: Sequence[str] = (),
) -> None:
    """Write the two files, each under a temporary name first: a reader sees the old file or the new one, never a half.

    policy.json goes last and holds the digest of the tensors, so a save cut off between the two is noticed at load.

    Args:
        networks: those that the settings do not describe, because the user made them.

    Raises:
        UserError: a tensor is not finite, the directory cannot be written, or `spec` holds something that JSON cannot
            say.
    """
    directory = Path(directory)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if (broken := first_not_finite(tensors)) is not None:
        raise UserError(f"{broken} is not finite: the policy is not saved to {directory}")
    weights = save_tensors(tensors)
    meta = {
        "format_version": FORMAT_VERSION,
        "algorithm": algorithm,
        "config": config.model_dump(mode="json"),
        "spec": spec,
        "networks": list(networks),
        "tensors_sha256": hashlib.sha256(weights).hexdigest(),
    }
    try:
        text = json.dumps(meta, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"{directory / META}: the policy's description cannot be written as JSON ({error})") from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / TENSORS, weights)
        _replace(directory / META, text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"{directory}: the policy cannot be written ({error.strerror})") from error


def load_policy(directory: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description (format_version, algorithm, config, spec, networks, tensors_sha256) and the tensors, on the CPU.

    Raises:
        UserError: a file is missing, unreadable, of another format version, or not the one that the description names.
    """
    directory = Path(directory)
    meta = _read_meta(directory / META)
    weights = read_bytes(directory / TENSORS, TENSOR_BYTES)
    if hashlib.sha256(weights).hexdigest() != meta["tensors_sha256"]:
        raise UserError(f"{directory / TENSORS}: not the weights that {META} was saved with (sha256 differs)")
    try:
        return meta, load_tensors(weights)
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        # torch's reader knows fewer types of numbers than the format has, and says so in its own ways
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{directory / TENSORS}: not a safetensors file ({reason})") from error


def _read_meta(path: Path) -> dict[str, Any]:
    meta = read_json(path)
    if not isinstance(meta, dict):
        raise UserError(f"{path}: a policy's description must be a JSON object")
    for key, kind in _KEYS.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"{path}: the key {key!r} is missing or not of type {kind.__name__}")
    networks = meta.setdefault("networks", [])  # older files lack it
    if not isinstance(networks, list) or not all(isinstance(name, str) for name in networks):
        raise UserError(f"{path}: the key 'networks' is not a list of names")
    if meta["format_version"] != FORMAT_VERSION:
        raise UserError(f"{path}: format_version is {meta['format_version']}, this program reads {FORMAT_VERSION}")
    return meta


def _replace(path: Path, contents: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
