"""What a training is asked to do, and the settings that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iquitos_rl.config import ALL, Settings, load_settings, shipped_agents

OUTPUTS = Path("outputs")
LATEST = Path("")
"""In the place of the folder to resume in: `output`, or the latest run of the case."""


@dataclass(frozen=True)
class Request:
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
    cache: Path | None = None
    """Where built years and references are kept; next to the output by default."""

    def settings(self, resumed: Mapping[str, dict[str, Any]] | None = None) -> Settings:
        """Settings of each agent to be trained.

        Args:
            resumed: by agent, the stored settings of the run that is resumed: the defaults, so that the user says only
                what changes.

        Raises:
            UserError: see `load_settings`.
        """
        names = shipped_agents() if self.agent == ALL else [self.agent]
        return load_settings(names, self.config, self.flags, self.sets, resumed, together=self.agent == ALL)
