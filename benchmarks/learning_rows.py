"""The rows of the learning benchmark: what both libraries train on, for how long, and each with which settings.

Ours for MountainCarContinuous and for SAC on InvertedPendulum were chosen on training seeds from 100 on, which no row
uses; LunarLander and the tasks with choices take the peer's, HalfCheetah the defaults; the others are older, and no
record says which seeds they were chosen on. The peer's are the tuned ones of RL Baselines3 Zoo (folder `hyperparams`),
under the zoo's own names; where it has none for the environment, `zoo` says which entry stands in.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One algorithm on one environment."""

    algorithm: str
    env: str
    steps: int
    """Transitions. On-policy agents finish their last rollout, so they may take a few more."""
    ours: dict[str, Any]
    """Settings of our agent, and `num_envs`."""
    sb3: dict[str, Any]
    """Settings of stable-baselines3's agent, and the zoo's `n_envs` and `normalize`."""
    zoo: str
    """The entry of the zoo that `sb3` is."""
    margin: float
    """Of the difference to the peer's that does not matter: about 5 % of what lies between the returns of a useless
    policy and of a good one."""
    published: str = ""
    """What the zoo's `benchmark.md` says of one agent: mean return, deviation over its episodes, steps of training."""
    by_default: bool = True
    """Whether the row is run without being asked for by name."""

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{self.env}"


PENDULUM_A2C = {
    "n_envs": 8,
    "normalize": True,
    "ent_coef": 0.0,
    "max_grad_norm": 0.5,
    "n_steps": 8,
    "gae_lambda": 0.9,
    "vf_coef": 0.4,
    "gamma": 0.9,
    "use_rms_prop": True,
    "normalize_advantage": False,
    "learning_rate": "lin_7e-4",
    "use_sde": True,
    "policy_kwargs": {"log_std_init": -2, "ortho_init": False},
}

