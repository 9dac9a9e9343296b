"""What an environment's observations and actions look like, as a policy keeps them: without gymnasium, as JSON.

Agents see every observation as D float32 numbers in a row and give every action as A numbers. Between these rows and
the environment's own arrays stand two classes: `ObservationSpace` is the only way in, `ActionSpace` the only way out.
Training and `predict` use the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from iquitos_rl.errors import UserError

Whole = Annotated[int, Field(ge=-(2**64), le=2**64)]
Size = Annotated[int, Field(ge=0, le=10**9)]
Choices = tuple[Annotated[int, Field(ge=1, le=10**9)], ...]
Dtype = Annotated[str, Field(pattern="^(bool|u?int(8|16|32|64)|float(16|32|64))$")]
Bound = Whole | float | Literal["inf", "-inf"]
"""JSON has no infinity. Integers stay integers, exact at any size."""


def _require_sizes(space: ObservationPart | ActionSpace) -> None:
    """Raises ValueError: a list does not have one entry, or one for each number of the array."""
    count = math.prod(space.shape)
    if (space.choices is None) != (space.start is None):
        raise ValueError("choices and start belong together")
    if not all(own is None or len(own) == count for own in (space.choices, space.start)):
        raise ValueError("choices and start must have an entry for each number of the array")
    if not all(own is None or len(own) in (1, count) for own in (space.low, space.high)):
        raise ValueError("low and high must have one entry, or one for each number of the array")


class ObservationPart(BaseModel):
    """One array of an observation: numbers as they are, or choices, each of which becomes a one in a row of zeros."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: tuple[str | Size, ...] = Field((), description="Keys that lead to it in a Dict or Tuple; none for a Box.")
    shape: tuple[Size, ...] = Field(description="The array's.")
    dtype: Dtype = Field("float32", description="The array's.")
    low: list[Bound] | None = Field(None, description="Least values; one where all are the same, null where unknown.")
    high: list[Bound] | None = Field(None, description="Largest values, likewise.")
    choices: Choices | None = Field(None, description="How many there are for each number; null for numbers.")
    start: tuple[Whole, ...] | None = Field(None, description="The first choice's number, for each.")

    @model_validator(mode="after")
    def _sound(self) -> ObservationPart:
        _require_sizes(self)
        return self

    @property
    def width(self) -> int:
        """Columns that it takes in a row."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.choices is None else sum(self.choices)

    @property
    def is_bytes(self) -> bool:
        """Whether it holds whole numbers from 0 to 255, as images do."""
        return self.choices is None and self.dtype == "uint8"

    @property
    def is_image(self) -> bool:
        """Whether it is an image: bytes of height and width, and of channels, which come first or last."""
        return self.is_bytes and len(self.shape) in (2, 3) and sorted(self.shape)[-2] >= MIN_IMAGE

    @property
    def name(self) -> str:
        """For messages."""
        return ".".join(map(str, self.path))

    def rows(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Arrays (N, *shape) to rows (N, width). Raises UserError: a choice is not one of those there are, or a
        byte is none."""
        flat = array.reshape(len(array), math.prod(self.shape))
        if self.is_bytes and array.dtype != np.uint8 and (flat != flat.astype(np.uint8)).any():
            raise UserError(f"the observation{_of(self.name)} has numbers that are no bytes, and its space says uint8")
        if self.choices is None:
            with np.errstate(over="ignore"):
                return flat.astype(np.float32)
        columns = flat.astype(np.int64) - np.array(self.start)
        if (columns != flat - np.array(self.start)).any() or ((columns < 0) | (columns >= self.choices)).any():
            raise UserError(f"the observation{_of(self.name)} {_short(flat)} is no choice of its space")
        found = np.zeros((len(flat), self.width), np.float32)
        offsets = np.concatenate([[0], np.cumsum(self.choices)[:-1]])
        np.put_along_axis(found, columns + offsets, 1.0, axis=1)
        return found


MIN_IMAGE = 16
"""Pixels in height and width from which an array of bytes is taken for an image."""


