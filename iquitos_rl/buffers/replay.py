"""The replay buffer: E parallel streams in one ring, each observation stored once, without known columns.

A step's successor is the next row of the same environment. Only where an episode was cut off (truncated) is that row
the first of another episode; there the true successor is kept in a small side cache. A terminated step needs none, its
bootstrap is zero. Leaving out the second copy halves a buffer; the side cache is what keeps that correct at time limits
(as in cpprb's `next_of`). Columns that no action changes are stored as a row's number, others by `codecs.py`; the bytes
may lie in other memory than the device that trains, see `placement.py`. None of this changes which transitions are
drawn.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from tensordict import TensorDict
from torch import Generator, Tensor

from iquitos_rl.buffers.codecs import BYTES, Layout
from iquitos_rl.buffers.placement import Item, Memory, Transfer, Where, choose_placement, refuse_too_large
from iquitos_rl.buffers.registry import CODECS, Placement, Storage
from iquitos_rl.envs.vector import Exogenous, StepResult
from iquitos_rl.errors import UserError

GOES_ON, TERMINATED = -1, -2
"""Values of the `end` column; a number from 0 means truncated and is the successor's place in the side cache."""

SHORTEST_EPISODE = 24  # the side cache has room for truncated episodes of this mean length (hours of a day)


