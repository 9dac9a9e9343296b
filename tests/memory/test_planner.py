"""The plan against the tensors that agents really make, and its choices."""

import copy

import pytest
import torch
from model_free import MODEL_FREE
from thermal_schemas import write_thermal_schema
from torch import nn
from toy import ToyBattery

from iquitos_rl.agents import AGENTS, layers
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.district.footprint import held_bytes
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory.planner import ENGINE_GRAPHS, WORKSPACE, Limits, fit
from iquitos_rl.memory.rehearsal import TensorPeak, step_bytes

GIB = 1 << 30
CPU_16 = Limits(None, 16 * GIB, 100 * GIB)
GPU_8 = Limits(8 * GIB, 16 * GIB, 100 * GIB)
PROCESS = GIB // 2


@pytest.fixture(scope="module")
def site(week_38):
    return DistrictSite([week_38], 4, TaskSettings(sockets="each"), starts="random")


def planned(algorithm, env, config, limits, process, **more):
    return fit(AGENTS[algorithm].agent, env, config, limits, process, **more)


def settings(algorithm, **values):
    return AGENTS[algorithm].config(**values)


def items(plan):
    return {item.name.split(" of ")[0]: item.nbytes for item in plan.items}


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("critics", [2, 4])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("storage", ["auto", "float16", "float32"])
def test_sac_items_are_its_tensors(site, storage, layer_norm, critics):
    sizes = {"buffer_size": 5_000, "hidden": (40, 30), "critics": critics}
    config = settings("sac", storage=storage, layer_norm=layer_norm, **sizes)
    found = items(planned("sac", site, config, CPU_16, PROCESS))
    agent = AGENTS["sac"].agent(site, config.model_copy(update={"placement": "ram"}))
    agent.rehearse()
    trained = [*agent.actor.parameters(), *agent.critic.parameters()]
    assert found["actor and critics"] == nbytes(trained)
    assert found["target critics"] == nbytes(agent.target_critic.parameters())
    moments = [m for o in agent.optimizers.values() for s in o.state.values() for k, m in s.items() if k != "step"]
    assert abs(found["optimiser's moments"] - nbytes(moments)) <= 8, "log alpha's two numbers are left out"
    state = agent.buffer.state_dict()
    replay = nbytes(state[name] for name in ("observation", "action", "reward", "end", "final_owner"))
    assert found["replay"] == agent.buffer.nbytes == replay


@pytest.mark.parametrize(("algorithm", "storage"), [("ppo", "float32"), ("ppo", "float16"), ("a2c", "float32")])
def test_on_policy_items_are_their_tensors(site, algorithm, storage):
    config = settings(algorithm, hidden=(40, 30), horizon=20, storage=storage)
    found = items(planned(algorithm, site, config, CPU_16, PROCESS))
    agent = AGENTS[algorithm].agent(site, config)
    agent.learn(80)
    assert found["actor and critic"] == nbytes(agent.policy.parameters())
    moments = [m for s in agent.optimizer.state.values() for k, m in s.items() if k != "step"]
    assert found["optimiser's moments"] == nbytes(moments)
    assert found["rollout"] == agent.collector.rollout.nbytes


def placement(site, limits, **values):
    return planned("sac", site, settings("sac", **values), limits, PROCESS).config.placement


def test_the_replay_goes_to_the_fastest_place_that_has_room(site):
    assert placement(site, CPU_16) == "ram"
    assert placement(site, CPU_16, buffer_size=200_000_000) == "disk"
    assert placement(site, GPU_8) == "cuda"
    assert placement(site, Limits(GIB, 16 * GIB, 0), buffer_size=10_000_000) == "pinned"
    assert placement(site, GPU_8, buffer_size=200_000_000) == "disk"
    assert placement(site, GPU_8, placement="ram") == "ram", "what the settings say is kept"


def test_a_batch_that_does_not_fit_is_taken_in_parts(site):
    config = settings("sac", batch_size=65_536, hidden=(1_024, 1_024), buffer_size=100_000)
    roomy = planned("sac", site, config, GPU_8, PROCESS)
    assert roomy.config.micro_batch is None
    tight = planned("sac", site, config, Limits(2 * GIB, 16 * GIB, 0), PROCESS)
    assert tight.config.micro_batch is not None
    assert tight.config == config.model_copy(
        update={"micro_batch": tight.config.micro_batch, "placement": tight.config.placement}
    )
    assert tight.fits
    assert any("the same result" in note for note in tight.notes)


