"""Every number that comes from a file or a command line is bounded, whichever model it is in."""

import importlib
import pkgutil
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from setting_fields import MODELS

import iquitos_rl
from iquitos_rl.assignments import parse_assignments, validate
from iquitos_rl.errors import UserError

OPTIONAL = {"envs.gym.pettingzoo", "envs.gym.stable_baselines3", "writers.mlflow", "writers.trackio", "writers.wandb"}
"""Modules that need a package which is not installed with this one; they have no model."""

for module in pkgutil.walk_packages(iquitos_rl.__path__, "iquitos_rl."):
    if not module.name.endswith("__main__") and module.name.removeprefix("iquitos_rl.") not in OPTIONAL:
        importlib.import_module(module.name)


def subclasses(kind: type) -> list[type]:
    return [own for sub in kind.__subclasses__() for own in (sub, *subclasses(sub))]


OURS = sorted({own for own in subclasses(BaseModel) if own.__module__.startswith("iquitos_rl.")}, key=str)


def numbers(annotation: Any, metadata: tuple[Any, ...] = ()) -> list[tuple[type, dict[str, Any]]]:
    """The kinds of numbers that a field can hold, each with its bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [item for own in arguments[1:] for item in (own.metadata if isinstance(own, FieldInfo) else [own])]
        return numbers(arguments[0], (*metadata, *inner))
    if origin in (Union, UnionType, tuple, list, dict):
        keep = metadata if origin in (Union, UnionType) else ()
        return [found for own in arguments for found in numbers(own, keep)]
    if annotation in (int, float):
        return [
            (
                annotation,
                {name: getattr(m, name) for m in metadata for name in ("ge", "gt", "le", "lt") if hasattr(m, name)},
            )
        ]
    return []


FIELDS = [(model, name, field) for model in OURS for name, field in model.model_fields.items()]


@pytest.mark.parametrize(
    ("model", "name", "field"), [pytest.param(*own, id=f"{own[0].__name__}.{own[1]}") for own in FIELDS]
)
def test_every_number_is_bounded(model, name, field):
    for kind, bounds in numbers(field.annotation, tuple(field.metadata)):
        if kind is int or model in MODELS:
            assert bounds.keys() & {"le", "lt"}, f"{name} has no upper bound"
            assert bounds.keys() & {"ge", "gt"}, f"{name} has no lower bound"
    if any(kind is float for kind, _ in numbers(field.annotation)):
        kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        adapter = TypeAdapter(kind, config=model.model_config)
        for bad in (float("inf"), float("-inf"), float("nan")):
            for shaped in (bad, [bad], [bad] * 12, [bad] * 24, {"x": bad}):
                with pytest.raises(ValidationError):
                    adapter.validate_python(shaped)


def test_models_are_found():
    assert len(OURS) > 20
    assert numbers(Annotated[int | None, FieldInfo(ge=1)]) == [(int, {"ge": 1})]
    assert numbers(tuple[float, ...] | Literal["auto"]) == [(float, {})]


numeric = [(model, name) for model in MODELS for name, field in model.model_fields.items() if numbers(field.annotation)]
huge = st.sampled_from(
    ["1e999", ".inf", "-.inf", ".nan", "1" + "0" * 60, "-1" + "0" * 60, "1e30", "-1e30", "9" * 5000, "0x" + "f" * 99]
)


@settings(max_examples=150, deadline=None, database=None)
@given(st.sampled_from(numeric), huge)
def test_no_setting_takes_what_is_beyond_all_bounds(setting, text):
    model, name = setting
    for shape in ("{}", "[{}]", "[{},{}]"):
        with pytest.raises(UserError) as error:
            validate(model, parse_assignments([f"{name}={shape.format(text, text)}"]), "")
        assert str(error.value).count("\n") == 0