class Sizes(NamedTuple):
    """What a replay buffer of some capacity consists of."""

    steps_kept: int  # steps of every environment that can be sampled
    ring_rows: int  # one step more than kept: the newest one's successor, which becomes the next step's observation
    final_rows: int  # places for true successors of truncated steps

    @classmethod
    def of(cls, capacity: int, num_envs: int, final_rows: int | None = None, episode_steps: int | None = None) -> Sizes:
        steps_kept = capacity // num_envs
        if final_rows is None and episode_steps is not None:
            final_rows = num_envs * (2 + steps_kept // episode_steps)  # one more for an open episode, one for a reset
        elif final_rows is None:
            final_rows = num_envs + capacity // SHORTEST_EPISODE
        return cls(steps_kept, (steps_kept + 1) * num_envs, final_rows)

    def nbytes(self, obs_bytes: int, action_bytes: int) -> int:
        """All storage, from the widths of the records: observations, actions, reward and end of each step, and whose
        each final observation is."""
        steps = self.ring_rows * (action_bytes + 4 + 4)
        return (self.ring_rows + self.final_rows) * obs_bytes + steps + self.final_rows * 8


def resolve_storage(storage: Storage, exogenous: Exogenous | None) -> str:
    """The codec of what is not in a table. `auto` is uint8 for sites, whose columns have static bounds, else float32:
    a column of an unknown environment may hold years or coordinates, which fewer bits do not tell apart.
    Raises UserError: there is no such codec, or it needs bounds, and the environment declares none."""
    if storage == "auto":
        return "float32" if exogenous is None else "uint8"
    if CODECS.require(storage).bounded and exogenous is None:
        raise UserError(
            f"storage {storage} needs static bounds of the observation, which this environment does not declare"
        )
    return storage


def layouts(
    storage: str,
    obs_dim: int,
    action_dim: int,
    exogenous: Exogenous | None,
    device: torch.device,
    byte_columns: Sequence[int] = (),
    choices: bool = False,
) -> tuple[Layout, Layout]:
    """The records of observations and of actions, which are in [-1, 1] or the numbers of choices."""
    codecs = [storage] * obs_dim
    if CODECS.require(storage).bounded and exogenous is not None:
        # Meters are what bills are made of: they keep eleven bits.
        codecs = [storage if column in exogenous.coarse else "float16" for column in range(obs_dim)]
    for column in byte_columns:
        codecs[column] = BYTES
    table = None if exogenous is None else exogenous.table.to(device)
    of_action = ["float32" if choices else storage] * action_dim
    return Layout("observation", codecs, table, device), Layout("action", of_action, None, device)


class ReplayBuffer:
    """The newest transitions of E environments, for uniform sampling with n-step returns.

    Call `start(obs)` after the environments' reset, then `add(action, step)` once per step. All storage is allocated
    and written by the constructor.

    Args:
        capacity: transitions over all environments; rounded down to a multiple of E.
        n_step: the longest return; it stops at an episode's end and at the newest step.
        storage: how observations and actions are stored, see `resolve_storage`. Rewards are always float32.
        placement: where; `auto` takes the fastest place with enough room.
        device: where batches are wanted.
        exogenous: the environment's, if it has one; then `start` and `add` need the present one too.
        final_rows: places for true successors of truncated steps. When they run out, the oldest steps are given up
            early, with a warning. By default enough for episodes of `episode_steps`, or of `SHORTEST_EPISODE` steps.
        episode_steps: the length of every episode but the first, where the environment knows it.
        folder: where a file goes with placement disk; by default the system's folder for temporary files.
        byte_columns: columns of an observation that are whole numbers from 0 to 255; stored as such.
        choices: whether actions are the numbers of choices.

    Raises:
        UserError: the sizes are impossible, or there is no room: with placement `auto`, where it would take more than
            half of the free memory.
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
        storage: Storage = "auto",
        placement: Placement | Literal["auto"] = "auto",
        device: torch.device | str = "cpu",
        seed: int = 0,
        exogenous: Exogenous | None = None,
        final_rows: int | None = None,
        episode_steps: int | None = None,
        folder: Path | str | None = None,
        byte_columns: Sequence[int] = (),
        choices: bool = False,
    ) -> None:
        if capacity < num_envs:
            raise UserError(f"a replay buffer of {capacity} cannot hold one step of {num_envs} environments")
        self.device = torch.device(device)
        self.num_envs, self.n_step = num_envs, n_step
        sizes = Sizes.of(capacity, num_envs, final_rows, episode_steps)
        self.steps_kept, self._ring, self._final_rows = sizes.steps_kept, sizes.steps_kept + 1, sizes.final_rows
        if self._final_rows < num_envs:
            raise UserError(f"final_rows {self._final_rows} is fewer than the {num_envs} environments")
        self.storage = resolve_storage(storage, exogenous)
        self._obs_layout, self._action_layout = layouts(
            self.storage, obs_dim, action_dim, exogenous, self.device, byte_columns, choices
        )
        self.nbytes = sizes.nbytes(self._obs_layout.nbytes, self._action_layout.nbytes)
        self.placement = choose_placement(self.nbytes, self.device) if placement == "auto" else placement
        if self.device.type != "meta":  # which plans for any machine
            refuse_too_large(self.nbytes, capacity, self.placement, chosen=placement == "auto")
        self._memory = Memory(self.placement, self.device, folder)
        self._home = home = self._memory.device
        self._episode_steps = episode_steps
        direct = self.placement == "cuda" or self.device.type == "cpu"
        self._transfer = None if direct else Transfer(self.device)
        # The side cache lies behind the ring in the same storage: every successor is one gather, no second look.
        self._obs = self._memory.matrix(sizes.ring_rows + self._final_rows, self._obs_layout.nbytes)
        self._action = self._memory.matrix(sizes.ring_rows, self._action_layout.nbytes)
        # Looked up before anything is gathered, so never on disk; empty().fill_() has written every page, zeros() not.
        self._reward = torch.empty(sizes.ring_rows, device=home).fill_(0)
        self._end = torch.full((sizes.ring_rows,), GOES_ON, dtype=torch.int32, device=home)
        self._final_owner = torch.full((self._final_rows,), -1)  # the step that each side-cache place belongs to
        self._finals = 0  # side-cache places ever used
        # Steps ever added; step s lies in row s % ring. On the meta device any step can be sampled.
        self._steps = int(home.type == "meta")
        self._oldest = 0  # the oldest step that may be sampled
        self._saturated = torch.zeros((), dtype=torch.int64, device=self.device)
        self._gamma_powers = torch.tensor([gamma**k for k in range(n_step + 1)], device=home)
        self._offsets = torch.arange(n_step, device=home)
        # On the CPU, so that a seed draws the same transitions on every device and from every placement.
        self.generator = Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return (self._steps - self._oldest) * self.num_envs

    @property
    def saturated(self) -> int:
        """Numbers so far that lay outside [-1, 1] where uint8 storage cannot follow. Waits for the device."""
        return int(self._saturated)

    def start(self, obs: Tensor, exogenous: Exogenous | None = None) -> None:
        """The first observations (E, D) after a reset. Episodes still open count as truncated at their newest step.
        Raises UserError: an observation is NaN, infinite, beyond the storage type's range, or not what the table
        says."""
        layout = self._obs_layout
        layout.check(obs, layout.fitting(obs))
        row = self._row(None if exogenous is None else exogenous.row)
        if layout.table is not None and row is not None:
            known = layout.table.index_select(0, row)
            if not torch.equal(known, obs[:, : known.shape[1]]):
                raise UserError("the first columns of the observation are not the rows of the environment's table")
        encoded, rows = layout.encode(obs, row), self._rows(self._steps)
        if self._steps:
            still_open = (self._end[self._rows(self._steps - 1)] == GOES_ON).nonzero().squeeze(1)
            self._keep_finals(self._steps - 1, still_open, self._obs[rows][still_open])
        self._obs[rows] = encoded.to(self._home)

    def add(self, action: Tensor, step: StepResult, exogenous: Exogenous | None = None) -> None:
        """Store the actions (E, A) taken at the newest observations and what they led to. Raises UserError: an
        observation, action or reward is NaN, infinite or beyond the storage type's range."""
        self._check(action, step)
        obs_layout, action_layout = self._obs_layout, self._action_layout
        row, next_row = (None, None) if exogenous is None else (exogenous.row, exogenous.next_row)
        obs = obs_layout.encode(step.obs, self._row(row))
        self._saturated += obs_layout.saturated(step.next_obs) + action_layout.saturated(action)
        rows = self._rows(self._steps)
        self._action[rows] = action_layout.encode(action).to(self._home)
        self._reward[rows] = step.reward.to(self._home)
        self._end[rows] = torch.where(step.terminated, TERMINATED, GOES_ON).to(self._home, torch.int32)
        cut = (step.truncated & ~step.terminated).nonzero().squeeze(1)
        if cut.numel():
            finals = obs_layout.encode(step.next_obs, self._row(next_row))[cut]
            self._keep_finals(self._steps, cut.to(self._home), finals.to(self._home))
        self._obs[self._rows(self._steps + 1)] = obs.to(self._home)
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
        shape = (batch_size,) if batches is None else (batches, batch_size)
        return self._receive(self._send(*self._draw(batch_size * (batches or 1)))).reshape(shape)

    def batches(self, batch_size: int, count: int) -> Iterator[TensorDict]:
        """The batches of `sample(batch_size, count)`, one after the other. From other memory than the device's, each is
        on its way while its predecessor is being used."""
        if self._transfer is None:
            yield from self.sample(batch_size, count)
            return
        parts = zip(*(tensor.split(batch_size) for tensor in self._draw(batch_size * count)))
        sent = self._send(*next(parts))
        for following in parts:
            present, sent = sent, self._send(*following)
            yield self._receive(present)
        yield self._receive(sent)

    def items(self, capacity: int, placement: Placement | Literal["auto"]) -> list[Item]:
        """What a buffer like this one takes with another capacity, in another place, by default in RAM."""
        sizes = Sizes.of(capacity, self.num_envs, episode_steps=self._episode_steps)
        nbytes = sizes.nbytes(self._obs_layout.nbytes, self._action_layout.nbytes)
        if placement == "disk":
            # Pages of the file that are in RAM are the system's to take back, so they count nowhere.
            index = sizes.ring_rows * 8
            return [Item("replay file", "disk", nbytes - index), Item("replay index", "ram", index)]
        where: Where = "device" if placement == "cuda" else "ram"
        return [Item(f"replay of {capacity:,}, {self.storage}", where, nbytes)]

    def close(self) -> None:
        """Give back page-locked memory and files; the buffer must not be used any more."""
        self._memory.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit. The tensors are the buffer's own, not copies, as in `nn.Module`."""
        return {
            "observation": self._obs,
            "action": self._action,
            "reward": self._reward,
            "end": self._end,
            "final_owner": self._final_owner,
            "finals": self._finals,
            "steps": self._steps,
            "oldest": self._oldest,
            "saturated": self._saturated,
            "storage": self.storage,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of a buffer of the same sizes and storage type, whatever its placement. Raises UserError:
        it is another kind of buffer's."""
        if state["storage"] != self.storage:
            raise UserError(f"the saved replay buffer's storage is {state['storage']}, this one's {self.storage}")
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

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Transitions, on the storage's device: (n,) rows of observation and action, (n,) row of the next observation,
        and (n, 3) float32 reward, discount and whether it terminated."""
        if not len(self):
            raise UserError("the replay buffer is empty: nothing to sample")
        drawn = torch.randint(len(self), (count,), generator=self.generator).to(self._home, non_blocking=True)
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
        figures = torch.stack([reward, self._gamma_powers[length] * ~terminated, terminated.float()], dim=1)
        return rows[:, 0], successor, figures

    def _send(self, first: Tensor, successor: Tensor, figures: Tensor) -> Any:
        obs = torch.cat([first, successor])
        if self._transfer is None:
            return self._obs.index_select(0, obs), self._action.index_select(0, first), figures
        whole = figures.view(torch.uint8), torch.arange(len(figures))
        return self._transfer.send((self._obs, obs), (self._action, first), whole)

    def _receive(self, sent: Any) -> TensorDict:
        obs, action, figures = sent if self._transfer is None else self._transfer.receive(sent)
        figures = figures.view(torch.float32)
        observation, next_observation = self._obs_layout.decode(obs).chunk(2)
        reward, discount, terminated = figures.mT.contiguous()  # in one piece, as `torch.compile` asks for every time
        fields = {
            "observation": observation,
            "action": self._action_layout.decode(action),
            "reward": reward,
            "next_observation": next_observation,
            "terminated": terminated.bool(),
            "discount": discount,
        }
        return TensorDict(fields, batch_size=(len(figures),))

    def _check(self, action: Tensor, step: StepResult) -> None:
        """Refuse what cannot be stored, before anything is; the device is asked once."""
        given = [(self._obs_layout, step.obs), (self._obs_layout, step.next_obs), (self._action_layout, action)]
        finite, fits = step.reward.isfinite(), [layout.fitting(values) for layout, values in given]
        if torch.stack([finite.all(), *(fit.all() for fit in fits)]).all():
            return
        for (layout, values), fit in zip(given, fits):
            layout.check(values, fit)
        env = int(finite.logical_not().nonzero()[0])
        raise UserError(f"the reward of environment {env} is {step.reward[env].item()}, not a finite number")

    def _row(self, row: Tensor | None) -> Tensor | None:
        """The table rows (E,) of the present observations, on the table's device."""
        if self._obs_layout.table is None:
            return None
        if row is None:
            raise UserError("the replay buffer was made for an environment with a table of observations: give its rows")
        return row.to(self.device)

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
        places = places.to(self._home)
        self._obs[self._ring * self.num_envs + places] = encoded
        self._end[step % self._ring * self.num_envs + envs] = places.int()
        self._finals += envs.numel()
