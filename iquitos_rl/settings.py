"""`python -m iquitos_rl.settings sac`: list every setting as `--set` takes it, with type, default and meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from cyclopts import Parameter
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from iquitos_rl.assignments import MANY, read_yaml, validate, write_value
from iquitos_rl.cli import entry
from iquitos_rl.registry import Names

WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null", dict: "mapping"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Row(NamedTuple):
    key: str
    value: Any
    type: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.key} = {write_value(self.value)}\n    {self.meaning} [{self.type}]"


def rows(settings: BaseModel, prefix: str = "") -> Iterator[Row]:
    """Every setting of a model with the value that it has here, nested models by their own fields."""
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from rows(value, f"{prefix}{name}.")
        else:
            yield Row(f"{prefix}{name}", values[name], describe_type(field), field.description or "")


def describe_type(field: FieldInfo) -> str:
    """What a setting's value may be, in words."""
    for item in field.metadata:
        if isinstance(item, AfterValidator) and isinstance(item.func, Names):
            return " or ".join(item.func.choices())
    names = (*BOUNDS, "min_length", "max_length")
    limits = {name: getattr(item, name) for item in field.metadata for name in names if hasattr(item, name)}
    told = {name: limit for name, limit in limits.items() if name in BOUNDS and limit < MANY}  # others only catch slips
    words = [f"{BOUNDS[name]} {write_value(limit)}" for name, limit in told.items()]
    if (shortest := limits.get("min_length")) is not None:
        words.append(f"{shortest} of them" if limits.get("max_length") == shortest else f"{shortest} or more of them")
    return ", ".join([_type(field.annotation), *words])


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is tuple:
        return f"list of {_type(arguments[0])}s".replace("texts", "text")
    return WORDS.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def settings(
    agent: Annotated[
        str | None, Parameter(help="list this agent's too, with the defaults of its YAML file (default: none)")
    ] = None,
    /,
    *,
    case: Annotated[str | None, Parameter(help="list the settings of this preset (default: none)")] = None,
) -> int:
    """List every setting with its key as --set takes it, its default, type and meaning."""
    from iquitos_rl.cases.presets import PRESETS
    from iquitos_rl.config import RunSettings, config_folder, load_settings

    if case is not None:
        print(f"# Settings of {case}, for `case build` and `case import`; in a training under case_settings.")
        changeable = PRESETS.require(case).settings
        found = [] if changeable is None else list(rows(changeable))
    elif agent is not None:
        own = load_settings([agent]).agents[agent]
        print(f"# Settings of a training of {agent}")
        found = [*rows(own.run), *rows(own.agent, "agent.")]
    else:
        print("# Settings of a training; those of an agent: iquitos-rl settings AGENT")
        found = list(rows(validate(RunSettings, read_yaml(config_folder() / "default.yaml"), "")))
    for row in found:
        print(row, flush=True)  # some types name what torch has to be loaded for
    return 0


main = entry("settings", settings)

if __name__ == "__main__":
    raise SystemExit(main())
