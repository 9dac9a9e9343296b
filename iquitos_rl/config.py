"""Settings of a run: typed models as the one source of truth, YAML files and the command line on top.

Later layers win: the models' defaults, `configs/default.yaml`, `configs/<agent>.yaml`, `configs/all.yaml` where all
are trained, `configs/<case>.yaml`, the user's `--config` file, the named flags, `--set key=value`. A plugin's agent
needs no YAML file: its model's defaults are its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.assignments import MANY, Layer, merge, parse_assignments, read_yaml, validate
from iquitos_rl.envs.engines import ENGINES
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.meanings import RUN
from iquitos_rl.writers.registry import WRITERS

ALL = "all"
"""In the place of an agent's name: every agent that has a shipped YAML file."""
Threads = Annotated[int, Field(ge=1, le=1024)]
QUICK = "quick"
"""The shipped YAML file of `--quick`."""


def _run_field(name: str, **limits: Any) -> Any:
    """A field whose default and meaning `meanings.RUN` holds."""
    return Field(RUN[name].default, description=RUN[name].text, **limits)


class RunSettings(BaseModel):
    """Everything about a training run that is not the agent's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    case: str = _run_field("case")
    case_settings: dict[str, Any] = Field({}, description="overrides of a preset, e.g. {pv: {model: documented}}")
    years: int = Field(
        12, ge=1, le=MANY, description="training years made of a preset, each with a year seed of its own"
    )
    more_cases: tuple[str, ...] = Field((), description="further folders to train on: other years of the same site")
    eval_case: str | None = _run_field("eval_case")
    engine: Annotated[str, ENGINES.named("auto")] = _run_field("engine")
    guide: Literal["auto", "strongest", "self-consumption", "none"] = Field(
        "auto", description="the rule that actions count from, or none; auto is strongest, tuned, wherever it can act"
    )
    reach: float = Field(
        0.04,
        gt=0,
        le=2,
        description="share of a battery's capacity by which an action departs from the guide's an hour",
    )
    beyond: float = Field(
        0.1, ge=0, le=1, description="share of a departure that is left beyond the month's highest import"
    )
    continue_from: str | None = Field(
        None, description="a run or policy folder whose networks training starts with; its optimiser starts fresh"
    )
    num_envs: int = _run_field("num_envs", ge=1, le=MANY)
    episode_hours: int = Field(
        720, ge=1, le=MANY, description="length of the district engine's episodes, from random hours on"
    )
    episodes: int | None = _run_field("episodes", ge=1, le=MANY)
    steps: int | None = _run_field("steps", ge=1, le=1000 * MANY)
    device: Literal["auto", "cpu", "cuda"] = _run_field("device")
    threads: Threads | Literal["auto"] = Field(
        "auto", description="CPU threads of PyTorch; auto measures which is faster"
    )
    seed: int = _run_field("seed", ge=0, lt=2**31)
    checkpoint_minutes: float = Field(10, ge=0, le=1e6, description="time between checkpoints; 0 for one at every step")
    writers: tuple[Annotated[str, WRITERS.named()], ...] = Field(
        (), description="where metrics go besides metrics.csv and TensorBoard: wandb, mlflow, trackio"
    )
    project: str = Field("iquitos_rl", min_length=1, description="the project's name there")
    task: TaskSettings = Field(default_factory=TaskSettings)


class AgentSettings(NamedTuple):
    """How one agent is trained: the run's settings with the agent's own values of some, and its hyperparameters."""

    run: RunSettings
    agent: BaseModel

    def dump(self) -> Layer:
        """Every effective setting, in the form that `--config` reads."""
        return {**self.run.model_dump(mode="json"), "agent": self.agent.model_dump(mode="json")}

    def flat(self) -> Layer:
        """The run's own settings and the agent's, by the keys that `--set` takes."""
        dump = self.dump()
        return {**dump, **{f"agent.{key}": value for key, value in dump["agent"].items()}}


class Settings(NamedTuple):
    """The settings of a command that trains one agent or several."""

    agents: dict[str, AgentSettings]

    @property
    def run(self) -> RunSettings:
        """The first agent's: for what all have in common (`COMMON`), and what a process has once: device, threads."""
        return next(iter(self.agents.values())).run

    def dump(self) -> dict[str, Layer]:
        """Every effective setting by agent."""
        return {name: own.dump() for name, own in self.agents.items()}


COMMON = (
    *("case", "more_cases", "case_settings", "eval_case", "years"),
    *("task.objective", "task.ev_guard", "task.present"),
)
"""What agents that are trained together cannot have each for itself: their results would not be comparable."""


