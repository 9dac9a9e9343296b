"""The decision trees of occupants, taken out of CityLearn's pickles as plain numbers.

This is the only place that opens a pickle on its own account, and only after a user said that the folder is to be
trusted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.occupant import SEEN
from iquitos_rl.cases.schema.freeze import included
from iquitos_rl.cases.schema.occupants import CHANGES, has_occupant, pickle_key
from iquitos_rl.cases.schema.reader import load_json
from iquitos_rl.cases.schema.report import SCHEMA
from iquitos_rl.cases.schema.values import Block
from iquitos_rl.envs.citylearn.env import require_citylearn
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import read_bytes, shown


def exported_trees(folder: Path) -> dict[str, dict[str, Any]]:
    """By building with an occupant, what its file of trees holds, see `cases/schema/occupants.py`.

    Whatever the pickles in the folder do when they are opened, they do now.

    Raises:
        UserError: a file cannot be opened, or holds no decision tree for an occupant.
    """
    schema = Block(load_json(folder / SCHEMA))
    root = folder / str(schema.get("root_directory") or "")
    found: dict[str, dict[str, Any]] = {}
    for name, block in included(schema):
        if has_occupant(block):
            attributes = block.child("occupant").child("attributes")
            found[name] = {
                change: _exported(root / attributes.text(pickle_key(change), "the name of a file"))
                for change in CHANGES
            }
    return found


def _exported(path: Path) -> dict[str, Any]:
    require_citylearn()
    from citylearn.utilities import FileHandler

    try:
        content = read_bytes(path)
        model = FileHandler.read_pickle(str(path))
    except UserError:
        raise
    except Exception as error:  # a pickle may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} cannot be opened as a pickle ({shown(reason)})") from None
    try:
        tree, labels = model.tree_, np.asarray(model.classes_, dtype=np.float64)
        chosen = labels[np.argmax(tree.value[:, 0], axis=1)]
        sizes = tree.n_features, tree.n_outputs
    except (AttributeError, IndexError, TypeError, ValueError):
        sizes = 0, 0
    if sizes != (len(SEEN), 1):
        raise UserError(f"{path} holds a {type(model).__name__}, not a decision tree over {', '.join(SEEN)}")
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "feature": tree.feature.tolist(),
        "threshold": tree.threshold.tolist(),
        "left": tree.children_left.tolist(),
        "right": tree.children_right.tolist(),
        "label": chosen.tolist(),
    }
