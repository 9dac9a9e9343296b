"""Folders damaged in one way or several: what CityLearn cannot run has an error, and every error names its place."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from schemas import Features, write_schema

from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.schema.report import Problem
from iquitos_rl.errors import UserError

ROWS = 12
FEATURES = Features(rows=ROWS, service=1, omit=0, curves=1, offset=0, buildings=(1, 1), sockets=(2, 2), blank_soc=0.5)
BUILDING = ("buildings", "Building_1")
KINDS = ["drop column", "rename column", "text", "nan", "infinite", "blank", "drop rows", "empty", "delete"]
SLOW = settings(deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
"""Shrinking an example would run the simulator for minutes."""
VALUES = [None, True, -1, 0, 1e9, "x", [], {}, [1], {"a": 1}]


class Damage(NamedTuple):
    """What was done, and what an error about it must name."""

    file: str
    keys: tuple[str, ...] = ()
    """One of them."""
    line: int | None = None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that CityLearn runs and that has no errors; a second copy is damaged."""
    folder = tmp_path_factory.mktemp("damage")
    write_schema(folder / "sound", 6, FEATURES)
    assert runs(folder / "sound")
    assert check_case(folder / "sound").errors == []
    return folder / "sound"


@contextlib.contextmanager
def copy_of(sound: Path) -> Iterator[Path]:
    folder = sound.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    yield shutil.copytree(sound, folder)


def runs(folder: Path) -> bool:
    """Whether CityLearn loads the folder and simulates all of it."""
    from citylearn.citylearn import CityLearnEnv

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            env = CityLearnEnv(str(folder / "schema.json"), central_agent=True, offline=True)
        logging.getLogger().setLevel(logging.WARNING)
        env.reset()
        for _ in range(ROWS - 1):
            env.step([np.zeros(space.shape[0]) for space in env.action_space])
    except Exception:  # whatever a damaged file makes of it
        return False
    return True


def errors_of(folder: Path) -> list[str]:
    """Errors of both ways to read; they never disagree."""
    try:
        errors = check_case(folder).errors
    except UserError as error:
        errors = [str(error).removeprefix(f"{folder}/")]
    if not errors:
        read_site(folder)
        return errors
    with pytest.raises(UserError, match=re.escape(errors[0])) as caught:
        read_site(folder)
    assert len(errors) == 1 or f"({len(errors) - 1} more" in str(caught.value)
    return errors


def problems_of(folder: Path, files: set[str]) -> set[Problem]:
    """Errors in these files, one by one."""
    return {p for p in check_case(folder).problems if p.severity == "error" and p.file in files}


def damage_table(folder: Path, draw: Any, name: str) -> Damage:
    path = folder / name
    kind = draw(st.sampled_from(KINDS))
    header, *rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    column, row = draw(st.integers(0, len(header) - 1)), draw(st.integers(0, ROWS - 1))
    key, line = header[column], row + 2
    if kind in ("text", "nan", "infinite", "blank"):
        rows[row][column] = {"text": "many", "nan": "nan", "infinite": "1e400", "blank": ""}[kind]
        damage = Damage(path.name, (key,), line)
    elif kind == "drop column":
        header, *rows = [cells[:column] + cells[column + 1 :] for cells in (header, *rows)]
        damage = Damage(path.name, (key,))
    elif kind == "rename column":
        header[column] = "else"
        damage = Damage(path.name, (key,))
    elif kind == "drop rows":
        rows = rows[:row]
        damage = Damage(path.name)
    else:
        path.unlink() if kind == "delete" else path.write_text("", encoding="utf-8")
        return Damage(path.name)
    path.write_text("\n".join(",".join(cells) for cells in (header, *rows)) + "\n", encoding="utf-8")
    return damage


def names(text: str, damage: Damage) -> bool:
    return not damage.keys or any(key in text for key in damage.keys)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value inside a JSON document."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


def damage_schema(folder: Path, draw: Any) -> Damage:
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    *above, last = draw(st.sampled_from(places(schema)[1:]))
    parent = schema
    for key in above:
        parent = parent[key]
    kind = draw(st.sampled_from(["replace", "drop", "add"]))
    if kind == "replace":
        parent[last] = draw(st.sampled_from(VALUES))
    elif kind == "drop" or not isinstance(parent, dict):
        del parent[last]
    else:
        last = "unknown_key"
        parent[last] = draw(st.sampled_from(VALUES))
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    return Damage("schema.json", tuple(key for key in (*above, last) if isinstance(key, str))[-2:])


@settings(SLOW, max_examples=60)
@given(data=st.data())
def test_a_damaged_data_file_runs_or_is_named(sound: Path, data: st.DataObject) -> None:
    with copy_of(sound) as folder:
        name = data.draw(st.sampled_from(sorted(file.name for file in folder.glob("*.csv"))))
        damage = damage_table(folder, data.draw, name)
        errors = errors_of(folder)
        if errors:
            line = "" if damage.line is None else f", line {damage.line}:"
            assert any(damage.file + line in text and names(text, damage) for text in errors), (damage, errors)
        else:
            assert runs(folder), damage


@settings(SLOW, max_examples=100)
@given(data=st.data())
def test_a_damaged_schema_runs_or_is_named(sound: Path, data: st.DataObject) -> None:
    with copy_of(sound) as folder:
        damage = damage_schema(folder, data.draw)
        errors = errors_of(folder)
        if errors:
            assert any(names(text, damage) for text in errors), (damage, errors)
        else:
            # What is autosized, CityLearn sizes by tables that it downloads.
            assert runs(folder) or damage.keys[-1] == "autosize", damage


@settings(SLOW, max_examples=25)
@given(data=st.data())
def test_several_problems_are_all_reported(sound: Path, data: st.DataObject) -> None:
    """What is found in each file alone is found in all of them together."""
    names = data.draw(st.permutations(sorted(file.name for file in sound.glob("*.csv"))))[:3]
    alone: set[Problem] = set()
    damaged: dict[str, bytes | None] = {}
    for name in names:
        with copy_of(sound) as folder:
            damage_table(folder, data.draw, name)
            alone |= problems_of(folder, {name})
            damaged[name] = (folder / name).read_bytes() if (folder / name).exists() else None
    with copy_of(sound) as folder:
        for name, content in damaged.items():
            (folder / name).unlink()
            if content is not None:
                (folder / name).write_bytes(content)
        assert alone <= problems_of(folder, set(names))


def test_remarks_are_grouped(tmp_path: Path) -> None:
    """One line for the same remark on many chargers, with an example and the count of the others."""
    folder = write_schema(tmp_path, 2, Features(rows=ROWS, buildings=(2, 2), sockets=(6, 6), blank_soc=0))
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    chargers = {name: block for b in schema["buildings"].values() for name, block in b["chargers"].items()}
    for charger in chargers.values():
        charger["attributes"]["charger_type"] = 0
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    report = check_case(folder)
    assert report.errors == []
    (line,) = [text for text in report.warnings if "charger_type" in text]
    assert line.endswith("unknown attribute 'charger_type', CityLearn ignores it (and 5 more)")
    for charger in chargers.values():
        charger["attributes"]["efficiency"] = 95
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    (line,) = check_case(folder).errors
    assert line.endswith("efficiency must be a number above 0 and at most 1, not 95 (and 5 more)")