def config_folder() -> Path:
    """Where the shipped YAML files are: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def unguided_settings(name: str) -> Path:
    """The shipped settings of an agent for training without a guide; a plugin's agent has no such file."""
    return config_folder() / "unguided" / f"{name}.yaml"


def shipped_agents() -> list[str]:
    """The agents that `all` and a comparison stand for: those with a YAML file of their own among the shipped ones, in
    the registry's order. An agent of a plugin, and one that only some sites can train, is trained when it is named."""
    return [name for name in AGENTS if (config_folder() / f"{name}.yaml").is_file() and not _partial(name)]


def compared_agents(names: Sequence[str]) -> list[str]:
    """The agents that a comparison compares, in the registry's order; no name stands for `shipped_agents`.

    Raises:
        UserError: there is no agent of a name.
    """
    for name in names:
        if name not in AGENTS:
            raise UserError(f"--agents {name}: there are {', '.join(AGENTS)}")
    return [name for name in AGENTS if name in names] or shipped_agents()


def _partial(name: str) -> bool:
    return AGENTS[name].differentiates or AGENTS[name].named_only


def load_settings(
    names: Sequence[str],
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    base: Mapping[str, Layer] | None = None,
    together: bool = False,
    quick: bool = False,
) -> Settings:
    """Put the layers together for each agent.

    Args:
        names: of agents, at least one.
        config: the user's YAML file.
        flags: the named flags, keys of `RunSettings`; None is one that was not given.
        sets: `key=value` texts: keys of `RunSettings`, or `agent.` ones; under an agent's name (`sac.`) they are for
            that agent alone, as in every layer.
        base: by agent, the settings of the run that is resumed; the user's own come on top.
        together: whether the agents share the one budget of `configs/all.yaml`.
        quick: whether `configs/quick.yaml` comes on top of the agents' files.

    Raises:
        UserError: an agent or a key is unknown, a value impossible, a file unreadable, or the agents differ in what
            they must have in common.
    """
    user = [] if config is None else [read_yaml(config)]
    user += [{key: value for key, value in (flags or {}).items() if value is not None}, parse_assignments(sets)]
    shipped = ["default", *([ALL] if together else []), *([QUICK] if quick else [])]
    agents = {
        name: _load_agent(name, shipped, [*([base[name]] if base and name in base else []), *user]) for name in names
    }
    settings = Settings(agents)
    for name, own in agents.items():
        for key in COMMON:
            if attrgetter(key)(own.run) != attrgetter(key)(settings.run):
                raise UserError(f"{name} has another {key} than {names[0]}: trained together, agents have the same")
    return settings


def _load_agent(name: str, shipped: list[str], user: list[Layer]) -> AgentSettings:
    model, folder = AGENTS.require(name).config, config_folder()
    paths = [folder / f"{layer}.yaml" for layer in (shipped[0], name, *shipped[1:])]
    layers = [read_yaml(path) for path in paths if path.is_file() or path.stem in shipped]
    case = next((layer["case"] for layer in reversed(layers + user) if "case" in layer), RunSettings().case)
    preset = folder / f"{case}.yaml"
    if isinstance(case, str) and Path(case).name == case and preset.is_file() and case not in AGENTS:
        layers.append(read_yaml(preset))
    merged: Layer = {}
    for layer in (_for_agent(layer, name) for layer in [*layers, *user]):
        # A budget given later replaces one given earlier, in whichever unit.
        if "steps" in layer or "episodes" in layer:
            merged = {key: value for key, value in merged.items() if key not in ("steps", "episodes")}
        merged = merge(merged, layer)
    agent = merged.pop("agent", {})
    if not isinstance(agent, dict):
        raise UserError("agent: expected settings of the agent, one 'key: value' each")
    for key in merged:
        if key not in RunSettings.model_fields and key in model.model_fields:
            raise UserError(f"{key} is not a setting; did you mean agent.{key}?")
    run = validate(RunSettings, merged, "")
    if run.steps is not None and run.episodes is not None:
        raise UserError("give either steps or episodes, not both")
    return AgentSettings(run, validate(model, agent, "agent"))


def _for_agent(layer: Layer, name: str) -> Layer:
    """Any layer may hold a section for each agent; keep this agent's and what is common."""
    common = {key: value for key, value in layer.items() if key not in AGENTS}
    own = layer.get(name) or {}
    if not isinstance(own, dict):
        raise UserError(f"{name}: expected settings of that agent, one 'key: value' each")
    return merge(common, own)
