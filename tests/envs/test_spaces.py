"""The way in and the way out: every observation of a space becomes one row, every row an action inside the space."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl.envs.gym.spaces import action_of, observation_of
from iquitos_rl.envs.spaces import ActionSpace, ObservationSpace
from iquitos_rl.errors import UserError

SHAPES = [(), (1,), (2,), (3, 1), (2, 3)]
FLOATS, INTEGERS = ["float16", "float32", "float64"], ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]


@st.composite
def boxes(draw: st.DrawFn, infinite: bool = False, largest: float = np.inf) -> spaces.Box:
    """Boxes of every type and shape, from degenerate ones to those that span their type."""
    dtype, shape = draw(st.sampled_from(FLOATS + INTEGERS)), draw(st.sampled_from(SHAPES))
    size = int(np.prod(shape))
    if dtype in FLOATS:
        most = min(float(np.finfo(dtype).max), largest)
        number = st.floats(-most, most, width=int(dtype[5:])) | st.sampled_from([-most, most, 0.0, 0.125, -0.125])
        number = number | st.sampled_from([np.inf, -np.inf]) if infinite else number
    else:
        least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        number = st.integers(int(max(least, -largest)), int(min(most, largest)))
    bounds = st.tuples(number, number).filter(lambda pair: min(pair) < np.inf and max(pair) > -np.inf)
    pairs = draw(st.lists(bounds, min_size=size, max_size=size))
    kind = np.dtype(dtype).type
    low = np.array([kind(min(pair)) for pair in pairs], dtype).reshape(shape)
    high = np.array([kind(max(pair)) for pair in pairs], dtype).reshape(shape)
    return spaces.Box(low, high, dtype=kind)


def rows(width: int) -> st.SearchStrategy[list[list[float]]]:
    number = st.floats(-3, 3) | st.sampled_from([-1.0, 1.0, -np.inf, np.inf, 0.0])
    return st.lists(st.lists(number, min_size=width, max_size=width), min_size=1, max_size=3)


def again(space: Any) -> Any:
    """What comes back from a policy file."""
    return type(space).model_validate_json(space.model_dump_json())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_action_is_always_inside_its_box(data: st.DataObject) -> None:
    box = data.draw(boxes())
    way_out = again(action_of(box))
    assert way_out == action_of(box)
    width = int(np.prod(box.shape))
    given_rows = np.array(data.draw(rows(width)), np.float64).reshape(-1, width)
    for action in (way_out.one(x) for x in way_out.values(given_rows)):
        assert isinstance(action, np.ndarray)
        assert (action.shape, action.dtype) == (box.shape, box.dtype)
        assert box.contains(action)
    ends = way_out.values(np.array([[-1.0] * width, [1.0] * width]))
    assert np.array_equal(ends[0], box.low)
    assert np.array_equal(ends[1], box.high)


@settings(max_examples=100, deadline=None)
@given(boxes(infinite=True))
def test_a_box_without_bounds_is_one_sentence(box: spaces.Box) -> None:
    if np.isfinite(box.low).all() and np.isfinite(box.high).all():
        action_of(box)
    else:
        with pytest.raises(UserError, match="no finite bounds"):
            action_of(box)


@pytest.mark.parametrize(("low", "high"), [(0, 3), (-2, 2), (0, 1), (-5, 250)])
def test_every_integer_of_a_box_is_equally_likely(low: int, high: int) -> None:
    """A uniform action in [-1, 1], as at the start of training, is a uniform integer."""
    way_out = action_of(spaces.Box(low, high, (1,), np.int64))
    found = way_out.values(np.linspace(-1, 1, 100 * (high - low + 1) + 2)[1:-1, None]).ravel()
    assert np.array_equal(np.unique(found), np.arange(low, high + 1))
    assert set(np.unique(found, return_counts=True)[1].tolist()) <= {99, 100, 101}


def test_a_place_in_a_box_is_that_place() -> None:
    """Against the definition in float64, to the last bit where no bound is huge."""
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.normal(size=(2, 6)) * 100, axis=0).astype(np.float32)
    found = action_of(spaces.Box(low, high)).values(x := rng.uniform(-1, 1, (50, 6)))
    plain = low.astype(np.float64) + (x + 1) / 2 * (high.astype(np.float64) - low.astype(np.float64))
    assert np.array_equal(found, plain.astype(np.float32))


CHOICES: list[gymnasium.Space[Any]] = [
    spaces.Discrete(5),
    spaces.Discrete(3, start=-4),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
]


@pytest.mark.parametrize("space", CHOICES, ids=str)
def test_every_choice_is_reached_and_none_else(space: Any) -> None:
    way_out = again(action_of(space))
    counts = np.array(way_out.choices)
    for number in range(counts.max()):
        row = np.minimum(number, counts - 1)
        action = way_out.one(way_out.values(row[None].astype(np.float32))[0])
        assert space.contains(action)
        start = getattr(space, "start", 0)
        assert np.array_equal(np.ravel(action - start), row)
    assert all(space.contains(way_out.one(x)) for x in way_out.values(np.array([counts * 9, -counts])))


def observations() -> st.SearchStrategy[gymnasium.Space[Any]]:
    leaves = boxes(infinite=True, largest=100.0) | st.sampled_from(CHOICES)
    return st.recursive(
        leaves,
        lambda inner: (
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(spaces.Dict)
            | st.lists(inner, min_size=1, max_size=3).map(lambda some: spaces.Tuple(tuple(some)))
        ),
        max_leaves=4,
    )


@settings(max_examples=150, deadline=None)
@given(observations(), st.integers(0, 2**31))
def test_an_observation_becomes_the_row_that_gymnasium_flattens_it_to(space: Any, seed: int) -> None:
    """Gymnasium's own flattening says what is expected, one by one and in batches."""
    way_in = again(observation_of(space))
    assert way_in == observation_of(space)
    assert way_in.width == spaces.flatdim(space)
    space.seed(seed)
    with np.errstate(all="ignore"):
        some = [space.sample() for _ in range(3)]
        expected = np.stack([spaces.flatten(space, x) for x in some]).astype(np.float32)
    found = np.concatenate([way_in.rows(x, 1) for x in some])
    assert np.array_equal(found, expected, equal_nan=True)
    batch = gymnasium.vector.utils.concatenate(space, some, gymnasium.vector.utils.create_empty_array(space, 3))
    assert np.array_equal(way_in.rows(batch, 3), expected, equal_nan=True)
    assert not way_in.batch(some[0])[1]
    assert way_in.batch(batch)[1]


