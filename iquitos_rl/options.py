"""Options that commands share, with the help of the run settings that they set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token
from cyclopts.validators import mutually_exclusive

from iquitos_rl.meanings import RUN


def _setting(name: str, default: str | None = None) -> Parameter:
    """An option that sets a run setting; None, what it is without the option, leaves it to the layers of settings."""
    own, text = RUN[name]
    return Parameter(help=f"{text} (default: {own if default is None else default})")


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """A whole number as `--set` reads it, and `20k` or `1.5M`: `1e5` is one."""
    from iquitos_rl.assignments import read_value  # `--help` does without YAML

    text = tokens[-1].value
    number = text.rstrip("kM")
    value = read_value(number)
    if number != text and isinstance(value, (int, float)):
        value *= {"k": 1e3, "M": 1e6}.get(text.removeprefix(number), math.nan)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise ValueError(f"{text} is not a whole number")
    return value


_WHOLE = Parameter(converter=_whole)
_BUDGET = Group("Budget, one of", validator=mutually_exclusive)
OF_AGENT = "the agent's, see `iquitos-rl settings AGENT`"

Case = Annotated[str | None, _setting("case")]
Cases = Annotated[
    tuple[str, ...],
    Parameter(
        name="--case",
        help=f"{RUN['case'].text}; several folders for several years of one site (default: {RUN['case'].default})",
    ),
]
EvalCase = Annotated[str | None, _setting("eval_case", "a preset's unseen year, else the case itself")]
Config = Annotated[Path | None, Parameter(help="YAML file of settings (default: none)")]
Sets = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="KEY=VALUE, any setting that `iquitos-rl settings AGENT` lists, e.g. agent.gamma=0.95; may be repeated",
    ),
]
Cluster = Annotated[
    str | None,
    Parameter(help="let the nodes of a Ray cluster do it: auto, or HOST:PORT of its head (default: this machine)"),
]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, _setting("device")]
Engine = Annotated[str | None, _setting("engine")]
NumEnvs = Annotated[int | None, _WHOLE, _setting("num_envs", OF_AGENT)]
Seed = Annotated[int | None, _WHOLE, _setting("seed")]
Episodes = Annotated[int | None, _WHOLE, Parameter(group=_BUDGET), _setting("episodes", OF_AGENT)]
Steps = Annotated[int | None, _WHOLE, Parameter(group=_BUDGET), _setting("steps", OF_AGENT)]
