"""What a training is asked to do, and what can be said of it before PyTorch is loaded."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.config import ALL, Settings, load_settings, shipped_agents
from iquitos_rl.errors import UserError

LATEST = Path("")
"""In the place of the folder to resume in: `output`, or the latest run of the case."""


@dataclass(frozen=True)
class Request:
    """What a training is asked to do."""

    agent: str
    """A name of the registry, or `all`."""
    config: Path | None = None
    """The user's YAML file of settings."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Run settings by name; None leaves one to the files."""
    sets: tuple[str, ...] = ()
    """`key=value` texts, see `load_settings`."""
    output: Path | None = None
    resume: Path | None = None
    """Folder of the run to resume, or `LATEST`; None starts a run."""
    allow_changes: bool = False
    """Resume although settings or data have changed."""
    skip_baseline: bool = False
    """Take references from the cache only."""
    quick: bool = False
    """Take the settings of a first look for what nothing else sets."""
    cache: Path | None = None
    """Where built years and references are kept; next to the output by default."""
    patience_s: float = 0.0
    """How long to wait for another process to leave the output folder: one that has lost its node lives for seconds."""

    def settings(self, resumed: Mapping[str, dict[str, Any]] | None = None) -> Settings:
        """Settings of each agent to be trained; those of the run that is `resumed` are the defaults."""
        names = shipped_agents() if self.agent == ALL else [self.agent]
        together = self.agent == ALL
        return load_settings(names, self.config, self.flags, self.sets, resumed, together, self.quick)


def refuse_mistyped(case: str) -> None:
    """Raise UserError where there is no such preset and no such file, but a preset of nearly that name."""
    if case in PRESETS or os.path.exists(case):
        return
    near = difflib.get_close_matches(case, PRESETS, n=1, cutoff=0.75)
    if near:
        raise UserError(f"there is no case {case}; did you mean {near[0]}?")
