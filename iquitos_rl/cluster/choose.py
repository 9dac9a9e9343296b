"""Which executor a command takes."""

from __future__ import annotations

from pathlib import Path

from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.runs.executor import Executor, InThisProcess
from iquitos_rl.runs.jobs import Pool


def executor(jobs: int, cluster: str | None, folder: Path, interrupts: Interrupts, hint: str) -> Executor:
    """What carries a command's steps out: the cluster, if there is one, else as many processes of this machine.

    Args:
        cluster: `auto` or an address, see `RayExecutor`.
        folder: where results go.
        hint: how to resume, printed when the user interrupts.

    Raises:
        UserError: there is no cluster at the address, or Ray is not installed.
    """
    if cluster is not None:
        from iquitos_rl.cluster.on_ray import RayExecutor

        return RayExecutor(cluster, folder, interrupts, hint)
    return Pool(jobs, interrupts, hint) if jobs > 1 else InThisProcess(interrupts, hint)
