"""What is put right of CityLearn's buildings with occupants and networks: every episode is like the first."""

from __future__ import annotations

from typing import Any


def restore(simulator: Any) -> None:
    """Give buildings with occupants the demands and temperatures of the data back, before a new episode.

    CityLearn 3.0.2 restores only their set-points (`building.py`, OccupantInteractionBuilding.reset_dynamic_variables),
    so an episode would begin with what the controller of the one before left in the data.
    """
    from citylearn.building import DynamicsBuilding

    for building in simulator.buildings:
        if has_occupant(building):
            DynamicsBuilding.reset_dynamic_variables(building)


def has_occupant(building: Any) -> bool:
    """Whether somebody changes the set-points of CityLearn's building."""
    from citylearn.building import OccupantInteractionBuilding

    return isinstance(building, OccupantInteractionBuilding)


def without_dropout(simulator: Any) -> None:
    """Switch off the dropout of the networks that predict temperatures.

    CityLearn leaves it on while it simulates (`dynamics.py`, LSTMDynamics), and draws from torch's global generator.
    """
    for building in simulator.buildings:
        dropout = getattr(getattr(building, "dynamics", None), "dropout", None)
        if dropout is not None:
            dropout.p = 0.0
