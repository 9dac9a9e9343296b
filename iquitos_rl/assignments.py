"""Settings as text: how values are written, `key.sub=value` assignments, and how a mistake in one is told.

Values are YAML, with the words and numbers of YAML 1.2: `off`, `on`, `yes` and `no` are words (a true-or-false setting
takes them too), `1e3` is a number, `12:30` and `2024-01-31` are text. YAML files of settings are read in the same way.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import DIGITS, SETTINGS_BYTES, InputError, is_text, read_text

Layer = dict[str, Any]
M = TypeVar("M", bound=BaseModel)
MANY = 10**9
"""More than any count of a run can be; what is larger is a slip of the keyboard."""
SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
"""The core schema of YAML 1.2, section 10.3.2: what a plain word is, tried from the top."""


PLAIN = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
"""What a setting can be. Dates, sets, merge keys and the like are not read."""
YAML_DEPTH, YAML_VALUES = 50, 20_000
"""Most levels inside each other, and most values, where one that is named again by an alias counts again."""


class _Reader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_integer(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if len(text) > DIGITS:
            raise ValueError(f"a whole number has {len(text):,} digits, at most {DIGITS} are read")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node


def _size(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, and how many levels, aliases followed.

    Raises:
        ValueError: too many, or the node is no plain data.
    """
    if node.tag not in PLAIN:
        raise ValueError(f"{ascii(node.tag)[:80]} is no kind of value that is read")
    if isinstance(node, yaml.ScalarNode):
        if not is_text(node.value):
            raise ValueError(f"a text in it is no Unicode: {ascii(node.value)[:80]}")
        return 1, 0
    if id(node) not in known:
        known[id(node)] = 0, YAML_DEPTH  # until it is known: a node inside itself is too deep
        inner = node.value
        if isinstance(node, yaml.MappingNode):
            if any(key.tag != "tag:yaml.org,2002:str" for key, _ in inner):
                raise ValueError("a key in it is no text")
            inner = [value for pair in inner for value in pair]
        sizes = [_size(value, known) for value in inner]
        count, levels = 1 + sum(own for own, _ in sizes), 1 + max((own for _, own in sizes), default=0)
        if levels > YAML_DEPTH:
            raise ValueError(f"it is nested more than {YAML_DEPTH} levels deep")
        if count > YAML_VALUES:
            raise ValueError(f"it has more than {YAML_VALUES:,} values")
        known[id(node)] = count, levels
    return known[id(node)]


class _Writer(yaml.SafeDumper):
    """Quotes what is a number or no text in YAML 1.1 or 1.2, so that readers of both see text."""

    def represent_text(self, text: str) -> Any:
        # Line ends and the like are escaped: unquoted, some of them would be read as a space.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


for _tag, _pattern in SCALARS.items():
    for _kind in (_Reader, _Writer):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), None)
_Reader.add_constructor("tag:yaml.org,2002:int", _Reader.construct_integer)
_Writer.add_representer(str, _Writer.represent_text)


def read_value(text: str) -> Any:
    """What a text means.

    Raises:
        ValueError: it is not YAML; the message is one line.
    """
    try:
        return yaml.load(text, _Reader)
    except RecursionError:
        raise ValueError(f"it is nested more than {YAML_DEPTH} levels deep") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from None


def write_value(value: Any) -> str:
    """The text that `read_value` reads as this value, on one line."""
    text = yaml.dump(value, Dumper=_Writer, default_flow_style=True, allow_unicode=True, width=inf, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def write_layer(layer: Mapping[str, Any]) -> str:
    """A YAML file's contents."""
    return yaml.dump(dict(layer), Dumper=_Writer, allow_unicode=True, sort_keys=False)


def read_yaml(path: Path) -> Layer:
    """Read a mapping from a YAML file.

    Raises:
        UserError: the file is missing, is not YAML or is not a mapping.
    """
    text = read_text(path, SETTINGS_BYTES)
    try:
        data = read_value(text)
    except ValueError as error:
        raise InputError(path, f"is not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{path} must hold settings as 'key: value' lines")
    return data


def parse_assignments(assignments: Iterable[str]) -> Layer:
    """Turn the `key.sub=value` texts of `--set` into a nested layer.

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
            parsed = read_value(value)
        except ValueError:
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
            near = difflib.get_close_matches(loc[-1], _field_names(model, loc[:-1]), n=1)
            near = [".".join([*loc[:-1], name]) for name in near]
            near = near or [path for path in _all_paths(model) if path.split(".")[-1] == loc[-1]]
            hint = f"; did you mean {where}{'.' if where else ''}{near[0]}?" if near else ""
            raise UserError(f"{key} is not a setting{hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{key} = {first['input']!r}: {message[0].lower()}{message[1:]}") from None


def _all_paths(model: type[BaseModel]) -> list[str]:
    """Every setting's full name."""
    paths = []
    for name, field in model.model_fields.items():
        own = field.annotation
        inner = _all_paths(own) if isinstance(own, type) and issubclass(own, BaseModel) else []
        paths += [name, *(f"{name}.{path}" for path in inner)]
    return paths


def _field_names(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
