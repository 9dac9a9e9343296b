"""Folders that settings name as another machine does: where they lie on this one.

A node of a cluster sets this for the time of a step. Settings, and so results and checkpoints, keep the name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

_places: dict[str, Path] = {}


@contextlib.contextmanager
def places(found: Mapping[str, Path]) -> Iterator[None]:
    """Inside this context the folders named by the keys lie at the values."""
    before = dict(_places)
    _places.update(found)
    try:
        yield
    finally:
        _places.clear()
        _places.update(before)


def place_of(name: str | Path) -> Path:
    """Where a folder lies that settings name; on the machine that the settings are of, the name itself."""
    return _places.get(str(name), Path(name))
