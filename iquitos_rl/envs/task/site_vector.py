"""What an engine must be for a rule to guide its actions."""

from __future__ import annotations

from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.envs.vector import VectorEnv


class SiteVector(VectorEnv):
    """A `VectorEnv` with the observations and actions of a `SiteTask`."""

    task: SiteTask
