"""Weights & Biases. Needs the extra `wandb`; account and server are its own settings (`wandb login`, `WANDB_MODE`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iquitos_rl.machine.optional import optional

wandb: Any = optional("wandb", "wandb")


class WandB:
    """A run of Weights & Biases; see `Writer`. A run that goes on keeps what it has: repeated steps are not added."""

    def __init__(self, project: str, name: str, settings: Mapping[str, Any] = {}, run_id: str | None = None) -> None:
        self.run = wandb.init(project=project, name=name, config=dict(settings), id=run_id, resume="allow")
        self.run_id: str = self.run.id

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()
