"""Counts the memory that environments keep, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from iquitos_rl.envs.district.env import DistrictSite


class Footprint(NamedTuple):
    """Bytes kept between two steps, without the temporary memory of a step."""

    per_env: float
    """Per environment: state, data before the next action, and flows of the last step. An upper bound: a step in which
    no episode ends keeps a few bytes less."""
    shared: int
    """Tables and parameters, independent of the number of environments."""


def footprint(env: DistrictSite) -> Footprint:
    """Count every storage that an engine refers to after its first step, once each."""
    constants = storages(vars(env.task))
    groups = [storages(group) for group in env.live]
    own = sum(size for group in groups for place, size in group.items() if place not in constants)
    everything = constants | storages((vars(env), vars(env.physics)))
    live = {place for group in groups for place in group if place not in constants}
    shared = sum(size for place, size in everything.items() if place not in live)
    return Footprint((own + env.steps_left.nbytes) / env.num_envs, shared)


def held_bytes(env: object) -> int:
    """Bytes of all tensors that an environment of this package holds, at any depth; views count once."""
    return sum(storages(vars(env), inside="iquitos_rl.").values())


def storages(tree: object, inside: str | None = None) -> dict[int, int]:
    """Maps the address of each tensor's storage to its bytes; views count once."""
    found = (tensor.untyped_storage() for tensor in tensors(tree, inside))
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def tensors(tree: object, inside: str | None = None) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and dicts; with `inside`, also in objects of modules with that prefix."""
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
