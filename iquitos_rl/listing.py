"""Settings as a list to read: key, value as `--set` takes it, type and meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from iquitos_rl.assignments import write_value
from iquitos_rl.registry import Names

WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null", dict: "mapping"}
BOUNDS = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}


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
    return ", ".join([_type(field.annotation), *_bounds(field.metadata)])


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


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for item in metadata:
        for kind, word in BOUNDS.items():
            if isinstance(item, kind):
                yield f"{word} {write_value(getattr(item, kind.__name__.lower()))}"
    shortest, longest = (
        next((getattr(item, name) for item in metadata if isinstance(item, kind)), None)
        for kind, name in ((MinLen, "min_length"), (MaxLen, "max_length"))
    )
    if shortest is not None:
        yield f"{shortest} of them" if shortest == longest else f"{shortest} or more of them"
