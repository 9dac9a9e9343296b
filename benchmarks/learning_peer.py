"""stable-baselines3 as the learning benchmark trains it: the zoo's settings, applied as the zoo applies them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from importlib import import_module, metadata
from typing import Any

import numpy as np
from learning_rows import Row
from numpy.typing import NDArray

from iquitos_rl.errors import UserError

Policy = Callable[[NDArray[np.float32]], Any]

PACKAGES = ("stable_baselines3", "gymnasium", "mujoco", "Box2D", "numpy", "torch")


def train(row: Row, seed: int) -> tuple[Policy, int]:
    """A trained, deterministic policy, and the transitions that its training took.

    Raises:
        UserError: stable-baselines3 is not installed.
    """
    try:
        library: Any = import_module("stable_baselines3")
        env_util: Any = import_module("stable_baselines3.common.env_util")
        vec_env: Any = import_module("stable_baselines3.common.vec_env")
    except ImportError as error:
        raise UserError(f"the peer needs benchmarks/learning-requirements.txt installed: {error}") from None
    settings = deepcopy(row.sb3)  # A2C writes into its policy_kwargs
    num_envs, normalised = settings.pop("n_envs", 1), settings.pop("normalize", False)
    envs = env_util.make_vec_env(row.env, num_envs, seed=seed)
    if normalised:
        gamma = {"gamma": settings["gamma"]} if "gamma" in settings else {}
        envs = vec_env.VecNormalize(envs, **gamma)
    for name, value in settings.items():
        if isinstance(value, str) and value.startswith("lin_"):
            settings[name] = linear(float(value.removeprefix("lin_")))
    agent = getattr(library, row.algorithm.upper())("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    agent.learn(row.steps)

    def policy(obs: NDArray[np.float32]) -> Any:
        return agent.predict(envs.normalize_obs(obs) if normalised else obs, deterministic=True)[0]

    return policy, agent.num_timesteps


def linear(start: float) -> Callable[[float], float]:
    """The zoo's `lin_` schedule: from `start` to zero, as a function of the share of training that is left."""
    return lambda left: left * start


def versions() -> dict[str, str]:
    """Versions of what the figures depend on beside this package; what is not installed is left out."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
