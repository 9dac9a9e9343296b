"""What a user adds in one file, a toy of each kind, goes through commands, planner, comparison and report."""

import json
import sys

import pytest

from iquitos_rl import compare, evaluate, plan, registry, train
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.buffers.codecs import CODECS
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.envs.engines import ENGINES
from iquitos_rl.judging import references
from iquitos_rl.report import style
from iquitos_rl.writers.registry import WRITERS

pytestmark = pytest.mark.usefixtures("without_drawings", "plugin")

AGENT = """
import torch
from torch import nn
from torch.distributions import Normal
from iquitos_rl.agents.agent import Agent, AgentConfig
from iquitos_rl.agents.compiled import Gradient
from iquitos_rl.agents.progress import EpisodeTracker
from iquitos_rl.agents.registry import AGENTS, AgentEntry

class Config(AgentConfig):
    hidden: tuple[int, ...] = (16,)
    horizon: int = 12
    learning_rate: float = 0.01
    storage: str = "float32"

class Reinforce(Agent):
    "Monte Carlo policy gradient (Williams 1992) on rollouts of `horizon` steps, with a fixed deviation of 0.3."

    name, config_type, advice = "reinforce", Config, "agent.hidden"

    def build(self, actor, critic):
        width = self.config.hidden[0]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            layers = nn.Linear(self.spec.obs_dim, width), nn.Tanh(), nn.Linear(width, self.spec.action_dim)
        self.networks = nn.Sequential(*layers).to(self.device)
        self.spawn("act", "predict")
        adam = torch.optim.Adam(self.networks.parameters(), self.config.learning_rate, fused=True)
        self.optimizers, self.obs = {"policy": adam}, None
        parameters = self.networks.parameters()
        self.gradients = {"policy": Gradient(self.loss, parameters, self.config.compile, self.device)}
        if self.env is not None:
            self.tracker = EpisodeTracker(self.env.num_envs, self.device)

    def reset(self):
        self.obs = self.environment().reset(self.seed + self.steps)

    def example(self):
        rows = self.config.horizon * self.environment().num_envs
        widths = (self.spec.obs_dim,), (self.spec.action_dim,), ()
        return tuple(torch.zeros(rows, *width, device=self.device) for width in widths)

    def loss(self, obs, action, weight):
        log_prob = Normal(self.networks(obs), 0.3, validate_args=False).log_prob(action).sum(-1)
        loss = -(log_prob * weight).mean()
        return loss, {"loss": loss}

    def act(self, obs, generator):
        return self.networks(obs)

    def rounds(self, total_steps, on_step):
        if self.obs is None:
            self.reset()
        while self.steps < total_steps:
            seen, actions, rewards = [], [], []
            for _ in range(self.config.horizon):
                mean = self.networks(self.obs).detach()
                noise = torch.randn(mean.shape, generator=self.generators["act"], device=self.device)
                action = mean + 0.3 * noise
                step = self.env.step(action.clamp(-1, 1))
                self.tracker.update(step)
                seen.append(self.obs)
                actions.append(action)
                rewards.append(step.reward)
                self.obs, self.steps = step.obs, self.steps + self.env.num_envs
                if on_step is not None:
                    on_step(self.steps)
            returns = torch.stack(rewards).flip(0).cumsum(0).flip(0)
            weight = (returns - returns.mean()).flatten()
            self.metrics.add(self.gradients["policy"].set((torch.cat(seen), torch.cat(actions), weight), len(weight)))
            self.optimizers["policy"].step()
            self.updates += 1
            yield

    def state_dict(self):
        return {**super().state_dict(), "obs": self.obs}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.obs = state["obs"]

AGENTS.add("reinforce", AgentEntry(Reinforce, Config, "REINFORCE", "#654321"))
"""

CODEC = """
import torch
from iquitos_rl.buffers.codecs import CODECS, Codec

def encode(values):
    levels = (values.clamp(-1, 1) * 7).round().add(7).to(torch.uint8)
    levels = torch.nn.functional.pad(levels, (0, levels.shape[1] % 2))
    return levels[:, ::2] * 16 + levels[:, 1::2]

def decode(stored, out):
    both = torch.stack([stored // 16, stored % 16], dim=-1).flatten(1)
    out.copy_(both[:, : out.shape[1]]).sub_(7).div_(7)

CODECS.add("int4", Codec(lambda count: (count + 1) // 2, encode, decode, bounded=True))
"""

