"""What may be tried for a setting when an agent is tuned; declared next to the agent's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Between(NamedTuple):
    """A number from `low` to `high`, both included; a whole one where both are whole."""

    low: float
    high: float
    log: bool = False
    """Whether ratios matter and not differences."""


class OneOf(NamedTuple):
    """One of several values."""

    values: tuple[Any, ...]


Search = Mapping[str, Between | OneOf]
"""By setting, as `--set` names it: `agent.gamma`, `reach`."""
WIDTHS = OneOf(((32, 32), (64, 64), (128, 128), (256, 256)))
"""Of hidden layers."""
GUIDED: Search = {"reach": Between(0.01, 0.2, log=True)}
"""How far an action departs from the guide's, for every agent."""
