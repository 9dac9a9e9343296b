"""The replay buffer: E parallel streams in one ring, each observation stored once.

A step's successor is the next row of the same environment. Only where an episode was cut off (truncated) is that row
the first of another episode; there the true successor is kept in a small side cache. A terminated step needs none, its
bootstrap is zero. Leaving out the second copy halves a buffer; the side cache is what keeps that correct at time limits
(as in cpprb's `next_of`).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from tensordict import TensorDict
from torch import Generator, Tensor

from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

GOES_ON, TERMINATED = -1, -2
"""Values of the `end` column; a number from 0 means truncated and is the successor's place in the side cache."""

SHORTEST_EPISODE = 24
"""The side cache has room for truncated episodes of this mean length (hours of a day)."""


class Rows:
    """One wide field of the buffer: (rows, width) numbers stored in `dtype`, read back as float32."""

    def __init__(self, name: str, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.name = name
        self.data = torch.zeros(rows, width, dtype=dtype, device=device)

    def encode(self, values: Tensor) -> Tensor:
        """The numbers as they will be stored.

        Raises:
            UserError: a number is NaN, infinite or beyond the range of the storage type.
        """
        encoded = values.to(self.data.dtype)
        finite = encoded.isfinite()
        if not finite.all():
            row, column = finite.logical_not().nonzero()[0].tolist()
            raise UserError(
                f"{self.name} column {column} of environment {row} is {values[row, column].item()}, "
                f"which {str(self.data.dtype).removeprefix('torch.')} storage cannot hold"
            )
        return encoded

    def write(self, rows: slice | Tensor, encoded: Tensor) -> None:
        self.data[rows] = encoded.to(self.data.device)

    def read(self, rows: Tensor) -> Tensor:
        """(n, width) float32 for n row numbers."""
        return self.data.index_select(0, rows).float()


class ReplayBuffer:
    """The newest transitions of E environments, for uniform sampling with n-step returns.

    Call `start(obs)` after the environments' reset, then `add(action, step)` once per step. All storage is allocated
    by the constructor.

    Args:
        capacity: transitions over all environments; rounded down to a multiple of E.
        n_step: the longest return; it stops at an episode's end and at the newest step.
        dtype: storage of observations and actions, float32 or float16. Rewards are always float32.
        final_rows: places for true successors of truncated steps. When they run out, the oldest steps are given up
            early, with a warning.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        obs_dim: int,
        action_dim: int,
        *,
        gamma: float = 0.99,
        n_step: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
        final_rows: int | None = None,
    ) -> None:
        if capacity < num_envs:
            raise UserError(f"a replay buffer of {capacity} cannot hold one step of {num_envs} environments")
        if dtype not in (torch.float32, torch.float16):
            raise UserError(f"replay storage must be float32 or float16, not {dtype}")
        self.device = torch.device(device)
        self.num_envs, self.n_step = num_envs, n_step
        self.steps_kept = capacity // num_envs
        # One row more than steps kept: the newest step's successor, which becomes the next step's observation.
        self._ring = self.steps_kept + 1
        self._final_rows = num_envs + capacity // SHORTEST_EPISODE if final_rows is None else final_rows
        if self._final_rows < num_envs:
            raise UserError(f"final_rows {self._final_rows} is fewer than the {num_envs} environments")
        ring_rows = self._ring * num_envs
        # The side cache lies behind the ring in the same storage: every successor is one gather, no second look.
        self._obs = Rows("observation", ring_rows + self._final_rows, obs_dim, dtype, self.device)
        self._action = Rows("action", ring_rows, action_dim, dtype, self.device)
        self._reward = torch.zeros(ring_rows, device=self.device)
        self._end = torch.full((ring_rows,), GOES_ON, dtype=torch.int32, device=self.device)
        self._final_owner = torch.full((self._final_rows,), -1)  # the step that each side-cache place belongs to
        self._finals = 0  # side-cache places ever used
        self._steps = 0  # steps ever added; step s lies in row s % ring
        self._oldest = 0  # the oldest step that may be sampled
        self._gamma_powers = torch.tensor([gamma**k for k in range(n_step + 1)], device=self.device)
        self._offsets = torch.arange(n_step, device=self.device)
        self.generator = Generator(self.device).manual_seed(seed)

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return (self._steps - self._oldest) * self.num_envs

    def start(self, obs: Tensor) -> None:
        """The first observations (E, D) after a reset. Episodes still open count as truncated at their newest step."""
        encoded = self._obs.encode(obs)
        rows = self._rows(self._steps)
        if self._steps:
            newest = self._rows(self._steps - 1)
            still_open = (self._end[newest] == GOES_ON).nonzero().squeeze(1)
            self._keep_finals(self._steps - 1, still_open, self._obs.data[rows][still_open])
        self._obs.write(rows, encoded)

    def add(self, action: Tensor, step: StepResult) -> None:
        """Store the actions (E, A) taken at the newest observations and what they led to.

        Raises:
            UserError: an observation, action or reward is NaN, infinite or beyond the storage type's range.
        """
        obs, next_obs = self._obs.encode(step.obs), self._obs.encode(step.next_obs)
        actions = self._action.encode(action)
        if not step.reward.isfinite().all():
            env = int(step.reward.isfinite().logical_not().nonzero()[0])
            raise UserError(f"the reward of environment {env} is {step.reward[env].item()}, not a finite number")
        rows = self._rows(self._steps)
        self._action.write(rows, actions)
        self._reward[rows] = step.reward.to(self.device)
        self._end[rows] = torch.where(step.terminated, TERMINATED, GOES_ON).to(self.device, torch.int32)
        cut = (step.truncated & ~step.terminated).nonzero().squeeze(1)
        if cut.numel():
            self._keep_finals(self._steps, cut, next_obs[cut])
        self._obs.write(self._rows(self._steps + 1), obs)
        self._steps += 1
        self._oldest = max(self._oldest, self._steps - self.steps_kept)

    def sample(self, batch_size: int, batches: int | None = None) -> TensorDict:
        """Transitions drawn uniformly with replacement, shape (batch_size,) or, for several updates in one gather,
        (batches, batch_size). Everything float32 on the buffer's device except `terminated`:

        observation, action: (..., D), (..., A), where the window starts.
        reward: sum of gamma^i r_i over the window's k <= n_step steps; it ends with the episode or the newest step.
        next_observation: the true successor of the window's last step; of no meaning where that step terminated.
        terminated: bool, the window's last step terminated. A truncated step is no different from any other.
        discount: what to multiply the value of next_observation by: gamma^k, and 0 where terminated.
        """
        if not len(self):
            raise UserError("the replay buffer is empty: nothing to sample")
        shape = (batch_size,) if batches is None else (batches, batch_size)
        drawn = torch.randint(len(self), (batch_size * (batches or 1),), device=self.device, generator=self.generator)
        env, first = drawn % self.num_envs, drawn // self.num_envs + self._oldest

        window = first[:, None] + self._offsets
        rows = window % self._ring * self.num_envs + env[:, None]
        end = self._end[rows]
        ended = end != GOES_ON
        # A window takes every step up to and with the first that ends an episode, as far as steps exist.
        taken = (ended.cumsum(1) - ended.long() == 0) & (window < self._steps)
        length = taken.sum(1)
        reward = (self._reward[rows] * self._gamma_powers[:-1] * taken).sum(1)
        last_end = end.gather(1, length[:, None] - 1).squeeze(1)
        terminated = last_end == TERMINATED
        successor = (first + length) % self._ring * self.num_envs + env
        successor = torch.where(last_end >= 0, last_end + self._ring * self.num_envs, successor)

        obs, next_obs = self._obs.read(torch.cat([rows[:, 0], successor])).chunk(2)
        fields = {
            "observation": obs,
            "action": self._action.read(rows[:, 0]),
            "reward": reward,
            "next_observation": next_obs,
            "terminated": terminated,
            "discount": self._gamma_powers[length] * ~terminated,
        }
        shaped = {name: field.view(*shape, *field.shape[1:]) for name, field in fields.items()}
        return TensorDict(shaped, batch_size=shape)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit. The tensors are the buffer's own, not copies, as in `nn.Module`."""
        return {
            "observation": self._obs.data,
            "action": self._action.data,
            "reward": self._reward,
            "end": self._end,
            "final_owner": self._final_owner,
            "finals": self._finals,
            "steps": self._steps,
            "oldest": self._oldest,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a buffer of the same sizes and storage type.

        Raises:
            UserError: a tensor has another shape or type.
        """
        own = self.state_dict()
        tensors = [name for name in own if isinstance(own[name], Tensor) and name != "generator"]
        for name in tensors:
            if state[name].shape != own[name].shape or state[name].dtype != own[name].dtype:
                raise UserError(
                    f"the saved replay buffer's {name} is {tuple(state[name].shape)} {state[name].dtype}, "
                    f"this one's {tuple(own[name].shape)} {own[name].dtype}"
                )
        for name in tensors:
            own[name].copy_(state[name])
        self._finals, self._steps, self._oldest = int(state["finals"]), int(state["steps"]), int(state["oldest"])
        self.generator.set_state(state["generator"].cpu())

    def _rows(self, step: int) -> slice:
        first = step % self._ring * self.num_envs
        return slice(first, first + self.num_envs)

    def _keep_finals(self, step: int, envs: Tensor, encoded: Tensor) -> None:
        """Put the true successors of `step` in some environments into the side cache, over the oldest ones there."""
        places = (self._finals + torch.arange(envs.numel())) % self._final_rows
        freed = int(self._final_owner[places].max()) + 1 if envs.numel() else 0
        if freed > self._oldest:
            warnings.warn(
                f"the replay buffer gives up steps early: more than {self._final_rows} truncated episodes in "
                f"{self.steps_kept * self.num_envs} transitions; raise final_rows",
                stacklevel=3,
            )
            self._oldest = freed
        self._final_owner[places] = step
        places = places.to(self.device)
        self._obs.write(self._ring * self.num_envs + places, encoded)
        self._end[step % self._ring * self.num_envs + envs.to(self.device)] = places.int()
        self._finals += envs.numel()