CONTROLLER = """
import numpy as np
from iquitos_rl.baselines.registry import CONTROLLERS, ControllerEntry

def constant(env, learned):
    action = np.full(env.task.action_dim, 0.5, dtype=np.float32)
    return lambda obs: action

CONTROLLERS.add(
    "half", ControllerEntry("half power", "everything at half power", constant, kept=True, colour="#123456")
)
"""

ENGINE = """
from iquitos_rl.envs.engines import ENGINES, EngineEntry

district = ENGINES["district"]

def make(wanted):
    return district.make(wanted)._replace(note="it is a copy")

ENGINES.add("copied", EngineEntry(district.cannot, make, guided=True))
"""

PRESET = """
import json
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.presets import PRESETS, Preset

def two_days(year_seed, folder, overrides):
    build_case("iquitos-128", year_seed, folder, {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    schema |= {"simulation_start_time_step": 24, "simulation_end_time_step": 63}
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")

PRESETS.add("two-days", Preset(two_days))
"""

WRITER = """
from iquitos_rl.writers.registry import WRITERS

class Lines:
    seen = []

    def __init__(self, project, name, settings, run_id):
        self.run_id = run_id or name

    def write(self, step, metrics):
        self.seen.append((self.run_id, step, sorted(metrics)))

    def close(self):
        self.seen.append("closed")

WRITERS.add("lines", Lines)
"""

ADDED = (
    *((AGENTS, "reinforce"), (CODECS, "int4"), (CONTROLLERS, "half"), (ENGINES, "copied"), (PRESETS, "two-days")),
    (WRITERS, "lines"),
)
HERE = ["--case", "two-days", "--set", "years=2", "--set", "engine=copied", "--device", "cpu"]
TINY = ["--steps", "96", "--set", "agent.hidden=[8]", "--set", "num_envs=2", "--set", "episode_hours=20"]
tune = references.tune


