"""What the run settings with an option of their own mean, and their defaults: for `RunSettings` and for `--help`, which
shows them without importing pydantic."""

from __future__ import annotations

from typing import Any, NamedTuple


class Meaning(NamedTuple):
    default: Any
    text: str


RUN: dict[str, Meaning] = {
    "case": Meaning("iquitos-38", "a preset's name, a schema folder, or a CityLearn dataset's name"),
    "eval_case": Meaning(None, "folder or preset to evaluate on; by default the preset's unseen year"),
    "engine": Meaning("auto", "what simulates the training years: district, citylearn, or auto for the first that can"),
    "num_envs": Meaning(1, "environments stepped together"),
    "episodes": Meaning(None, "site-years to train on in all; instead of steps"),
    "steps": Meaning(None, "site-hours to train on in all; instead of episodes"),
    "device": Meaning("auto", "where the agent learns; auto takes a GPU if there is one"),
    "seed": Meaning(0, "start of every random sequence of the training"),
}
