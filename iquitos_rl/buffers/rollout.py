"""Storage for the on-policy algorithms: T steps of E environments, allocated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iquitos_rl.buffers.registry import CODECS, RolloutStorage
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

FINAL_STEPS = 8  # the side table of final observations has room for E times this many, or T / 16 where that is more

FIELDS = ("obs", "action", "log_prob", "reward", "terminated", "truncated", "live", "_final_row")
"""Tensors with a row for each step."""


def storage_type(storage: RolloutStorage) -> torch.dtype:
    """The type of a rollout's observations. Raises UserError: there is no such codec, or it is no plain cast."""
    dtype = CODECS.require(storage).dtype
    if dtype is None:
        raise UserError(f"storage {storage} cannot hold a rollout")
    return dtype


class Rollout:
    """T steps of E environments on one device, filled in order and read as a whole.

    `obs` holds what the policy saw (normalised, in the storage type), so log-probabilities computed from it are those
    the actions were drawn with. The observation behind a step is the next row, and is not stored again: only a
    truncated episode's last one is, in a side table, for it is the sole one that is both lost to the reset and worth
    a value. Adding a step does not wait for the device: the table's next free row is counted there, and the host, which
    knows only the most there can be, asks when the table might be full.
    """

    def __init__(
        self,
        horizon: int,
        num_envs: int,
        obs_dim: int,
        action_dim: int,
        *,
        masked: bool = False,
        obs_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (horizon, num_envs)

        def full(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full(size, 0, dtype=dtype, device=device)  # written at once: a zeros() page has no memory yet

        self.horizon, self.num_envs = horizon, num_envs
        self.obs = full(*shape, obs_dim, dtype=obs_dtype)
        self.action = full(*shape, action_dim)
        self.log_prob = full(*shape)
        self.reward = full(*shape)
        self.terminated = full(*shape, dtype=torch.bool)
        self.truncated = full(*shape, dtype=torch.bool)
        self.live = full(*shape, action_dim, dtype=torch.bool) if masked else None
        # One row more than may be used: writes for environments that were not truncated go there and are never read.
        rows = num_envs * min(horizon, max(FINAL_STEPS, horizon // 16)) + 1
        self.final_obs = full(rows, obs_dim, dtype=obs_dtype)
        self._final_row = full(*shape, dtype=torch.int64)
        self._used = full(dtype=torch.int64)
        self._most_used = 0
        self._cursor = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors here; ask a rollout on the `meta` device to know them before they are taken."""
        return sum(t.nbytes for t in vars(self).values() if isinstance(t, Tensor))

    @property
    def steps(self) -> int:
        """Steps added since `clear`."""
        return self._cursor

    def clear(self) -> None:
        """Start again at step 0."""
        self._cursor = self._most_used = 0
        self._used.zero_()

    def add(
        self, obs: Tensor, action: Tensor, log_prob: Tensor, live: Tensor | None, step: StepResult, final_obs: Tensor
    ) -> None:
        """Append one step: obs (E, D) as the policy saw it, action (E, A), log_prob (E,), live (E, A) where `masked`,
        the reward and the end flags of `step`, and final_obs (E, D), its `next_obs` in the form of `obs`."""
        t = self._cursor
        self.obs[t] = obs
        self.action[t] = action
        self.log_prob[t] = log_prob
        self.reward[t] = step.reward
        self.terminated[t] = step.terminated
        self.truncated[t] = step.truncated
        if self.live is not None and live is not None:
            self.live[t] = live
        self._keep_final(t, step.truncated & ~step.terminated, final_obs)
        self._cursor += 1

    def final_rows(self) -> tuple[Tensor, Tensor]:
        """The kept final observations (N, D), and (T, E) the row each step's is in, -1 where it has none."""
        kept = self.truncated & ~self.terminated
        return self.final_obs[: int(self._used)], torch.where(kept, self._final_row, -1)

    def not_finite(self, last_obs: Tensor) -> tuple[int, str] | None:
        """The first number in a full rollout that is not finite, or was too large for the storage type: after how many
        steps it came, and what it is. None where all are finite, which asks the device once.

        Args:
            last_obs: (E, D), the observation after the last step, in the form of `obs`.
        """
        bounds = [bound for rows in (self.obs.flatten(0, 1), last_obs) for bound in rows.aminmax(dim=0)]
        if torch.cat([*bounds, *self.reward.aminmax(dim=1)]).isfinite().all():
            return None
        for t, obs in enumerate([*self.obs, last_obs]):
            if t and not (finite := self.reward[t - 1].isfinite()).all():
                return t, f"the reward of environment {int(finite.int().argmin())} is not a finite number"
            if not (finite := obs.isfinite()).all():
                env, column = (~finite).nonzero()[0].tolist()
                kind = str(obs.dtype).removeprefix("torch.")
                return t, f"observation column {column} of environment {env} is not a finite number as {kind}"
        return None

    def state_dict(self) -> dict[str, Any]:
        """The steps added since `clear`, as views; waits for the device."""
        rows = {name: getattr(self, name)[: self._cursor] for name in FIELDS if getattr(self, name) is not None}
        return {"rows": rows, "final_obs": self.final_obs[: int(self._used)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the middle of a rollout of the same sizes."""
        for name, rows in state["rows"].items():
            getattr(self, name)[: len(rows)] = rows
        self._cursor, self._most_used = len(state["rows"]["obs"]), len(state["final_obs"])
        self._used.fill_(self._most_used)
        self._make_room(self._most_used)
        self.final_obs[: self._most_used] = state["final_obs"]

    def _keep_final(self, t: int, kept: Tensor, final_obs: Tensor) -> None:
        if self._most_used + self.num_envs >= self.final_obs.shape[0]:
            self._most_used = int(self._used)
            self._make_room(self._most_used + self.num_envs)
        row = torch.where(kept, self._used + kept.cumsum(0) - 1, self.final_obs.shape[0] - 1)
        self.final_obs[row] = final_obs.to(self.final_obs.dtype)
        self._final_row[t] = row
        self._used += kept.sum()
        self._most_used += self.num_envs

    def _make_room(self, rows: int) -> None:
        while self.final_obs.shape[0] <= rows:
            self.final_obs = torch.cat([self.final_obs, torch.zeros_like(self.final_obs)])
