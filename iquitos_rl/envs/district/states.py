"""States of the engine as trees: named tuples and tuples of tensors, with None for what a site does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound=tuple[Any, ...])


def named_tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a state, of whatever depth, by dotted name."""
    found: dict[str, Tensor] = {}
    names = getattr(state, "_fields", range(len(state)))
    for name, part in zip(names, state):
        if isinstance(part, Tensor):
            found[f"{prefix}{name}"] = part
        elif part is not None:
            found |= named_tensors(part, f"{prefix}{name}.")
    return found


def from_names(like: S, tensors: Mapping[str, Tensor], prefix: str = "") -> S:
    """A state built as `like`, with the tensors of those names.

    Raises:
        KeyError: one is missing.
    """
    names = getattr(like, "_fields", range(len(like)))
    parts: list[Any] = [
        part
        if part is None
        else tensors[f"{prefix}{name}"]
        if isinstance(part, Tensor)
        else from_names(part, tensors, f"{prefix}{name}.")
        for name, part in zip(names, like)
    ]
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def put(index: Tensor, new: S, old: S, envs: int) -> S:
    """`old` with the environments at `index` (K,) replaced by those of `new` (K, ...), one after the other.

    A tensor that holds for all `envs` environments together, (1, ...), stays. On a CPU a selection by mask, as in
    `where`, takes far longer.
    """

    def replaced(a: Any, b: Any) -> Any:
        if isinstance(b, Tensor):
            return b.index_copy(0, index, a) if len(b) == envs else b
        if b is None:
            return None
        parts = [replaced(*pair) for pair in zip(a, b, strict=True)]
        return type(b)(*parts) if hasattr(b, "_fields") else tuple(parts)

    found: S = replaced(new, old)
    return found


def where(done: Tensor, new: S, old: S) -> S:
    """The environments of `new` where `done` (E,) bool is True, elsewhere those of `old`."""

    def chosen(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor):
            return torch.where(done.view(-1, *[1] * (a.dim() - 1)), a, b)
        if a is None:
            return None
        parts = [chosen(*pair) for pair in zip(a, b, strict=True)]
        return type(a)(*parts) if hasattr(a, "_fields") else tuple(parts)

    found: S = chosen(new, old)
    return found