def test_what_fits_nowhere_is_said_with_what_would(site):
    config = settings("sac", buffer_size=10**9)
    with pytest.raises(UserError, match=r"disk space missing.*would fit: --set agent.buffer_size=\d+") as caught:
        planned("sac", site, config, Limits(None, 4 * GIB, 8 * GIB), PROCESS)
    assert "replay" in caught.value.plan.table()
    size = int(str(caught.value).split("agent.buffer_size=")[1].split()[0])
    planned("sac", site, settings("sac", buffer_size=size), Limits(None, 4 * GIB, 8 * GIB), PROCESS)
    with pytest.raises(UserError, match=r"lower agent\.horizon"):
        planned("ppo", site, settings("ppo", horizon=10**8), CPU_16, PROCESS)


def test_some_memory_is_left_alone(site):
    config = settings("sac", buffer_size=20_000_000)
    plan = planned("sac", site, config, Limits(None, 1 << 50, 0), PROCESS)
    with pytest.raises(UserError, match="does not fit"):
        planned("sac", site, config, Limits(None, int(plan.total("ram") * 1.05), 0), PROCESS)


@pytest.mark.parametrize("algorithm", MODEL_FREE)
def test_graphs_take_their_share_of_a_gpu_and_of_nothing_else(site, algorithm):
    def compiled(mode, limits):
        return planned(algorithm, site, settings(algorithm, compile=mode), limits, PROCESS)

    graphs, plain = compiled("auto", GPU_8), compiled("off", GPU_8)
    (kept,) = (item.nbytes for item in graphs.items if item.name.endswith("CUDA graphs"))
    assert kept > ENGINE_GRAPHS * site.state_bytes * site.num_envs
    assert graphs.total("device") - plain.total("device") == kept + WORKSPACE
    assert compiled("graphs", GPU_8).items == graphs.items
    assert compiled("auto", CPU_16).items == compiled("off", CPU_16).items


def test_the_table_adds_up(site):
    plan = planned("sac", site, settings("sac"), GPU_8, PROCESS)
    assert plan.total("device") == sum(item.nbytes for item in plan.items if item.where == "device")
    text = plan.table()
    assert all(item.name in text for item in plan.items if item.nbytes)
    assert "placement cuda" in text
    assert "assumed" in text, "no GPU was measured"
    measured = planned("sac", site, settings("sac"), GPU_8, PROCESS, context=1 << 20)
    assert "assumed" not in measured.table()


def test_any_environment_can_be_planned():
    plan = planned("sac", as_vector(ToyBattery()), settings("sac"), CPU_16, PROCESS)
    assert items(plan)["replay"] == pytest.approx(300_000 * (4 * 4 * (1 + 1 / 24) + 4 + 8 + 8 / 24), rel=1e-3)


def test_more_of_anything_is_never_predicted_to_take_less(site):
    base = {"buffer_size": 10_000, "batch_size": 64, "hidden": (64,), "placement": "ram"}
    small = planned("sac", site, settings("sac", **base), CPU_16, PROCESS)
    for more in ({"buffer_size": 20_000}, {"batch_size": 128}, {"hidden": (128,)}, {"hidden": (64, 64)}):
        larger = planned("sac", site, settings("sac", **{**base, **more}), CPU_16, PROCESS)
        assert larger.config.micro_batch is None
        assert larger.total("ram") > small.total("ram")


def test_a_smaller_micro_batch_takes_less(site):
    for algorithm in MODEL_FREE:
        values = {"hidden": (512, 512), "micro_batch": 64}
        values["horizon" if algorithm != "sac" else "batch_size"] = 20_000
        if algorithm == "ppo":
            values["batch_size"] = 20_000
        small = settings(algorithm, **values)
        whole = small.model_copy(update={"micro_batch": None})
        sums = [planned(algorithm, site, config, CPU_16, PROCESS).total("ram") for config in (small, whole)]
        assert sums[0] < sums[1]


def test_tensors_of_the_environment_are_counted_once(site):
    (env_bytes,) = (i.nbytes for i in planned("a2c", site, settings("a2c"), GPU_8, 0).items if i.name == "environments")
    assert env_bytes == held_bytes(site) >= site.task.table.nbytes
    assert torch.is_tensor(site.task.table)


