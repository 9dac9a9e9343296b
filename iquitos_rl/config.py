"""Settings of a run: typed models as the one source of truth, YAML files and the command line on top.

Later layers win: the models' defaults, `configs/default.yaml`, `configs/<algorithm>.yaml`, `configs/all.yaml` where all
are trained, `configs/<case>.yaml`, the user's `--config` file, the named flags, `--set key=value`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iquitos_rl.envs.engines import ENGINES
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError

Algorithm = Literal["sac", "ppo", "a2c"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
Layer = dict[str, Any]
M = TypeVar("M", bound=BaseModel)


class RunSettings(BaseModel):
    """Everything about a training run that is not the algorithm's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str = Field("iquitos-38", description="a preset's name, a schema folder, or a CityLearn dataset's name")
    case_settings: dict[str, Any] = Field({}, description="overrides of a preset, e.g. {pv: {model: documented}}")
    years: int = Field(12, ge=1, description="training years made of a preset, each with a year seed of its own")
    eval_case: str | None = Field(None, description="folder to evaluate on; by default a preset's unseen year")
    engine: Annotated[str, ENGINES.named("auto")] = Field(
        "auto", description="what simulates the training years; auto takes district wherever it can"
    )
    guide: Literal["auto", "strongest", "none"] = Field(
        "auto", description="the tuned rule that actions count from, or none; auto takes the rule wherever it can act"
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
    num_envs: int = Field(1, ge=1, description="environments stepped together")
    episode_hours: int = Field(720, ge=1, description="length of the district engine's episodes, from random hours on")
    episodes: int | None = Field(None, ge=1, description="site-years to train on in all; not beside steps")
    steps: int | None = Field(None, ge=1, description="site-hours to train on in all; not beside episodes")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | Literal["auto"] = Field("auto", description="CPU threads of PyTorch; auto measures which is faster")
    seed: int = Field(0, ge=0, lt=2**31)
    checkpoint_minutes: float = Field(
        10, ge=0, allow_inf_nan=False, description="time between checkpoints; 0 for one at every step"
    )
    task: TaskSettings = TaskSettings()


class Settings(NamedTuple):
    """A run's settings and its algorithm's."""

    run: RunSettings
    agent: BaseModel

    def dump(self) -> Layer:
        """Every effective setting, in the form that `--config` reads."""
        return {**self.run.model_dump(mode="json"), "agent": self.agent.model_dump(mode="json")}


def config_folder() -> Path:
    """Where the shipped YAML files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def read_yaml(path: Path) -> Layer:
    """Read a mapping from a YAML file.

    Raises:
        UserError: the file is missing, is not YAML or is not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path} must hold settings as 'key: value' lines")
    return data


def parse_assignments(assignments: Iterable[str]) -> Layer:
    """Turn `key.sub=value` texts into a nested layer; values are read as YAML.

    Raises:
        UserError: a text has no `=`, an empty key, or a value that is not YAML.
    """
    layer: Layer = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UserError(f"--set {text}: expected key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text}: the value is not valid YAML") from None
        target = layer
        for part in parts[:-1]:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise UserError(f"--set {text}: {part} has been set to a value already")
        target[parts[-1]] = parsed
    return layer


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Layer:
    """A copy of `base` in which `over` wins, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def validate(model: type[M], data: Mapping[str, Any], where: str) -> M:
    """Check a layer against its model.

    Raises:
        UserError: one sentence naming the first key that is unknown or has an impossible value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        loc = [str(part) for part in first["loc"]]
        key = ".".join([where, *loc] if where else loc)
        if first["type"] == "extra_forbidden":
            close = difflib.get_close_matches(loc[-1], _field_names(model, loc[:-1]), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{key} is not a setting{hint}") from None
        raise UserError(f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def _field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def load_settings(
    algorithm: Algorithm,
    agent_model: type[BaseModel],
    config: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    base: Layer | None = None,
    together: bool = False,
) -> Settings:
    """Put the layers together for one algorithm.

    Args:
        agent_model: the algorithm's own settings.
        config: the user's YAML file.
        flags: the named flags, keys of `RunSettings`.
        sets: `key=value` texts: keys of `RunSettings`, or `agent.` ones; under `sac.`, `ppo.` or `a2c.` they are for
            that algorithm alone, as in every layer.
        base: settings of the run that is gone on with; the user's own come on top.
        together: whether all algorithms are trained, on the one budget of `configs/all.yaml`.

    Raises:
        UserError: a key is unknown, a value impossible, a file unreadable.
    """
    folder = config_folder()
    names = ["default", algorithm, *(["all"] if together else [])]
    layers = [read_yaml(folder / f"{name}.yaml") for name in names]
    user = [base] if base is not None else []
    user += [read_yaml(config)] if config is not None else []
    user += [{key: value for key, value in (flags or {}).items() if value is not None}, parse_assignments(sets)]
    case = next((layer["case"] for layer in reversed(layers + user) if "case" in layer), RunSettings().case)
    preset = folder / f"{case}.yaml"
    if isinstance(case, str) and Path(case).name == case and preset.is_file() and case not in ALGORITHMS:
        layers.append(read_yaml(preset))
    merged: Layer = {}
    for layer in (_for_algorithm(layer, algorithm) for layer in [*layers, *user]):
        # A budget given later replaces one given earlier, in whichever unit.
        if "steps" in layer or "episodes" in layer:
            merged = {key: value for key, value in merged.items() if key not in ("steps", "episodes")}
        merged = merge(merged, layer)
    agent = merged.pop("agent", {})
    if not isinstance(agent, dict):
        raise UserError("agent: expected settings of the algorithm, one 'key: value' each")
    run = validate(RunSettings, merged, "")
    if run.steps is not None and run.episodes is not None:
        raise UserError("give either steps or episodes, not both")
    return Settings(run, validate(agent_model, agent, "agent"))


def _for_algorithm(layer: Layer, algorithm: Algorithm) -> Layer:
    """Any layer may hold a section for each algorithm; keep ours and what is common."""
    common = {key: value for key, value in layer.items() if key not in ALGORITHMS}
    own = layer.get(algorithm) or {}
    if not isinstance(own, dict):
        raise UserError(f"{algorithm}: expected settings of that algorithm, one 'key: value' each")
    return merge(common, own)