def test_what_is_no_observation_is_one_sentence() -> None:
    box = observation_of(spaces.Box(-1, 1, (4, 5)))
    for wrong in (np.zeros(20), np.zeros((5, 4)), np.zeros((2, 3, 4, 5)), np.float32(0)):
        with pytest.raises(UserError, match=r"must have shape \(4, 5\) or \(B, 4, 5\), not"):
            box.batch(wrong)
    with pytest.raises(UserError, match="the pair that reset returns"):
        box.batch((np.zeros((4, 5)), {}))
    for wrong in (None, {"a": 1}, "text", np.array([["x"] * 5] * 4), [[1, 2], [3]], object()):
        with pytest.raises(UserError, match=r"must be an array, not|does not consist of numbers"):
            box.batch(wrong)
    nested = observation_of(spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}))
    with pytest.raises(UserError, match=r"has no b"):
        nested.batch({"a": np.zeros(2)})
    with pytest.raises(UserError, match=r"has no a: it is a ndarray"):
        nested.batch(np.zeros(5))
    with pytest.raises(UserError, match=r"b .*3.* is no choice"):
        nested.batch({"a": np.zeros(2), "b": 3})
    with pytest.raises(UserError, match="some parts of the observation have a batch axis"):
        nested.batch({"a": np.zeros((2, 2)), "b": 1})
    with pytest.raises(UserError, match="no bytes"):
        observation_of(spaces.Box(0, 255, (2,), np.uint8)).batch(np.array([0.5, 1.0]))


def test_arrays_of_any_making_are_read() -> None:
    way_in = observation_of(spaces.Box(-np.inf, np.inf, (3,)))
    plain = np.array([1.0, 2.0, 3.0], np.float32)
    for same in (plain[::-1][::-1], plain.astype(">f4"), plain.astype(object), plain.tolist(), plain.astype("f2")):
        assert np.array_equal(way_in.rows(same, 1), plain[None])
    kept = way_in.rows(plain, 1)
    plain[:] = 0
    assert kept.tolist() == [[1, 2, 3]], "a copy"


def space(**changes: Any) -> ActionSpace:
    return ActionSpace(**{"kind": "box", "shape": (1,), "low": [-1.0], "high": [1.0], **changes})


@pytest.mark.parametrize("change", [{"high": [2.0]}, {"low": [0.0]}, {"dtype": "float64"}, {"shape": (1, 1)}])
def test_other_actions_are_told_from_the_saved_ones(change: dict[str, Any]) -> None:
    space().must_equal(space())
    with pytest.raises(UserError, match=f"the {next(iter(change))} of the environment's action is"):
        space(**change).must_equal(space())


def test_other_observations_are_told_from_the_saved_ones() -> None:
    one = observation_of(spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}))
    one.must_equal(again(one))
    for other, message in (
        (spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "c": spaces.Discrete(3)}), "has the parts"),
        (spaces.Dict({"a": spaces.Box(-1, 2, (2,)), "b": spaces.Discrete(3)}), "the high of the .* a is"),
        (spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(4)}), "the choices of the .* b is"),
    ):
        with pytest.raises(UserError, match=message):
            observation_of(other).must_equal(one)
    ObservationSpace.flat(2).must_equal(observation_of(spaces.Box(-1, 1, (2,), np.float64)))
