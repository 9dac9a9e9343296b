"""The writers of one training, which goes on whatever becomes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.inputs import InputError, read_typed
from iquitos_rl.writers.registry import WRITERS, RunWriter

FILE = "writers.json"
"""In a run's folder: each writer's `run_id`, so that a resumed training goes on in the same run."""


class Writers:
    """Writers by name. One that fails is left out from then on, and a warning says so once.

    Args:
        folder: of the training.
        fresh: start new runs whatever the folder says.

    Raises:
        UserError: there is no writer of a name, or its package is not installed.
    """

    def __init__(
        self, names: Sequence[str], project: str, run: str, settings: Mapping[str, Any], folder: Path, fresh: bool
    ) -> None:
        makers = {name: WRITERS.require(name) for name in names}
        known = {} if fresh or not names else _known(folder / FILE)
        self.writers: dict[str, RunWriter] = {}
        for name, make in makers.items():

            def start(name: str = name, make: Any = make) -> None:
                self.writers[name] = make(project, run, settings, known.get(name))

            self._try(name, start)
        if self.writers:
            ids = {name: writer.run_id for name, writer in self.writers.items()}
            self._try(FILE, lambda: write_json(folder / FILE, known | ids))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """See `Writer`."""
        for name, writer in list(self.writers.items()):
            self._try(name, lambda writer=writer: writer.write(step, metrics))  # type: ignore[misc]

    def close(self) -> None:
        """See `Writer`."""
        for name, writer in list(self.writers.items()):
            self._try(name, writer.close)

    def _try(self, name: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # whatever another library, or its server, makes of it
            self.writers.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"warning: {name}: {reason}; training continues without it", file=sys.stderr, flush=True)


def _known(path: Path) -> dict[str, str]:
    try:
        return read_typed(path, dict[str, str])
    except InputError:
        return {}
