"""Occupants: people who raise or lower a set-point by what the temperature inside makes them do.

E environments, B buildings, S * T table rows. The trees of all buildings are one table of K nodes; each environment
walks down one tree of each building, as many nodes as the deepest has.

Source: CityLearn 3.0.2, `building.py` (LogisticRegressionOccupantInteractionBuilding.update_set_points) and
`occupant.py` (LogisticRegressionOccupant.predict).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.occupant import LOGISTIC, Occupant
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district.batteries import stored

NONE = -300.0
"""C of a set-point that nobody has chosen: colder than anything. A state has no NaN, which is the mark of a fault."""


class Occupants:
    """Tables and trees of the occupants of E environments.

    Args:
        sites: years of one structure, with an occupant in at least one building.
        mode: (S * T, B, 2) bool, whether a building is cooled, and heated. Where somebody acts it is one of the two.
        lookback: (B,) rows that a network reads before its first prediction. Nobody acts before.
    """

    def __init__(self, sites: Sequence[Site], mode: Tensor, lookback: Tensor, dtype: torch.dtype, exact: bool) -> None:
        first, device = sites[0], mode.device
        people = [b.occupant for b in first.buildings]
        self.exact, self.mode, self.lookback = exact, mode, lookback
        self.here = torch.tensor([own is not None for own in people], device=device)
        """(B,) bool: somebody lives in the building."""

        def table(rows: list[Floats]) -> Tensor:
            return torch.from_numpy(np.concatenate(rows)).to(device, dtype)

        self.schedule = table([set_point_rows(site) for site in sites])
        """(S * T, B, 2) set-points of the data."""
        self.logistic = table([_logistic_rows(site) for site in sites])
        """(S * T, B, 4)."""
        seeds = [own.seed for own in people if own is not None]
        self.draws = torch.from_numpy(draws(seeds[0], first.rows)).to(device, dtype)
        """(T,) by step of the episode; CityLearn gives all buildings the same."""
        self.feature, self.threshold, self.left, self.right, self.change, self.root = _forest(people, device, dtype)
        """Of each node (K,) what it looks at, up to which value it goes left, the next nodes, and the change in K of a
        leaf; and the first node of each building's trees for a higher and for a lower set-point (B, 2)."""
        self.depth = max(tree.depth for own in people if own is not None for tree in (own.increase, own.decrease))

    def fresh(self, envs: int) -> Tensor:
        """(E, B, 2) set-points that somebody has chosen, `NONE` for those of the data: nobody yet."""
        return torch.full_like(self.schedule[:1], NONE).expand(envs, -1, -1).clone()

    def points(self, chosen: Tensor, here: Tensor) -> Tensor:
        """(E, B, 2) set-points for cooling and heating in these rows (E,)."""
        return torch.where(chosen == NONE, self.schedule.index_select(0, here), chosen)

    def act(self, chosen: Tensor, here: Tensor, age: Tensor, before: Tensor, inside: Tensor) -> Tensor:
        """The set-points that are chosen after the step, as `chosen`.

        Args:
            chosen: (E, B, 2) before the step.
            age: (E,) steps since the episode began.
            before: (E, B) C inside after the step before.
            inside: (E, B) C inside after this step.
        """
        mode = self.mode.index_select(0, here)
        both = [self.points(chosen, row) for row in (here, (here - 1).clamp(min=0))]
        now, earlier = (torch.where(mode[..., 1], points[..., 1], points[..., 0]) for points in both)
        a_up, b_up, a_down, b_down = self.logistic.index_select(0, here).unbind(-1)
        draw = self.draws.index_select(0, age).unsqueeze(-1)
        up = self._likely(a_up, b_up, inside) >= draw
        down = self._likely(a_down, b_down, inside) >= draw
        seen = torch.stack([now, earlier, stored(before - earlier, self.exact)], dim=-1)
        node = torch.where(up, self.root[:, 0], self.root[:, 1])
        for _ in range(self.depth):
            value = seen.gather(-1, self.feature[node].unsqueeze(-1)).squeeze(-1)
            node = torch.where(value <= self.threshold[node], self.left[node], self.right[node])
        change = self.change[node]
        acts = (up != down) & (change != 0) & (age.unsqueeze(-1) >= self.lookback) & self.here
        new = stored(torch.where(up, now + change, now - change), self.exact)
        return torch.where(acts.unsqueeze(-1) & mode, new.unsqueeze(-1), chosen)

    def _likely(self, a: Tensor, b: Tensor, inside: Tensor) -> Tensor:
        """How likely it is that somebody acts, (E, B); in exact mode as numpy rounds it."""
        odds = stored(a + stored(b * inside, self.exact), self.exact)
        return 1 / (1 + stored(torch.exp(-odds), self.exact))


def draws(seed: int, rows: int) -> Floats:
    """(T,) number that is drawn in each step of an episode."""
    return np.array([np.random.RandomState((max(seed, 1) + t) % 2**32).uniform() for t in range(rows)])


def set_point_rows(site: Site) -> Floats:
    """(T, B, 2) set-points of the data for cooling and heating."""
    points = [b.set_points for b in site.buildings if b.set_points is not None]
    return np.stack(points, axis=1)


def _logistic_rows(site: Site) -> Floats:
    """(T, B, 4), 0 where nobody lives."""
    nobody = np.zeros((site.rows, len(LOGISTIC)))
    return np.stack([nobody if b.occupant is None else b.occupant.logistic for b in site.buildings], axis=1)


def _forest(people: Sequence[Occupant | None], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """All trees as one table, see `Occupants`; a building where nobody lives has the first tree."""
    trees = [tree for own in people if own is not None for tree in (own.increase, own.decrease)]
    first = np.cumsum([0, *(len(tree.left) for tree in trees)])[:-1]
    columns = [
        np.concatenate([tree.feature for tree in trees]),
        np.concatenate([tree.threshold for tree in trees]),
        np.concatenate([tree.left + at for tree, at in zip(trees, first)]),
        np.concatenate([tree.right + at for tree, at in zip(trees, first)]),
        np.concatenate([tree.change for tree in trees]),
    ]
    remaining = iter(first.reshape(-1, 2).tolist())
    roots = [[0, 0] if own is None else next(remaining) for own in people]
    values = [torch.from_numpy(column).to(device) for column in columns]
    values = [value.to(dtype) if value.is_floating_point() else value for value in values]
    return *values, torch.tensor(roots, dtype=torch.int64, device=device)
