"""The occupant of a building in a schema: a table of parameters and two decision trees.

CityLearn keeps the trees as pickles, and opening a pickle runs whatever its author put into it. So none is opened
here: `case freeze` writes the trees down as arrays, in a JSON file that the key `trees` of the occupant names. It also
holds the digests of the pickles, so that both engines have the same trees.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from iquitos_rl.cases.occupant import LOGISTIC, SEEN, Occupant, Tree
from iquitos_rl.cases.schema.tables import DataFiles, Table
from iquitos_rl.cases.schema.values import Block, is_number
from iquitos_rl.cases.site import Bools, Floats
from iquitos_rl.machine.inputs import JSON_BYTES, InputError, json_value, read_bytes, shown

OCCUPANT = "citylearn.occupant.LogisticRegressionOccupant"
OCCUPANT_BUILDING = "citylearn.building.LogisticRegressionOccupantInteractionBuilding"
TREES = "trees"
"""Key of an occupant for the file of its trees; CityLearn ignores it."""
CHANGES = ("increase", "decrease")
DEEPEST = 100
"""Most levels of a tree: every step of every environment goes through all of them."""
ARRAYS = ("feature", "threshold", "left", "right", "label")
"""Of each tree in that file, a number for each node; `left` and `right` are -1 at a leaf."""
LARGEST_SEED = 2**32 - 1
"""That numpy takes."""


def pickle_key(change: str) -> str:
    """Key of an occupant's attributes for one of its pickles."""
    return f"setpoint_{change}_model_filename"


def has_occupant(block: Block) -> bool:
    """Whether somebody changes the set-points of a building; CityLearn ignores occupants of other building types."""
    return block.get("type") == OCCUPANT_BUILDING


def read_occupant(block: Block, files: DataFiles, energy: Table, seed: int) -> Occupant | None:
    """Who changes a building's set-points; None where nobody does, or where the trees are pickles only."""
    if "occupant" not in block and not has_occupant(block):
        return None
    occupant = block.child("occupant", required=True)
    occupant.check_class("type")
    occupant.warning(
        "its trees are pickles, which run whatever their author put into them when CityLearn opens them", kind="pickles"
    )
    table = files.read(occupant, "parameters_filename")
    table.check_columns(LOGISTIC)
    attributes = occupant.child("attributes", required=True)
    changes = _change_by_label(attributes)
    digests = {change: _digest(attributes, pickle_key(change), files) for change in CHANGES}
    if not has_occupant(block):
        occupant.warning(f"CityLearn ignores the occupant of a building that is no {OCCUPANT_BUILDING}", kind="ignored")
        return None
    if "set_point_hold_time_steps" in block:
        block.warning(
            "CityLearn 3.0.2 does not read set_point_hold_time_steps: a changed set-point holds until the next change",
            kind="hold",
        )
    if max(seed, 1) + files.rows - 2 > LARGEST_SEED:
        occupant.error(f"random_seed {seed} is too large to draw from in every row, CityLearn stops at it")
    _check_rows(energy, block.child("dynamics", required=True).child("attributes").whole("lookback", 1, 1, 100_000))
    trees = _trees(occupant, files, digests, changes) if TREES in occupant else None
    if trees is None:
        return None
    logistic = np.stack([table.numbers(column, blank_allowed=True).astype(np.float64) for column in LOGISTIC], axis=-1)
    return Occupant(logistic, seed, *trees)


def _check_rows(energy: Table, lookback: int) -> None:
    """What CityLearn stops at, in the rows in which the occupant may act: not the first, and not the last."""
    acts = np.zeros(energy.rows, dtype=bool)
    acts[lookback:-1] = True
    mode = energy.numbers("hvac_mode", blank_allowed=True) if "hvac_mode" in energy else np.ones(energy.rows)
    wrong = acts & ~np.isin(mode, (1, 2))
    energy.note("error", "hvac_mode", wrong, "neither 1 nor 2 with an occupant, CityLearn stops at it")
    acts[lookback - 1 : lookback] = True
    for use in ("cooling", "heating"):
        column = f"indoor_dry_bulb_temperature_{use}_set_point"
        blank = acts & np.isnan(energy.numbers(column, blank_allowed=True))
        energy.note("error", column, blank, "the cell is blank with an occupant, CityLearn stops at it")


