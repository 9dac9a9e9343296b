"""MLflow. Needs the extra `mlflow`; the server is MLflow's own setting (`MLFLOW_TRACKING_URI`)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from iquitos_rl.machine.optional import optional

mlflow: Any = optional("mlflow", "mlflow")
MOST_PARAMETERS, LONGEST_VALUE = 100, 500
"""What any server takes: parameters in one call, letters of a value."""


class MLflow:
    """A run of MLflow, the project is its experiment; see `Writer`. The process's active run is left alone."""

    def __init__(self, project: str, name: str, settings: Mapping[str, Any] = {}, run_id: str | None = None) -> None:
        self.client = mlflow.MlflowClient()
        if run_id is None:
            found = self.client.get_experiment_by_name(project)
            experiment = self.client.create_experiment(project) if found is None else found.experiment_id
            run_id = self.client.create_run(experiment, run_name=name).info.run_id
            parameters = [
                mlflow.entities.Param(plain(key), str(value)[:LONGEST_VALUE]) for key, value in flat(settings)
            ]
            for first in range(0, len(parameters), MOST_PARAMETERS):
                self.client.log_batch(run_id, params=parameters[first : first + MOST_PARAMETERS])
        else:
            self.client.update_run(run_id, status="RUNNING")
        self.run_id: str = run_id

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        rows = [mlflow.entities.Metric(plain(name), value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=rows)

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def plain(name: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its whole name, `agent.gamma`."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
