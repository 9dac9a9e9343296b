from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl.buffers.replay import ReplayBuffer
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

GAMMA = 0.9
ENDS = {"goes on": (False, False), "terminated": (True, False), "truncated": (False, True), "both": (True, True)}


class Item(NamedTuple):
    obs: torch.Tensor
    action: torch.Tensor
    reward: float
    terminated: bool
    truncated: bool
    next_obs: torch.Tensor


class NaiveBuffer:
    """Lists of whole transitions, both observations kept, float32: what the real buffer must not differ from."""

    def __init__(self, steps_kept, num_envs, n_step, final_rows):
        self.streams = [[] for _ in range(num_envs)]
        self.steps_kept, self.n_step, self.final_rows = steps_kept, n_step, final_rows
        self.finals, self.oldest = [], 0

    def start(self, obs):
        for stream in self.streams:
            if stream and not (stream[-1].terminated or stream[-1].truncated):
                stream[-1] = stream[-1]._replace(truncated=True)
                self.finals.append(len(stream) - 1)
        self.obs = obs
        self.evict()

    def add(self, action, step):
        for e, stream in enumerate(self.streams):
            ends = bool(step.terminated[e]), bool(step.truncated[e])
            stream.append(Item(self.obs[e], action[e], float(step.reward[e]), *ends, step.next_obs[e]))
            if ends == (False, True):
                self.finals.append(len(stream) - 1)
        self.obs = step.obs
        self.oldest = max(self.oldest, len(self.streams[0]) - self.steps_kept)
        self.evict()

    def evict(self):
        while len(self.finals) > self.final_rows:
            self.oldest = max(self.oldest, self.finals.pop(0) + 1)

    def windows(self):
        """Every transition that can be sampled, by the number in its first observation column."""
        found = {}
        for stream in self.streams:
            for t in range(self.oldest, len(stream)):
                reward, discount = 0.0, 1.0
                for item in stream[t : t + self.n_step]:
                    reward += discount * item.reward
                    discount *= GAMMA
                    if item.terminated or item.truncated:
                        break
                found[float(stream[t].obs[0])] = stream[t], reward, discount, item
        return found


def numbered(count, width, numbers):
    """Observations whose first column is a number never used before."""
    obs = torch.rand(count, width)
    obs[:, 0] = torch.tensor([float(next(numbers)) for _ in range(count)])
    return obs


@st.composite
def histories(draw):
    num_envs = draw(st.integers(1, 3))
    ends = st.lists(st.sampled_from(["goes on"] * 4 + list(ENDS)[1:]), min_size=num_envs, max_size=num_envs)
    step = st.one_of(ends, ends, ends, ends, ends, st.just("start again"))
    return {
        "num_envs": num_envs,
        "steps_kept": draw(st.integers(1, 12)),
        "n_step": draw(st.integers(1, 4)),
        "storage": draw(st.sampled_from(["float32", "float16"])),
        "final_rows": draw(st.none() | st.integers(num_envs, 4)),
        "script": draw(st.lists(step, min_size=1, max_size=40).filter(lambda s: any(x != "start again" for x in s))),
    }


@pytest.mark.filterwarnings("ignore:the replay buffer gives up steps")
@settings(max_examples=400, deadline=None)
@given(histories())
def test_samples_are_those_of_a_naive_buffer(history):
    torch.manual_seed(0)
    num_envs, kept, n_step = history["num_envs"], history["steps_kept"], history["n_step"]
    kind = {
        "gamma": GAMMA,
        "n_step": n_step,
        "storage": history["storage"],
        "placement": "ram",
        "final_rows": history["final_rows"],
    }
    # Any remainder of the capacity over whole steps is not used.
    buffer = ReplayBuffer(kept * num_envs + num_envs - 1, num_envs, 3, 2, **kind)
    naive = NaiveBuffer(kept, num_envs, n_step, 10**6 if history["final_rows"] is None else history["final_rows"])
    if history["final_rows"] is None:
        naive.final_rows = num_envs + (kept * num_envs + num_envs - 1) // 24
    numbers = iter(range(2000))
    obs = numbered(num_envs, 3, numbers)
    buffer.start(obs)
    naive.start(obs)
    for entry in history["script"]:
        if entry == "start again":
            obs = numbered(num_envs, 3, numbers)
            buffer.start(obs)
            naive.start(obs)
            continue
        terminated, truncated = torch.tensor([ENDS[end] for end in entry]).unbind(1)
        next_obs = numbered(num_envs, 3, numbers)
        obs = torch.where((terminated | truncated)[:, None], numbered(num_envs, 3, numbers), next_obs)
        action, reward = torch.rand(num_envs, 2) * 2 - 1, torch.randn(num_envs)
        step = StepResult(obs, reward, terminated, truncated, next_obs, {})
        buffer.add(action, step)
        naive.add(action, step)

    windows = naive.windows()
    assert len(buffer) == len(windows)
    if not windows:
        return
    batch = buffer.sample(40 * len(windows))
    tolerance = {"rtol": 0, "atol": 0} if history["storage"] == "float32" else {"rtol": 1e-3, "atol": 1e-3}
    first, reward, discount, last = zip(*(windows[float(number)] for number in batch["observation"][:, 0]))
    assert set(batch["observation"][:, 0].tolist()) == set(windows), "every transition can be drawn, and no other"
    torch.testing.assert_close(batch["observation"], torch.stack([item.obs for item in first]), **tolerance)
    torch.testing.assert_close(batch["action"], torch.stack([item.action for item in first]), **tolerance)
    torch.testing.assert_close(batch["reward"], torch.tensor(reward), rtol=1e-5, atol=1e-6)
    terminated = torch.tensor([item.terminated for item in last])
    assert torch.equal(batch["terminated"], terminated)
    torch.testing.assert_close(batch["discount"], torch.tensor(discount) * ~terminated, rtol=1e-6, atol=0)
    successors = torch.stack([item.next_obs for item in last])
    torch.testing.assert_close(batch["next_observation"][~terminated], successors[~terminated], **tolerance)
    assert batch["next_observation"].isfinite().all()


