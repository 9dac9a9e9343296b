"""The planner's arithmetic against the tensors that agents really make, and its choices."""

import pytest
import torch
from tensor_peak import TensorPeak
from toy import ToyBattery

from iquitos_rl.agents import AGENTS
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory.planner import ENGINE_GRAPHS, WORKSPACE, Dims, Limits, build, fit

GIB = 1 << 30
CPU_16 = Limits(None, 16 * GIB, 100 * GIB)
GPU_8 = Limits(8 * GIB, 16 * GIB, 100 * GIB)
PROCESS = GIB // 2


@pytest.fixture(scope="module")
def site(week_38):
    return DistrictSite([week_38], 4, TaskSettings(sockets="each"), starts="random")


@pytest.fixture(scope="module")
def dims(site):
    return Dims.of(site)


def settings(algorithm, **values):
    return AGENTS[algorithm].config(**values)


def items(plan):
    return {item.name.split(" of ")[0]: item.nbytes for item in plan.items}


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("critics", [2, 4])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("storage", ["auto", "float16", "float32"])
def test_sac_items_are_its_tensors(site, dims, storage, layer_norm, critics):
    sizes = {"buffer_size": 5_000, "hidden": (40, 30), "critics": critics}
    config = settings("sac", storage=storage, layer_norm=layer_norm, **sizes)
    planned = items(fit("sac", dims, config, CPU_16, PROCESS))
    agent = AGENTS["sac"].agent(site, config.model_copy(update={"placement": "ram"}))
    agent.rehearse()
    trained = [*agent.actor.parameters(), *agent.critic.parameters()]
    assert planned["actor and critics"] == nbytes(trained)
    assert planned["target critics"] == nbytes(agent.target_critic.parameters())
    moments = [m for o in agent.optimizers.values() for s in o.state.values() for k, m in s.items() if k != "step"]
    assert abs(planned["Adam's moments"] - nbytes(moments)) <= 8, "log alpha's two numbers are left out"
    state = agent.buffer.state_dict()
    replay = nbytes(state[name] for name in ("observation", "action", "reward", "end", "final_owner"))
    assert planned["replay"] == agent.buffer.nbytes == replay


@pytest.mark.parametrize(("algorithm", "storage"), [("ppo", "float32"), ("ppo", "float16"), ("a2c", "float32")])
def test_on_policy_items_are_their_tensors(site, dims, algorithm, storage):
    config = settings(algorithm, hidden=(40, 30), horizon=20, storage=storage)
    planned = items(fit(algorithm, dims, config, CPU_16, PROCESS))
    agent = AGENTS[algorithm].agent(site, config)
    agent.learn(80)
    assert planned["actor and critic"] == nbytes(agent.policy.parameters())
    moments = [m for s in agent.optimizer.state.values() for k, m in s.items() if k != "step"]
    assert planned["optimiser's moments"] == nbytes(moments)
    assert planned["rollout"] == agent.collector.rollout.nbytes


def placement(dims, limits, **values):
    return fit("sac", dims, settings("sac", **values), limits, PROCESS).choice.placement


def test_the_replay_goes_to_the_fastest_place_that_has_room(dims):
    assert placement(dims, CPU_16) == "ram"
    assert placement(dims, CPU_16, buffer_size=200_000_000) == "disk"
    assert placement(dims, GPU_8) == "cuda"
    assert placement(dims, Limits(GIB, 16 * GIB, 0), buffer_size=10_000_000) == "pinned"
    assert placement(dims, GPU_8, buffer_size=200_000_000) == "disk"
    assert placement(dims, GPU_8, placement="ram") == "ram", "what the settings say is kept"


def test_a_batch_that_does_not_fit_is_taken_in_parts(dims):
    config = settings("sac", batch_size=65_536, hidden=(1_024, 1_024), buffer_size=100_000)
    roomy = fit("sac", dims, config, GPU_8, PROCESS)
    assert roomy.choice.micro_batch is None
    tight = fit("sac", dims, config, Limits(2 * GIB, 16 * GIB, 0), PROCESS)
    assert tight.choice.micro_batch is not None
    assert tight.apply(config).micro_batch == tight.choice.micro_batch
    assert tight.fits
    assert any("the same result" in note for note in tight.notes)


def test_what_fits_nowhere_is_said_with_what_would(dims):
    config = settings("sac", buffer_size=10**9)
    with pytest.raises(UserError, match=r"disk space missing.*would fit: --set agent.buffer_size=\d+") as caught:
        fit("sac", dims, config, Limits(None, 4 * GIB, 8 * GIB), PROCESS)
    assert "replay" in caught.value.plan.table()
    size = int(str(caught.value).split("agent.buffer_size=")[1].split()[0])
    fit("sac", dims, settings("sac", buffer_size=size), Limits(None, 4 * GIB, 8 * GIB), PROCESS)
    with pytest.raises(UserError, match=r"lower agent\.horizon"):
        fit("ppo", dims, settings("ppo", horizon=10**8), CPU_16, PROCESS)


def test_some_memory_is_left_alone(dims):
    config = settings("sac", buffer_size=20_000_000)
    plan = fit("sac", dims, config, Limits(None, 1 << 50, 0), PROCESS)
    with pytest.raises(UserError, match="does not fit"):
        fit("sac", dims, config, Limits(None, int(plan.total("ram") * 1.05), 0), PROCESS)


