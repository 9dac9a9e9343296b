"""Where a training's metrics go besides its own folder, by the names that `writers` uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from iquitos_rl.registry import Registry


class Writer(Protocol):
    """Takes the metrics of a training, one call for each report, in the order of the steps."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics at `step` transitions."""

    def close(self) -> None:
        """Finish; what was written is kept."""


class RunWriter(Writer, Protocol):
    """A writer that can go on with a run later.

    It is made with a project's name, a run's name, settings (nested, JSON), and the `run_id` of the run to go on with,
    None for a new one.
    """

    run_id: str


WRITERS: Registry[Callable[[str, str, Mapping[str, Any], str | None], RunWriter]] = Registry(
    "writer",
    {
        "wandb": "iquitos_rl.writers.wandb:WandB",
        "mlflow": "iquitos_rl.writers.mlflow:MLflow",
        "trackio": "iquitos_rl.writers.trackio:Trackio",
    },
)