def filled(steps=30, num_envs=2, seed=0, **kind):
    """A buffer after some steps, truncated now and then."""
    torch.manual_seed(1)
    buffer = ReplayBuffer(
        20 * num_envs, num_envs, 3, 2, seed=seed, **{"final_rows": 40, "placement": "ram", "storage": "float32", **kind}
    )
    buffer.start(torch.rand(num_envs, 3))
    for t in range(steps):
        grow(buffer, truncated=t % 7 == 6)
    return buffer


def grow(buffer, truncated=False):
    e = buffer.num_envs
    ends = torch.zeros(e, dtype=torch.bool), torch.full((e,), truncated)
    buffer.add(torch.rand(e, 2), StepResult(torch.rand(e, 3), torch.rand(e), *ends, torch.rand(e, 3), {}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["observation", "successor", "action", "reward"])
def test_refuses_numbers_that_are_not_finite(place, bad):
    buffer = filled()
    parts = {"observation": torch.rand(2, 3), "successor": torch.rand(2, 3), "action": torch.rand(2, 2)}
    parts["reward"] = torch.rand(2)
    parts[place][1] = bad
    no = torch.zeros(2, dtype=torch.bool)
    step = StepResult(parts["observation"], parts["reward"], no, no, parts["successor"], {})
    before = {name: value.clone() for name, value in buffer.state_dict().items() if isinstance(value, torch.Tensor)}
    with pytest.raises(UserError, match=f"{'observation' if place == 'successor' else place}.*environment 1"):
        buffer.add(parts["action"], step)
    assert all(torch.equal(buffer.state_dict()[name], value) for name, value in before.items()), "nothing was written"


def test_refuses_what_float16_cannot_hold():
    buffer = ReplayBuffer(10, 1, 2, 1, storage="float16")
    with pytest.raises(UserError, match=r"observation column 1 of environment 0 is 70000.* float16"):
        buffer.start(torch.tensor([[1.0, 70_000.0]]))


def test_refuses_sizes_that_cannot_work():
    with pytest.raises(UserError, match="cannot hold one step of 4"):
        ReplayBuffer(3, 4, 2, 1)
    with pytest.raises(UserError, match="final_rows"):
        ReplayBuffer(100, 4, 2, 1, final_rows=3)
    with pytest.raises(UserError, match="empty"):
        ReplayBuffer(10, 1, 2, 1).sample(4)


def test_warns_when_the_side_cache_makes_it_forget():
    buffer = filled(0, final_rows=2)
    grow(buffer, truncated=True)
    with pytest.warns(UserWarning, match="raise final_rows"):
        grow(buffer, truncated=True)
    assert len(buffer) == 2


def test_an_observation_is_stored_once():
    buffer = ReplayBuffer(24_000, 4, 10, 2, storage="float16")
    state = buffer.state_dict()
    stored = sum(x.numel() * x.element_size() for x in state.values() if isinstance(x, torch.Tensor))
    per_transition = 10 * 2 + 2 * 2 + 4 + 4
    assert stored <= 24_000 * per_transition * 1.08 + 10_000  # 1 + 1/24 rows of observations, the generator


def test_several_batches_are_one_gather():
    batches = filled().sample(5, batches=3)
    assert batches.batch_size == (3, 5)
    flat = filled().sample(15)
    assert (batches.reshape(15) == flat).all()


def test_draws_are_uniform_and_from_its_own_generator():
    buffer = filled()
    before = torch.get_rng_state()
    drawn = buffer.sample(200_000)["observation"][:, 0]
    assert torch.equal(before, torch.get_rng_state())
    _, counts = drawn.unique(return_counts=True)
    assert len(counts) == len(buffer) == 40
    expected = 200_000 / 40
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 80  # 39 degrees of freedom: beyond 80 with probability 1e-4


def test_same_seed_same_samples():
    one, same, other = (filled(seed=seed).sample(50)["observation"] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_goes_on_bit_for_bit_from_its_state(storage):
    original = filled(n_step=3, storage=storage)
    original.sample(10)
    state = {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in original.state_dict().items()}
    copy = filled(steps=0, seed=99, n_step=3, storage=storage)
    copy.load_state_dict(state)
    for buffer in (original, copy):
        torch.manual_seed(5)
        for t in range(25):
            grow(buffer, truncated=t % 5 == 0)
    one, two = original.sample(300), copy.sample(300)
    assert len(original) == len(copy)
    assert (one == two).all()


def test_refuses_the_state_of_another_kind_of_buffer():
    with pytest.raises(UserError, match="storage is float32"):
        filled(storage="float16").load_state_dict(filled().state_dict())
