"""Gymnasium on both sides: its environments for our agents, and ours by gymnasium's ids."""

from __future__ import annotations

SITE = "iquitos_rl/Site-v0"


def register() -> None:
    """Let `gymnasium.make` and `gymnasium.make_vec` know our sites (`envs/sites.py`)."""
    from gymnasium.envs.registration import register, registry

    if SITE not in registry:
        register(
            SITE, entry_point="iquitos_rl.envs.sites:make_site", vector_entry_point="iquitos_rl.envs.sites:make_sites"
        )


register()
