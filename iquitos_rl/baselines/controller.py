"""The interface of a controller, and the simplest one: the uncontrolled site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.envs.citylearn.env import CityLearnSite

Controller = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observation (D,) of a site to action (A,) in [-1, 1]."""


def uncontrolled(env: CityLearnSite) -> Controller:
    """Vehicles charge at full power from arrival until their wanted SOC; batteries stay idle.

    The environment must have its EV guard on, so that +1 stops at the wanted SOC: vehicles then receive the same energy
    as under a controller, and a saving can only come from its timing.
    """
    if not env.task.settings.ev_guard:
        raise ValueError("the uncontrolled baseline is defined with the EV guard on")
    action = np.zeros(env.task.action_dim, dtype=np.float32)
    if env.task.num_socket_actions:
        action[-env.task.num_socket_actions :] = 1.0
    return lambda obs: action