ROWS = (
    Row(
        "a2c",
        "Pendulum-v1",
        200_000,
        {
            "num_envs": 4,
            "horizon": 16,
            "gamma": 0.9,
            "gae_lambda": 0.9,
            "learning_rate": 2e-3,
            "activation": "relu",
            "log_std_init": -1.0,
        },
        PENDULUM_A2C,
        "Pendulum-v1, tuned for 1,000,000 steps",
        50,
        "-163.0 ± 103.2 (1M)",
    ),
    Row(
        "ppo",
        "MountainCarContinuous-v0",
        20_000,
        # The clipped, wide Gaussian explores: mostly full throttle one way or the other, as the first climb needs.
        {
            "num_envs": 8,
            "horizon": 250,
            "batch_size": 256,
            "gamma": 0.999,
            "learning_rate": 1e-3,
            "log_std_init": 1.0,
        },
        {
            "n_envs": 1,
            "normalize": True,
            "batch_size": 256,
            "n_steps": 8,
            "gamma": 0.9999,
            "learning_rate": 7.77e-05,
            "ent_coef": 0.00429,
            "clip_range": 0.1,
            "n_epochs": 10,
            "gae_lambda": 0.9,
            "max_grad_norm": 5,
            "vf_coef": 0.19,
            "use_sde": True,
            "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
        },
        "MountainCarContinuous-v0",
        5,
        "88.3 ± 2.6 (20k)",
    ),
    Row(
        "ppo",
        "Pendulum-v1",
        100_000,
        {"num_envs": 4, "horizon": 512, "batch_size": 128, "gamma": 0.9, "learning_rate": 1e-3},
        {
            "n_envs": 4,
            "n_steps": 1024,
            "gae_lambda": 0.95,
            "gamma": 0.9,
            "n_epochs": 10,
            "ent_coef": 0.0,
            "learning_rate": 1e-3,
            "clip_range": 0.2,
            "use_sde": True,
            "sde_sample_freq": 4,
        },
        "Pendulum-v1",
        50,
        "-172.2 ± 104.2 (100k)",
    ),
    Row(
        "sac",
        "Pendulum-v1",
        20_000,
        {"hidden": [64, 64], "learning_rate": 1e-3, "update_ratio": 0.5, "buffer_size": 20_000},
        {"learning_rate": 1e-3},
        "Pendulum-v1",
        50,
        "-157.0 ± 88.7 (20k)",
    ),
    Row(
        "a2c",
        "InvertedPendulum-v5",
        200_000,
        {"num_envs": 4, "horizon": 16, "learning_rate": 2e-3, "activation": "relu", "log_std_init": -1.0},
        PENDULUM_A2C | {"gamma": 0.99},
        "Pendulum-v1 with gamma 0.99, for want of an entry: a reward for every step upright needs the longer view",
        50,
    ),
    Row(
        "ppo",
        "InvertedPendulum-v5",
        100_000,
        {"num_envs": 4, "horizon": 512, "batch_size": 128},
        {
            "n_envs": 1,
            "normalize": True,
            "batch_size": 64,
            "n_steps": 32,
            "gamma": 0.999,
            "learning_rate": 0.000222425,
            "ent_coef": 1.37976e-07,
            "clip_range": 0.4,
            "n_epochs": 5,
            "gae_lambda": 0.9,
            "max_grad_norm": 0.3,
            "vf_coef": 0.19816,
        },
        "InvertedPendulum-v2, tuned for 1,000,000 steps",
        50,
    ),
    Row(
        "ppo",
        "LunarLanderContinuous-v3",
        200_000,
        {
            "num_envs": 16,
            "horizon": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "epochs": 4,
            "entropy_coef": 0.01,
        },
        {
            "n_envs": 16,
            "n_steps": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
        "LunarLanderContinuous-v3, tuned for 1,000,000 steps",
        20,
        "270.9 ± 32.1 (1M, -v2)",
    ),
    Row(
        "sac",
        "InvertedPendulum-v5",
        20_000,
        # As many updates as the peer's. With half as many three of the seeds 0 to 4 ended at 157, 85 and 131; with
        # these, 100 to 103 all reached 1000.
        {"hidden": [64, 64], "learning_rate": 1e-3, "buffer_size": 20_000},
        {"learning_rate": 1e-3},
        "Pendulum-v1, for want of a tuned entry; that of the MuJoCo tasks would spend half the steps at random",
        50,
    ),
    Row(
        "sac",
        "MountainCarContinuous-v0",
        50_000,
        # Noise that persists for about 50 steps climbs the hill by chance. Seed 100 after 20,000 steps: a return of 96;
        # without it -0.1, which is standing still.
        {
            "hidden": [64, 64],
            "learning_rate": 1e-3,
            "gamma": 0.999,
            "update_ratio": 0.25,
            "learning_starts": 5_000,
            "noise_persistence": 0.98,
            "buffer_size": 50_000,
        },
        {
            "learning_rate": 3e-4,
            "buffer_size": 50_000,
            "batch_size": 512,
            "ent_coef": 0.1,
            "train_freq": 32,
            "gradient_steps": 32,
            "gamma": 0.9999,
            "tau": 0.01,
            "learning_starts": 0,
            "use_sde": True,
            "policy_kwargs": {"log_std_init": -3.67, "net_arch": [64, 64]},
        },
        "MountainCarContinuous-v0",
        5,
        "94.7 ± 1.1 (50k)",
    ),
    Row(
        "sac",
        "HalfCheetah-v5",
        100_000,
        {"learning_starts": 10_000},
        {"learning_starts": 10_000},
        "HalfCheetah-v4, meant for 1,000,000 steps",
        250,
        "9535.5 ± 100.5 (1M, -v3)",
        by_default=False,
    ),
    # Choices: ours takes the peer's settings, also whether anything is normalised. With our default, which normalises
    # observations and scales rewards, CartPole ended at 215.7 and 493.9 with the seeds 0 and 1.
    Row(
        "ppo",
        "CartPole-v1",
        100_000,
        {
            "num_envs": 8,
            "horizon": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "epochs": 20,
            "learning_rate": 1e-3,
            "normalise_obs": False,
            "scale_rewards": False,
        },
        {
            "n_envs": 8,
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": "lin_0.001",
            "clip_range": "lin_0.2",
        },
        "CartPole-v1",
        25,
        "500.0 ± 0.0 (100k)",
    ),
    Row(
        "ppo",
        "Acrobot-v1",
        1_000_000,
        {"num_envs": 16, "horizon": 256, "batch_size": 64, "gae_lambda": 0.94, "epochs": 4, "schedule": "constant"},
        {"n_envs": 16, "normalize": True, "n_steps": 256, "gae_lambda": 0.94, "n_epochs": 4, "ent_coef": 0.0},
        "Acrobot-v1",
        20,
        "-73.5 ± 18.2 (1M)",
        by_default=False,
    ),
    Row(
        "ppo",
        "LunarLander-v3",
        1_000_000,
        {
            "num_envs": 16,
            "horizon": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "epochs": 4,
            "entropy_coef": 0.01,
            "schedule": "constant",
            "normalise_obs": False,
            "scale_rewards": False,
        },
        {
            "n_envs": 16,
            "n_steps": 1024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
        "LunarLander-v2",
        20,
        "242.1 ± 31.8 (1M, -v2)",
        by_default=False,
    ),
)