def quick_tune(name, sites, settings, on_share):
    return tune(name, sites, settings, candidates=4, rounds=1, on_share=on_share)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The toys as one file, named by the variable."""
    path = tmp_path_factory.mktemp("plugins") / "toys.py"
    path.write_text("\n".join([AGENT, CODEC, CONTROLLER, ENGINE, PRESET, WRITER]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.VARIABLE, str(path))
        patch.setattr(registry, "_loaded", set())
        patch.setattr(references, "tune", quick_tune)
        yield
    sys.modules.pop("toys", None)
    for table, name in ADDED:
        table._entries.pop(name, None)


@pytest.fixture(scope="module")
def trained(plugin, without_drawings, tmp_path_factory):
    """SAC from a buffer of half bytes, on the copied engine and the preset's years."""
    output = tmp_path_factory.mktemp("outputs") / "run"
    sac = ["--set", "agent.storage=int4", "--set", "agent.learning_starts=50", "--set", "agent.batch_size=32"]
    assert train.main(["sac", *HERE, *TINY, *sac, "--set", "writers=[lines]", "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def compared(plugin, without_drawings, trained):
    """The smallest comparison: one seed, one year."""
    output = trained.parent / "comparison"
    size = ["--agents", "reinforce", "--seeds", "1", "--eval-years", "1"]
    assert compare.main([*HERE, *TINY, *size, "--output", str(output)]) == 0
    return output


def read(folder):
    summary = json.loads((folder / "simulation_summary.json").read_text(encoding="utf-8"))
    return summary, (folder / "report.html").read_text(encoding="utf-8")


def test_all_toys_are_found():
    assert all(name in table for table, name in ADDED)


def test_an_agent_is_planned_trained_compared_and_shown(compared, capsys):
    summary, page = read(compared)
    assert summary["settings"]["reinforce"]["agent"]["horizon"] == 12
    assert summary["standings"]["reinforce"]["seeds"] == 1
    assert (compared / "timeseries_reinforce.csv").is_file()
    assert "<h1>two-days: REINFORCE compared</h1>" in page
    assert style.colour("reinforce") == "#654321"
    metrics = (compared / "reinforce-seed-0" / "metrics.csv").read_text(encoding="utf-8")
    assert len(metrics.splitlines()) == 1 + 96 // (12 * 2)
    assert "loss" in metrics
    assert plan.main(["reinforce", *HERE, "--set", "years=1"]) == 0
    assert "reinforce on two-days: " in capsys.readouterr().out


def test_what_an_agent_takes_is_planned(capsys):
    totals = []
    for hidden in (8, 4_000):
        sets = ["--set", "years=1", "--set", f"agent.hidden=[{hidden}]"]
        assert plan.main(["reinforce", *HERE, "--num-envs", "64", *sets]) == 0
        table = capsys.readouterr().out
        totals.append(sum(mib(table, name) for name in ("networks", "gradients", "optimiser's moments", "an update")))
    activations = 12 * 64 * 4_000 * 4 / 2**20
    assert totals[1] - totals[0] > 2 * activations, "of 12 steps of 64 environments, and their gradients"


def test_a_writer_gets_the_metrics_of_a_training(trained):
    lines = (trained / "metrics.csv").read_text(encoding="utf-8").splitlines()
    *rows, last = sys.modules["toys"].Lines.seen
    assert last == "closed"
    assert [step for _, step, _ in rows] == [int(float(line.split(",")[0])) for line in lines[1:]]
    assert {name for name, _, _ in rows} == {"run"}
    assert {"step", *(name for row in rows for name in row[2])} == set(lines[0].split(","))


def test_a_codec_stores_what_an_agent_learns_from(trained, capsys):
    summary, page = read(trained)
    assert summary["settings"]["sac"]["agent"]["storage"] == "int4"
    assert summary["failed"] == {}
    assert "int4" in page
    for storage in ("int4", "float32"):
        assert plan.main(["sac", *HERE, "--set", "years=1", "--set", f"agent.storage={storage}"]) == 0
    table = capsys.readouterr().out
    assert replay_mib(table, "int4") < replay_mib(table, "float32")


def replay_mib(table, storage):
    """The replay buffer's size in a plan's table."""
    return mib(table, "replay of", storage)


def mib(table, name, inside=""):
    """The size in the first line that starts with a name, 0 without one."""
    lines = (line for line in table.splitlines() if line.startswith(name) and inside in line)
    return next((float(line.split()[-2].replace(",", "")) for line in lines), 0.0)


def test_a_codec_that_does_not_exist_is_one_sentence(capsys):
    assert train.main(["sac", *HERE, "--set", "agent.storage=int3", "--output", "no"]) == 2
    assert "there is no such codec; there are auto, float32, float16, uint8, int4" in capsys.readouterr().err


def test_a_controller_is_evaluated_and_shown_everywhere(trained, compared, tmp_path):
    for folder in (trained, compared):
        summary, page = read(folder)
        assert summary["controllers"]["half"]["bill"] >= summary["controllers"]["optimum"]["bill"]
        assert (folder / "timeseries_half.csv").is_file()
        assert "half power" in page
        assert "everything at half power" in page
    assert "| half |" in (compared / "comparison.md").read_text(encoding="utf-8")
    assert style.colour("half") == "#123456"
    arguments = [str(trained), "--case", "two-days", "--output", str(tmp_path / "again")]
    assert evaluate.main(arguments) == 0
    again = json.loads((tmp_path / "again" / "simulation_summary.json").read_text(encoding="utf-8"))
    assert again["controllers"]["half"] == read(trained)[0]["controllers"]["half"]


def test_an_engine_trains_and_carries_the_guide(trained, capsys):
    assert (
        "guide" in json.loads((trained / "policy" / "policy.json").read_text(encoding="utf-8"))["spec"]["environment"]
    )
    assert plan.main(["reinforce", *HERE, "--set", "years=1"]) == 0
    assert "on the copied engine" in capsys.readouterr().out
    assert (
        train.main(["reinforce", *HERE[:-2], "--engine", "copied", *TINY, "--output", str(trained.parent / "other")])
        == 0
    )
    assert "training on the copied engine (asked for; it is a copy)" in capsys.readouterr().out


def test_a_preset_has_years_to_train_on_and_years_to_evaluate_on(trained, compared, capsys):
    assert read(trained)[0]["evaluated_on"] == "an unseen period"
    summary, page = read(compared)
    assert (summary["case"], summary["years"]) == ("two-days", ["year-1000"])
    assert "two-days" in page
    built = {path.name for path in (trained.parent / "cache" / "cases").glob("two-days-*/year-*") if path.is_dir()}
    assert built == {"year-0", "year-1", "year-1000"}
    assert (
        train.main(["sac", *HERE, "--set", "case_settings={pv: {tilt: 3}}", "--output", str(trained.parent / "no")])
        == 2
    )
    assert "the preset two-days has no settings: pv" in capsys.readouterr().err
