"""How much memory environments keep, counted tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from iquitos_rl.envs.district.env import DistrictSite


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


def held_bytes(env: object) -> int:
    """Bytes of every tensor that an environment of this package holds, however deep; views share theirs."""
    return sum(storages(vars(env), inside="iquitos_rl.").values())


def storages(tree: object, inside: str | None = None) -> dict[int, int]:
    """Address to bytes of the storage of each of the `tensors`; views share theirs."""
    found = (tensor.untyped_storage() for tensor in tensors(tree, inside))
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def tensors(tree: object, inside: str | None = None) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts; with `inside`, also in objects of modules of that prefix."""
    seen: set[int] = set()

    def walk(thing: object) -> Iterator[Tensor]:
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, dict):
            yield from walk(list(thing.values()))
        elif isinstance(thing, (tuple, list)):
            for part in thing:
                yield from walk(part)
        elif inside is not None and type(thing).__module__.startswith(inside) and id(thing) not in seen:
            seen.add(id(thing))
            yield from walk(getattr(thing, "__dict__", ()))

    return walk(tree)