class Wide(VectorEnv):
    """Environments of any width that do nothing."""

    device = torch.device("cpu")

    def __init__(self, num_envs, obs_dim, action_dim, masked=False):
        self.num_envs, self.obs_dim, self.action_dim = num_envs, obs_dim, action_dim
        self.action_mask_columns = torch.zeros(action_dim, dtype=torch.int64) if masked else None

    def reset(self, seed=None):
        return torch.zeros(self.num_envs, self.obs_dim)

    def step(self, action):
        obs, no = torch.zeros(self.num_envs, self.obs_dim), torch.zeros(self.num_envs, dtype=torch.bool)
        return StepResult(obs, torch.zeros(self.num_envs), no, no, obs, {})

    def close(self):
        pass


SAC = {"batch_size": 1_000, "learning_starts": 8, "buffer_size": 1_000, "update_ratio": 0.25, "hidden": (20, 20)}
ROLLOUT = {"horizon": 250, "hidden": (20, 20)}
PPO = {**ROLLOUT, "batch_size": 500, "epochs": 2}
RECURRENT = {**ROLLOUT, "horizon": 100, "batch_size": 300, "epochs": 1, "memory": 60, "sequence": 10}


@pytest.mark.parametrize(
    ("algorithm", "obs_dim", "action_dim", "values"),
    [
        ("sac", 20, 5, {**SAC, "hidden": (300, 400)}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 100)}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "layer_norm": True}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "critics": 5}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "micro_batch": 100}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "amp": "bf16"}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "critics": 4, "layer_norm": True, "micro_batch": 150}),
        ("sac", 20, 400, SAC),
        ("sac", 20, 400, {**SAC, "critics": 10}),
        ("sac", 20, 400, {**SAC, "critics": 10, "amp": "bf16"}),
        ("sac", 600, 5, SAC),
        ("sac", 600, 5, {**SAC, "amp": "bf16"}),
        ("sac", 600, 5, {**SAC, "update_ratio": 5.0, "batch_size": 200, "storage": "float32"}),
        ("ppo", 20, 5, {**PPO, "hidden": (300, 400)}),
        ("ppo", 20, 5, {**PPO, "hidden": (400, 100), "activation": "relu"}),
        ("ppo", 20, 5, {**PPO, "hidden": (400, 300), "micro_batch": 50}),
        ("ppo", 20, 5, {**PPO, "hidden": (400, 300), "amp": "bf16"}),
        ("ppo", 20, 400, {**PPO, "amp": "bf16"}),
        ("ppo", 600, 5, {**PPO, "amp": "bf16", "micro_batch": 200}),
        ("ppo", 20, 400, PPO),
        ("ppo", 600, 5, PPO),
        ("ppo", 600, 5, {**PPO, "storage": "float16"}),
        ("recurrent_ppo", 20, 5, {**RECURRENT, "memory": 300}),
        ("recurrent_ppo", 600, 5, {**RECURRENT, "micro_batch": 16}),
        ("a2c", 20, 5, {**ROLLOUT, "hidden": (300, 400)}),
        ("a2c", 20, 5, {**ROLLOUT, "hidden": (300, 400), "micro_batch": 20}),
        ("a2c", 20, 400, ROLLOUT),
        ("a2c", 600, 5, {**ROLLOUT, "storage": "float16"}),
    ],
)
def test_the_plan_is_the_peak_of_what_training_allocates(algorithm, obs_dim, action_dim, values, monkeypatch):
    """One thing at a time is made so large that nothing else can hide an error in its count.

    The plan is for the worst case, in which one critic has the least value of every row; other updates take less.
    """
    env = Wide(4, obs_dim, action_dim)
    config = settings(algorithm, **values)
    plan = planned(algorithm, env, config, CPU_16, process=0)

    def peak():
        with TensorPeak() as taken:
            AGENTS[algorithm].agent(env, plan.config).learn({"sac": 24, "recurrent_ppo": 400}.get(algorithm, 2_000))
        return taken.peak

    if algorithm == "sac":
        assert plan.total("ram") >= 0.97 * peak()
        monkeypatch.setattr(layers, "WORTH_A_COPY", -1.0)  # no row is left out
    assert plan.total("ram") == pytest.approx(peak(), rel=0.03)


