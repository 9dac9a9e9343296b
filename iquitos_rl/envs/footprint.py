"""How much memory the district engine keeps, counted tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from iquitos_rl.envs.district import DistrictSite


class Footprint(NamedTuple):
    """Bytes kept between two steps; what a step needs while it runs comes on top and is freed again."""

    per_env: float
    """State, what stands before the next action, and the flows of the last step, of one environment, at most: a step in
    which no episode ends keeps a few bytes less."""
    shared: int
    """Tables and parameters, however many environments there are."""


def footprint(env: DistrictSite) -> Footprint:
    """Count every storage that an engine refers to after its first step, each once."""
    constants = storages(vars(env.task))
    groups = [storages(group) for group in env.live]
    own = sum(size for group in groups for place, size in group.items() if place not in constants)
    everything = constants | storages((vars(env), vars(env.physics)))
    live = {place for group in groups for place in group if place not in constants}
    shared = sum(size for place, size in everything.items() if place not in live)
    return Footprint((own + env.steps_left.nbytes) / env.num_envs, shared)


def storages(tree: object) -> dict[int, int]:
    """Address to bytes of every tensor's storage in nested tuples, lists and dicts; views share theirs."""
    found = (tensor.untyped_storage() for tensor in tensors(tree))
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def tensors(tree: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from tensors(list(tree.values()))
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from tensors(part)