@pytest.mark.parametrize("algorithm", AGENTS)
def test_graphs_take_their_share_of_a_gpu_and_of_nothing_else(dims, algorithm):
    def planned(mode, limits):
        return fit(algorithm, dims, settings(algorithm, compile=mode), limits, PROCESS)

    graphs, plain = planned("auto", GPU_8), planned("off", GPU_8)
    (kept,) = (item.nbytes for item in graphs.items if item.name.endswith("CUDA graphs"))
    assert kept > ENGINE_GRAPHS * dims.state_bytes * dims.num_envs
    assert graphs.total("device") - plain.total("device") == kept + WORKSPACE
    assert planned("graphs", GPU_8).items == graphs.items
    assert planned("auto", CPU_16).items == planned("off", CPU_16).items


def test_the_table_adds_up(dims):
    plan = fit("sac", dims, settings("sac"), GPU_8, PROCESS)
    assert plan.total("device") == sum(item.nbytes for item in plan.items if item.where == "device")
    text = plan.table()
    assert all(item.name in text for item in plan.items if item.nbytes)
    assert "placement cuda" in text
    assert "assumed" in text, "no GPU was measured"
    measured = fit("sac", dims, settings("sac"), GPU_8, PROCESS, context=1 << 20)
    assert "assumed" not in measured.table()


def test_any_environment_can_be_planned():
    dims = Dims.of(as_vector(ToyBattery()))
    plan = fit("sac", dims, settings("sac"), CPU_16, PROCESS)
    assert items(plan)["replay"] == pytest.approx(300_000 * (2 * 4 * (1 + 1 / 24) + 2 + 8 + 8 / 24), rel=1e-3)


def test_more_of_anything_is_never_predicted_to_take_less(dims):
    base = {"buffer_size": 10_000, "batch_size": 64, "hidden": (64,)}
    small = fit("sac", dims, settings("sac", **base), CPU_16, PROCESS)
    for more in ({"buffer_size": 20_000}, {"batch_size": 128}, {"hidden": (128,)}, {"hidden": (64, 64)}):
        larger = build(
            "sac",
            dims,
            settings("sac", **{**base, **more}),
            small.choice._replace(capacity=more.get("buffer_size", 10_000)),
            CPU_16,
            PROCESS,
            None,
        )
        assert larger.total("ram") > small.total("ram")


def test_a_smaller_micro_batch_takes_less(dims):
    for algorithm in AGENTS:
        values = {"hidden": (512, 512), "micro_batch": 64}
        values["horizon" if algorithm != "sac" else "batch_size"] = 20_000
        if algorithm == "ppo":
            values["batch_size"] = 20_000
        small = settings(algorithm, **values)
        whole = small.model_copy(update={"micro_batch": None})
        sums = [fit(algorithm, dims, config, CPU_16, PROCESS).total("ram") for config in (small, whole)]
        assert sums[0] < sums[1]


def test_tensors_of_the_environment_are_counted_once(site, dims):
    assert dims.env_bytes >= site.task.table.nbytes
    assert torch.is_tensor(site.task.table)


class Wide(VectorEnv):
    """Environments of any width that do nothing."""

    device = torch.device("cpu")

    def __init__(self, num_envs, obs_dim, action_dim):
        self.num_envs, self.obs_dim, self.action_dim = num_envs, obs_dim, action_dim

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


@pytest.mark.parametrize(
    ("algorithm", "obs_dim", "action_dim", "values"),
    [
        ("sac", 20, 5, {**SAC, "hidden": (300, 400)}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 100)}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "layer_norm": True}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "critics": 5}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "micro_batch": 100}),
        ("sac", 20, 5, {**SAC, "hidden": (400, 300), "amp": "bf16"}),
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
        ("ppo", 20, 400, PPO),
        ("ppo", 600, 5, PPO),
        ("ppo", 600, 5, {**PPO, "storage": "float16"}),
        ("a2c", 20, 5, {**ROLLOUT, "hidden": (300, 400)}),
        ("a2c", 20, 5, {**ROLLOUT, "hidden": (300, 400), "micro_batch": 20}),
        ("a2c", 20, 400, ROLLOUT),
        ("a2c", 600, 5, {**ROLLOUT, "storage": "float16"}),
    ],
)
def test_the_plan_is_the_peak_of_what_training_allocates(algorithm, obs_dim, action_dim, values):
    """One thing at a time is made so large that nothing else can hide an error in its count."""
    env = Wide(4, obs_dim, action_dim)
    config = settings(algorithm, **values)
    plan = fit(algorithm, Dims.of(env), config, CPU_16, process=0)
    with TensorPeak() as taken:
        AGENTS[algorithm].agent(env, plan.apply(config)).learn(24 if algorithm == "sac" else 2_000)
    assert plan.total("ram") == pytest.approx(taken.peak, rel=0.1)


@pytest.mark.parametrize("algorithm", AGENTS)
def test_the_plan_of_a_site_is_its_peak(week_38, algorithm):
    env = DistrictSite([week_38], 64, TaskSettings(sockets="each"), starts="random")
    few = {**SAC, "update_ratio": 1 / 64, "learning_starts": 64}
    config = settings(algorithm, **(few if algorithm == "sac" else {"horizon": 8}))
    env.reset(seed=0)
    plan = fit(algorithm, Dims.of(env), config, CPU_16, process=0)
    with TensorPeak() as taken:
        AGENTS[algorithm].agent(env, plan.apply(config)).learn(256 if algorithm == "sac" else 1_024)
    assert plan.total("ram") == pytest.approx(taken.peak, rel=0.1)
