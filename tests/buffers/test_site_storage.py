"""A site's replay buffer: exogenous columns from the table, the rest in few bytes."""

from functools import partial

import pytest
import torch

from iquitos_rl.buffers.replay import ReplayBuffer, Sizes, layouts
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.worker import WorkerEnv
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError

EACH = TaskSettings(sockets="each")


def filled(env, steps, storage, **kind):
    """A buffer after some steps, and a float32 one that knows no table: what was really seen."""
    size = steps * env.num_envs
    dims = size, env.num_envs, env.obs_dim, env.action_dim
    ours = ReplayBuffer(*dims, storage=storage, exogenous=env.exogenous, placement="ram", **kind)
    plain = ReplayBuffer(*dims, storage="float32", placement="ram", final_rows=size, **kind)
    g = torch.Generator().manual_seed(0)
    obs = env.reset(seed=3)
    ours.start(obs, env.exogenous)
    plain.start(obs)
    for _ in range(steps):
        action = torch.rand(env.num_envs, env.action_dim, generator=g) * 2 - 1
        step = env.step(action)
        ours.add(action, step, env.exogenous)
        plain.add(action, step)
    return ours, plain


def compare(env, ours, plain, coarse_error, fine_error):
    exogenous = env.exogenous
    known = exogenous.table.shape[1]
    assert exogenous.coarse, "the case is one where uint8 is used"
    coarse = torch.zeros(env.obs_dim, dtype=torch.bool)
    coarse[list(exogenous.coarse)] = True
    one, two = ours.sample(2_000), plain.sample(2_000)
    for name in ("observation", "next_observation"):
        assert torch.equal(one[name][:, :known], two[name][:, :known]), "exogenous columns come back bit for bit"
        error = (one[name] - two[name]).abs()
        assert error[:, coarse].max() <= coarse_error
        assert error[:, ~coarse].max() <= fine_error
    assert (one["action"] - two["action"]).abs().max() <= coarse_error
    for name in ("reward", "discount", "terminated"):
        assert torch.equal(one[name], two[name])


@pytest.fixture(scope="module")
def district(week_38):
    return DistrictSite([week_38, week_38], 5, EACH, starts="random", episode_steps=20)


@pytest.mark.parametrize(
    ("storage", "coarse_error", "fine_error"),
    [
        ("float32", 0, 0),
        ("float16", 2**-11, 2**-11),
        ("uint8", 1 / 254 + 1e-7, 2**-11),
        ("auto", 1 / 254 + 1e-7, 2**-11),
    ],
)
def test_nothing_is_lost_of_what_is_in_the_table(district, storage, coarse_error, fine_error):
    ours, plain = filled(district, 70, storage, n_step=3)
    compare(district, ours, plain, coarse_error, fine_error)
    assert ours.saturated == 0, "encoded observations and actions are within [-1, 1]"


@pytest.mark.parametrize("in_worker", [False, True])
def test_citylearn_itself_tells_its_rows(week_38, in_worker):
    def factory():
        return CityLearnSite([week_38], EACH)

    if in_worker:
        env = as_vector([partial(WorkerEnv, partial(CityLearnSite, [week_38], EACH))])
    else:
        env = as_vector([factory])
    ours, plain = filled(env, 200, "uint8")  # beyond the end of the week
    env.close()
    compare(env, ours, plain, 1 / 254 + 1e-7, 2**-11)


def test_a_table_that_does_not_fit_the_observations_is_noticed(district):
    buffer = ReplayBuffer(100, 5, district.obs_dim, district.action_dim, exogenous=district.exogenous)
    obs = district.reset(seed=0)
    with pytest.raises(UserError, match="not the rows of the environment's table"):
        buffer.start(obs, district.exogenous._replace(row=district.exogenous.row + 1))
    with pytest.raises(UserError, match="give its rows"):
        buffer.start(obs)


def test_uint8_needs_bounds():
    with pytest.raises(UserError, match="static bounds"):
        ReplayBuffer(100, 1, 3, 1, storage="uint8")


def stored_bytes(buffer):
    return sum(
        x.nbytes for name, x in buffer.state_dict().items() if isinstance(x, torch.Tensor) and name != "generator"
    )


def test_bytes_per_transition():
    capacity, d, a = 240_000, 100, 20
    for storage, width in (("auto", 4), ("float16", 2)):
        generic = ReplayBuffer(capacity, 8, d, a, storage=storage, placement="ram", final_rows=8)
        assert stored_bytes(generic) / capacity <= (width * (d + a) + 8) * 1.0002
        assert abs(generic.nbytes - stored_bytes(generic)) < 100


def test_bytes_per_transition_of_a_site(district):
    capacity, env = 100_000, district
    buffer = ReplayBuffer(
        capacity, 5, env.obs_dim, env.action_dim, exogenous=env.exogenous, placement="ram", episode_steps=20
    )
    stored = env.obs_dim - env.exogenous.table.shape[1]
    bytes_each = 4 + 2 * (stored - len(env.exogenous.coarse)) + len(env.exogenous.coarse)  # row, float16, uint8
    allowed = -(-bytes_each // 4) * 4 * (1 + 1 / 20) + env.action_dim + 8 + 1
    assert stored_bytes(buffer) / capacity <= allowed * 1.001


def test_known_episode_lengths_make_a_small_side_cache_that_is_enough(district):
    capacity, env = 1_000, district
    kind = {"exogenous": env.exogenous, "placement": "ram"}
    known = ReplayBuffer(capacity, 5, env.obs_dim, env.action_dim, episode_steps=env.episode_steps, **kind)
    g = torch.Generator().manual_seed(0)
    known.start(env.reset(seed=0), env.exogenous)
    for _ in range(700):
        action = torch.rand(5, env.action_dim, generator=g) * 2 - 1
        known.add(action, env.step(action), env.exogenous)
    assert len(known) == capacity, "no step was given up for want of a place"


def test_bytes_per_transition_of_the_larger_preset(tmp_path):
    """At most 420 at 128 sockets with an action each: a fourteenth of both observations in float32 and an action."""
    env = DistrictSite([build_case("iquitos-128", 0, tmp_path / "case")], 1, EACH, starts="random")
    records = layouts("uint8", env.obs_dim, env.action_dim, env.exogenous, env.device)
    nbytes = Sizes.of(500_000, 32, episode_steps=env.episode_steps).nbytes(*(layout.nbytes for layout in records))
    assert nbytes / 500_000 <= 420
    assert 14 * nbytes / 500_000 <= 8 * env.obs_dim + 4 * env.action_dim + 12
