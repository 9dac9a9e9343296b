"""Converts a nested state to a JSON tree plus named tensors, and back.

A state may hold dicts (with string or integer keys), lists, tuples, tensors, arrays, integers of any size, floats,
strings, booleans and None. Unlike pickle, reading a tree makes only these types and runs no code that a file names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.errors import UserError

Tree = Any
"""Anything that `json` can write."""


def pack(state: Any) -> tuple[Tree, dict[str, Tensor]]:
    """Split a state into its tree and its tensors, named by their path. Tensors are not copied.

    Raises:
        TypeError: the state holds an object of another type.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(state, "state", tensors), tensors


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Tree:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        tensors[path] = value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))
        return {kind: path}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Mapping):  # as pairs, since JSON would turn the optimisers' integer keys into strings
        return {"dict": [[key, _pack(item, f"{path}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(f"{path} is a {type(value).__name__}, which is not plain data")


def unpack(tree: Tree, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of `pack`.

    Raises:
        UserError: `pack` does not make such a tree, or a tensor that it names is missing.
    """
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise UserError(f"a node of the state has the keys {sorted(tree)} where one is expected")
    (kind, value), *_ = tree.items()
    if kind in ("tensor", "array") and isinstance(value, str) and value in tensors:
        try:
            return tensors[value] if kind == "tensor" else tensors[value].numpy()
        except TypeError as error:  # NumPy lacks some types
            raise UserError(f"{value} cannot be an array: {error}") from None
    if kind == "float" and value in ("nan", "inf", "-inf"):
        return float(value)
    if kind == "tuple" and isinstance(value, list):
        return tuple(unpack(item, tensors) for item in value)
    if kind == "dict" and isinstance(value, list):
        return dict(_pair(item, tensors) for item in value)
    raise UserError(f"a node of the state is a {kind!r} that cannot be read")


def _pair(item: Tree, tensors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], str | int)):
        raise UserError("an entry of the state is not a key with a value")
    return item[0], unpack(item[1], tensors)


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first floating-point tensor with a NaN or infinite entry, or None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None
