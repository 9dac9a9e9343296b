"""Several case folders as one: each of their buildings with its own meter, under the same tariff."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.cases.tariff import TARIFF_FILE, read_tariff
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import new_folder, write_json
from iquitos_rl.machine.inputs import read_bytes, read_json

FILES = ("energy_simulation", "weather", "carbon_intensity", "pricing")
VEHICLE = "electric_vehicle_id"


def join(folders: Sequence[Path], output: Path) -> Path:
    """Write one folder with the buildings, vehicles and sockets of several; names begin with those of their folders.

    Raises:
        UserError: fewer than two folders or two of the same name, other rows, calendars or tariffs, or the output is
            not empty.
    """
    names = [folder.resolve().name for folder in folders]
    if len(names) < 2:
        raise UserError("two folders or more are wanted")
    if len(set(names)) < len(names):
        raise UserError(f"two folders have the same name: {', '.join(names)}")
    sites = [read_site(folder) for folder in folders]
    for site in sites[1:]:
        _require_alike(sites[0], site)
    with new_folder(output) as target:
        joined: dict[str, Any] = {}
        schemas = [read_json(folder / "schema.json") for folder in folders]
        for name, folder, own in zip(names, folders, schemas):
            _add(joined, own, name, folder, target)
        for kind in ("observations", "actions"):
            _leave_inactive(joined, schemas, kind)
        write_json(target / "schema.json", joined)
        tariff = folders[0] / TARIFF_FILE
        if tariff.is_file():
            (target / TARIFF_FILE).write_bytes(read_bytes(tariff))
        _write_record(folders, names, target)
    return output


def _require_alike(first: Site, other: Site) -> None:
    if (first.rows, first.seconds_per_time_step) != (other.rows, other.seconds_per_time_step):
        raise UserError(f"{other.path} has {other.rows} rows of {other.seconds_per_time_step} s, {first.path} others")
    for what in ("month", "hour", "day_type"):
        if not np.array_equal(getattr(first, what), getattr(other, what)):
            raise UserError(f"{other.path} has another calendar than {first.path}: its {what} differs")
    if read_tariff(first.path) != read_tariff(other.path):
        raise UserError(
            f"{other.path} has another {TARIFF_FILE} than {first.path}: the bill knows one for all buildings"
        )


def _add(joined: dict[str, Any], own: dict[str, Any], name: str, folder: Path, target: Path) -> None:
    """Put a schema's buildings and vehicles into a joined one, and its data files into the folder."""
    if not joined:
        joined |= deepcopy(own) | {"buildings": {}, "electric_vehicles_def": {}, "root_directory": None}
    for kind in ("observations", "actions"):
        for key, value in own.get(kind, {}).items():
            if value.get("active") or key not in joined[kind]:
                joined[kind][key] = deepcopy(value)
    start = int(own["simulation_start_time_step"])
    if start != int(joined["simulation_start_time_step"]):
        raise UserError(f"{folder}: begins with another row than the first folder")
    root = folder if own.get("root_directory") is None else folder / own["root_directory"]
    alone = len(own["buildings"]) == 1
    for building, block in own["buildings"].items():
        block = deepcopy(block)
        for key in FILES:
            if block.get(key):
                block[key] = _copy(root / block[key], f"{name}_{Path(block[key]).name}", target)
        for charger in (block.get("chargers") or {}).values():
            file = charger["charger_simulation"]
            if (root / file).is_file():
                charger["charger_simulation"] = _copy(root / file, f"{name}_{Path(file).name}", target, name)
        joined["buildings"][name if alone else f"{name}_{building}"] = block
    for vehicle, block in (own.get("electric_vehicles_def") or {}).items():
        joined["electric_vehicles_def"][f"{name}_{vehicle}"] = block


def _leave_inactive(joined: dict[str, Any], schemas: Sequence[dict[str, Any]], kind: str) -> None:
    """What the schema of a building does not have stays inactive there."""
    owners = [own for own in schemas for _ in own["buildings"]]
    for own, block in zip(owners, joined["buildings"].values(), strict=True):
        known = {key for key, value in own.get(kind, {}).items() if value.get("active")}
        others = [key for key, value in joined[kind].items() if value.get("active") and key not in known]
        block[f"inactive_{kind}"] = [*(block.get(f"inactive_{kind}") or []), *others]


def _copy(source: Path, file: str, target: Path, name: str | None = None) -> str:
    """Copy a data file; with a name, vehicles in it are called by it too. Returns the file's name."""
    content = read_bytes(source)
    if name is not None:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        known = table[VEHICLE].str.strip() != ""
        table.loc[known, VEHICLE] = f"{name}_" + table.loc[known, VEHICLE].str.strip()
        content = table.to_csv(index=False, lineterminator="\n").encode()
    (target / file).write_bytes(content)
    return file


def _write_record(folders: Sequence[Path], names: Sequence[str], target: Path) -> None:
    """case.json: that of the first folder, with the remarks of all."""
    records = [read_json(f / "case.json") if (f / "case.json").is_file() else None for f in folders]
    if records[0] is None:
        return
    found = dict(records[0]) | {"preset": "joined", "figures": {}}
    for key in ("assumptions", "warnings"):
        found[key] = [f"{n}: {t}" for n, r in zip(names, records) if r is not None for t in r.get(key, [])]
    (target / "case.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