class ObservationSpace(BaseModel):
    """The parts of an observation, in the order in which a row holds them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    parts: tuple[ObservationPart, ...]

    @classmethod
    def flat(cls, width: int) -> ObservationSpace:
        """One float32 array of `width` numbers of which nothing more is known."""
        return cls(parts=(ObservationPart(shape=(width,)),))

    @property
    def width(self) -> int:
        """D."""
        return sum(part.width for part in self.parts)

    @cached_property
    def _plain(self) -> bool:
        """Whether there is one array, of numbers that float32 holds."""
        part = self.parts[0]
        return len(self.parts) == 1 and part.choices is None and part.dtype in ("float32", "float16", "uint8")

    def columns(self) -> list[tuple[ObservationPart, slice]]:
        """Every part and the columns of a row that it takes."""
        ends = np.cumsum([part.width for part in self.parts]).tolist()
        return [(part, slice(end - part.width, end)) for part, end in zip(self.parts, ends)]

    def batch(self, obs: Any) -> tuple[NDArray[np.float32], bool]:
        """An observation, or a batch of them, as rows (N, D), and whether it was a batch. The rows are a copy, since an
        environment may write its next observation into the same array.

        Args:
            obs: an array (*shape) or (N, *shape), or the Dict's or Tuple's arrays.

        Raises:
            UserError: it is no such observation.
        """
        one = self.parts[0]
        if self._plain and type(obs) is np.ndarray and obs.shape == one.shape and obs.dtype == one.dtype:
            return obs.reshape(1, -1).astype(np.float32), False  # what nearly all environments return at every step
        arrays = [_array(part, obs) for part in self.parts]
        batched = self.is_batch(arrays)
        found = [part.rows(array if batched else array[None]) for part, array in zip(self.parts, arrays)]
        if len({len(rows) for rows in found}) > 1:
            raise UserError(f"the parts of the observation are {[len(rows) for rows in found]} observations")
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1), batched

    def rows(self, obs: Any, count: int) -> NDArray[np.float32]:
        """The rows of exactly so many observations. Raises UserError: as `batch`, or there are more or fewer."""
        found = self.batch(obs)[0]
        if len(found) != count:
            raise UserError(f"the environment returned {len(found)} observations where {count} are expected")
        return found

    def is_batch(self, arrays: Sequence[Any]) -> bool:
        """Whether arrays, one for each part, have a batch axis. Raises UserError: a shape is not that of the space."""
        for part, array in zip(self.parts, arrays):
            if tuple(array.shape) != part.shape and tuple(array.shape[1:]) != part.shape:
                inner = ", ".join(map(str, part.shape))
                one, many = f"({inner}{',' * (len(part.shape) == 1)})", f"(B{', ' * bool(inner)}{inner})"
                where = f"{part.name} of an observation" if part.path else "an observation"
                raise UserError(f"{where} must have shape {one} or {many}, not {tuple(array.shape)}")
        batched = {array.ndim > len(part.shape) for part, array in zip(self.parts, arrays)}
        if len(batched) > 1:
            raise UserError("some parts of the observation have a batch axis and others have none")
        return batched.pop()

    def column_name(self, column: int) -> str:
        """A column of a row for messages: `3`, or `3 (camera)` where there are several parts."""
        part = next((part for part, place in self.columns() if place.start <= column < place.stop), None)
        return f"{column} ({part.name})" if part is not None and part.path else str(column)

    def must_equal(self, saved: ObservationSpace) -> None:
        """Raises UserError: the parts differ, or bounds that both know."""
        if [part.path for part in self.parts] != [part.path for part in saved.parts]:
            here, there = ([part.name for part in space.parts] for space in (self, saved))
            raise UserError(f"the environment's observation has the parts {here}, the saved policy's has {there}")
        for own, other in zip(self.parts, saved.parts):
            for name in ("shape", "dtype", "choices", "start", "low", "high"):
                here, there = getattr(own, name), getattr(other, name)
                if here != there and not (name in ("low", "high", "dtype") and None in (own.low, other.low)):
                    raise UserError(
                        f"the {name} of the environment's observation{_of(own.name)} is {_short(here)}, "
                        f"the saved policy was trained with {_short(there)}"
                    )


class ActionSpace(BaseModel):
    """What an agent's A numbers mean: a place in [-1, 1] between two bounds, or the number of a choice from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["box", "discrete", "multi"] = Field(description="multi: MultiDiscrete or MultiBinary.")
    shape: tuple[Size, ...] = Field(description="The environment's array's.")
    dtype: Dtype = Field("float32", description="The environment's array's.")
    low: list[Bound] | None = Field(None, description="A box's bounds; one where all are the same.")
    high: list[Bound] | None = None
    choices: Choices | None = Field(None, description="How many there are, for each of the A numbers.")
    start: tuple[Whole, ...] | None = Field(None, description="The first choice's number, for each.")

    @model_validator(mode="after")
    def _sound(self) -> ActionSpace:
        _require_sizes(self)
        if (self.kind == "box") != (self.choices is None):
            raise ValueError("choices belong to kinds other than box")
        if self.kind == "box":
            try:
                low, high = _box(self)  # not `bounds`, which would be kept in the model
            except (AssertionError, OverflowError, TypeError, ValueError):
                raise ValueError(f"low and high must be numbers of type {self.dtype}") from None
            if not (low <= high).all():
                raise ValueError("low must not be above high")
        return self

    @classmethod
    def flat(cls, low: Sequence[float], high: Sequence[float]) -> ActionSpace:
        """A float32 box (A,)."""
        return cls(kind="box", shape=(len(low),), low=kept(np.array(low)), high=kept(np.array(high)))

    @property
    def width(self) -> int:
        """A."""
        return int(np.prod(self.shape, dtype=np.int64))

    @cached_property
    def bounds(self) -> NDArray[Any]:
        """(2, *shape) lowest and highest value, in the environment's type."""
        return _box(self)

    @cached_property
    def _stretch(self) -> tuple[NDArray[Any], ...]:
        """The bounds, and in float64 half of the lower one and half of their distance."""
        below, above = self.bounds.astype(np.float64) / 2
        return *self.bounds, below, above - below

    def values(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Actions (N, A) of an agent as the environment takes them: (N, *shape), its type, always inside the space.

        A number of an integer box is the place in [-1, 1] cut into equal parts, one for each integer.

        Raises:
            UserError: an action is NaN.
        """
        rows = np.asarray(rows, dtype=np.float64)
        if (rows != rows).any():
            env, column = np.argwhere(np.isnan(rows))[0]
            raise UserError(f"action {column} of environment {env} is NaN")
        rows = rows.reshape(len(rows), *self.shape)
        if self.choices is not None:
            most, start = (np.array(x).reshape(self.shape) for x in (self.choices, self.start))
            return (np.clip(rows, 0, most - 1).astype(np.int64) + start).astype(self.dtype)
        low, high, half_low, half_range = self._stretch
        if ends := bool((np.abs(rows) >= 1).any()):
            rows = np.minimum(np.maximum(rows, -1), 1)
        share = (rows + 1) / 2
        if self.dtype.startswith(("int", "uint")):
            below, above = low.astype(np.float64), high.astype(np.float64)
            numbers = np.floor(below + share * (above - below + 1))
            inside = np.where((numbers > below) & (numbers < above), numbers, 0)  # a bound may be no float64
            found = np.where(numbers <= below, low, np.where(numbers >= above, high, inside.astype(self.dtype)))
            return np.where(rows <= -1, low, np.where(rows >= 1, high, found))
        # Halved, since the distance of two bounds may be no float64; this changes no bit where it is one.
        found = (2 * np.minimum(half_low + share * half_range, half_low + half_range)).astype(self.dtype)
        found = np.minimum(np.maximum(found, low), high)
        if ends:
            found = np.where(rows <= -1, low, np.where(rows >= 1, high, found))
        return found

    def one(self, value: Any) -> Any:
        """An entry of `values` as an environment's `step` takes it: an integer for Discrete, else an array."""
        return value if self.kind == "discrete" else np.asarray(value)

    def must_equal(self, saved: ActionSpace) -> None:
        """Raises UserError: the spaces differ."""
        for name in ("kind", "shape", "dtype", "choices", "start", "low", "high"):
            here, there = getattr(self, name), getattr(saved, name)
            if here != there:
                raise UserError(
                    f"the {name} of the environment's action is {_short(here)}, "
                    f"the saved policy was trained with {_short(there)}"
                )


def _box(space: ActionSpace) -> NDArray[Any]:
    """See `ActionSpace.bounds`."""
    assert space.low is not None
    assert space.high is not None
    kind = np.dtype(space.dtype)
    each = [np.array([kind.type(x) for x in bound], kind) for bound in (space.low, space.high)]
    return np.stack([np.broadcast_to(x if x.size > 1 else x[0], (space.width,)).reshape(space.shape) for x in each])


def kept(bound: NDArray[Any]) -> list[Bound]:
    """Bounds as JSON takes them; one number where all are the same."""
    flat = bound.reshape(-1)
    some = flat[:1] if flat.size and (flat == flat[0]).all() else flat
    return [_kept(x) for x in some.tolist()]


def _kept(x: float) -> Bound:
    return x if abs(x) < float("inf") else "inf" if x > 0 else "-inf"


def _array(part: ObservationPart, obs: Any) -> NDArray[Any]:
    """The array of a part. Raises UserError: there is none, or it holds no numbers."""
    of_tuple = bool(part.path) and isinstance(part.path[0], int)
    if isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], Mapping) and not of_tuple:
        raise UserError("an observation must be an array, not the pair that reset returns: obs, info = env.reset()")
    for key in part.path:
        try:
            obs = obs[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise UserError(f"the observation has no {part.name}: it is a {type(obs).__name__}") from None
    if isinstance(obs, Mapping | str | bytes) or obs is None:
        raise UserError(f"an observation{_of(part.name)} must be an array, not a {type(obs).__name__}")
    if hasattr(obs, "detach"):  # a tensor
        obs = obs.detach().cpu()
    try:
        array = np.asarray(obs)
        if array.dtype.kind not in "biuf":
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"the observation{_of(part.name)} does not consist of numbers in one array") from None
    return array


def _of(name: str) -> str:
    return f" {name}" if name else ""


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
