"""Trackio, Hugging Face's tracker on this machine. Needs the extra `trackio`; `trackio show` shows the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iquitos_rl.machine.optional import optional

trackio: Any = optional("trackio", "trackio")


class Trackio:
    """A run of Trackio; see `Writer`. A run that goes on is known by its name."""

    def __init__(self, project: str, name: str, settings: Mapping[str, Any] = {}, run_id: str | None = None) -> None:
        resume = "never" if run_id is None else "allow"
        run = trackio.init(project=project, name=run_id or name, config=dict(settings), resume=resume, embed=False)
        self.run_id: str = run.name

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        trackio.log(dict(metrics), step=step)

    def close(self) -> None:
        trackio.finish()