def _change_by_label(attributes: Block) -> dict[int, float]:
    """K by which each label of the trees changes a set-point."""
    found: dict[int, float] = {}
    mapping = attributes.child("delta_output_map", required=True)
    for label, change in mapping.content.items():
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", label) or not is_number(change):
            mapping.error(f"{shown(label)} must be a whole number with a change in K, not {shown(change)}")
        else:
            found[int(label)] = float(change)
    return found


def _digest(attributes: Block, key: str, files: DataFiles) -> str:
    """SHA-256 of a file that is not opened any further."""
    name = attributes.text(key, "the name of a file")
    if not name:
        return ""
    try:
        content = read_bytes(files.root / name)
    except InputError as error:
        attributes.error(f"{key} names {shown(name)}, which {error.reason}")
        return ""
    digest = hashlib.sha256(content)
    files.digest.update(digest.digest())
    return digest.hexdigest()


def _trees(
    occupant: Block, files: DataFiles, digests: dict[str, str], changes: dict[int, float]
) -> tuple[Tree, Tree] | None:
    name = occupant.text(TREES, "the name of a file")
    try:
        content = read_bytes(files.root / name, JSON_BYTES)
        stored = json_value(content.decode("utf-8"))
    except (InputError, ValueError) as error:
        reason = error.reason if isinstance(error, InputError) else f"is not JSON in UTF-8: {error}"
        occupant.error(f"{TREES} names {shown(name)}, which {reason}")
        return None
    files.digest.update(content)
    found = []
    for change in CHANGES:
        own = stored.get(change) if isinstance(stored, dict) else None
        if not isinstance(own, dict):
            occupant.error(f"{shown(name)} holds no tree {change!r}; `iquitos-rl case freeze` writes it")
            return None
        if own.get("sha256") != digests[change]:
            occupant.error(
                f"{shown(name)} is not of the present {pickle_key(change)}; `iquitos-rl case freeze` writes it again"
            )
        tree = parse_tree(own, changes)
        if isinstance(tree, str):
            occupant.error(f"{shown(name)}: {change}: {tree}")
            return None
        found.append(tree)
    return found[0], found[1]


def parse_tree(stored: dict[str, Any], changes: dict[int, float]) -> Tree | str:
    """A tree from its arrays in a file, or what is wrong with them.

    Args:
        changes: K of each label.
    """
    try:
        arrays = [np.array(stored[name], dtype=np.float64) for name in ARRAYS]
    except (KeyError, TypeError, ValueError, OverflowError):
        return f"{', '.join(ARRAYS)} must be lists of numbers"
    nodes = len(arrays[0]) if arrays[0].ndim == 1 else 0
    if not nodes or any(array.shape != (nodes,) or not np.isfinite(array).all() for array in arrays):
        return f"{', '.join(ARRAYS)} must be of one length"
    feature, threshold, left, right, label = arrays
    leaf, here = left < 0, np.arange(nodes)
    if not _lead_on(left, leaf, nodes) or not _lead_on(right, leaf, nodes):
        return "left and right must name later nodes, or be -1 at a leaf"
    if not np.isin(feature[~leaf], range(len(SEEN))).all():
        return f"feature must be below {len(SEEN)}"
    unknown = [f"{value:g}" for value in label[leaf] if value not in changes]
    if unknown:
        return f"delta_output_map does not know label {unknown[0]}"
    tree = Tree(
        feature=np.where(leaf, 0, feature).astype(np.int64),
        threshold=rounded_down(threshold),
        left=np.where(leaf, here, left).astype(np.int64),
        right=np.where(leaf, here, right).astype(np.int64),
        change=np.array([changes[int(value)] if end else 0.0 for value, end in zip(label, leaf)]),
    )
    return f"it is deeper than {DEEPEST}" if tree.depth > DEEPEST else tree


def _lead_on(child: Floats, leaf: Bools, nodes: int) -> bool:
    """Whether children are later nodes, so that every way through the tree ends."""
    inner = child[~leaf]
    later = (inner % 1 == 0) & (inner > np.flatnonzero(~leaf)) & (inner < nodes)
    return bool(later.all() and (child[leaf] == -1).all())


def rounded_down(values: Floats) -> Floats:
    """The largest numbers of single precision that are not above `values`."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)