@pytest.mark.parametrize("algorithm", MODEL_FREE)
def test_the_plan_of_masked_actions_is_their_peak(algorithm):
    env = Wide(4, 20, 400, masked=True)
    config = settings(algorithm, **{"sac": SAC, "ppo": PPO, "a2c": ROLLOUT}[algorithm])
    plan = planned(algorithm, env, config, CPU_16, process=0)
    with TensorPeak() as taken:
        AGENTS[algorithm].agent(env, plan.config).learn(24 if algorithm == "sac" else 2_000)
    assert plan.total("ram") == pytest.approx(taken.peak, rel=0.03)
    assert plan.total("ram") > planned(algorithm, Wide(4, 20, 400), config, CPU_16, process=0).total("ram")


class Values(nn.Module):
    """Three critics that share a wide layer, as a user might write them."""

    def __init__(self, obs_dim, action_dim):
        super().__init__()
        self.first, self.last = nn.Linear(obs_dim + action_dim, 900), nn.Linear(900, 3)
        self.register_buffer("scale", torch.ones(900))

    def forward(self, obs, action):
        return self.last(torch.nn.functional.silu(self.first(torch.cat([obs, action], -1))) * self.scale).mT


def test_the_plan_of_given_networks_is_their_peak():
    """They are rehearsed as copies, and stay what they were."""
    env = Wide(4, 20, 5)
    networks = {"actor": nn.Sequential(nn.Linear(20, 800), nn.LayerNorm(800), nn.Tanh(), nn.Linear(800, 10))}
    networks["critic"] = Values(20, 5)
    before = [p.detach().clone() for module in networks.values() for p in module.parameters()]
    plan = planned("sac", env, settings("sac", **SAC), CPU_16, process=0, networks=networks)
    after = [p for module in networks.values() for p in module.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))
    with TensorPeak() as taken:
        # Made here, so that they are counted.
        own = {name: copy.deepcopy(module) for name, module in networks.items()}
        AGENTS["sac"].agent(env, plan.config, **own).learn(24)
    assert plan.total("ram") == pytest.approx(taken.peak, rel=0.03)


@pytest.mark.parametrize("algorithm", MODEL_FREE)
def test_planning_takes_no_memory_and_refuses_the_absurd(site, algorithm):
    config = settings(algorithm, hidden=(65_536, 65_536))
    with TensorPeak() as taken, pytest.raises(UserError, match="training does not fit"):
        planned(algorithm, site, config, CPU_16, PROCESS)
    assert taken.peak < 1 << 20
    absurd = config.model_copy(update={"hidden": (10**12, 10**12)})  # more than settings allow
    with pytest.raises(UserError, match="cannot be planned"):
        planned(algorithm, site, absurd, CPU_16, PROCESS)


@pytest.fixture(scope="module")
def warm_site(tmp_path_factory):
    """Tanks, heat pumps and networks."""
    return read_site(write_thermal_schema(tmp_path_factory.mktemp("warm") / "site", 1, outages=False))


@pytest.mark.parametrize("kind", ["vehicles", "thermal"])
@pytest.mark.parametrize("algorithm", MODEL_FREE)
def test_the_plan_of_a_site_is_its_peak(week_38, warm_site, algorithm, kind):
    one = read_site(week_38) if kind == "vehicles" else warm_site
    env = DistrictSite([one], 64, TaskSettings(sockets="each"), starts="random", episode_steps=24)
    few = {**SAC, "update_ratio": 1 / 64, "learning_starts": 64}
    config = settings(algorithm, **(few if algorithm == "sac" else {"horizon": 8}))
    env.reset(seed=0)
    assert (env.action_mask_columns is not None) == bool(one.sockets)
    plan = planned(algorithm, env, config, CPU_16, process=0)
    with TensorPeak() as taken:
        AGENTS[algorithm].agent(env, plan.config).learn(256 if algorithm == "sac" else 1_024)
    # `learn` resets the environments, whose state is then counted among the tensors made here.
    assert plan.total("ram") + env.num_envs * env.state_bytes == pytest.approx(taken.peak, rel=0.1)


@pytest.mark.parametrize("one", ["week_38", "warm_site"])
def test_a_step_takes_what_was_measured_on_a_few(request, one):
    env = DistrictSite([request.getfixturevalue(one)], 200)
    found = step_bytes(env) * env.num_envs
    env.reset(seed=0)
    with torch.inference_mode(), TensorPeak() as taken:
        env.reset(seed=0)
        peak = taken.during(lambda: env.step(torch.zeros(env.num_envs, env.action_dim)))
    assert found == pytest.approx(peak, rel=0.05)
