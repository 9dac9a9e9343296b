"""Occupants in a schema: trees as numbers decide as the pickles do, and what is wrong with them is said."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from thermal_schemas import write_thermal_schema

from iquitos_rl.case import main
from iquitos_rl.cases.schema.occupants import parse_tree, rounded_down
from iquitos_rl.cases.schema.reader import read_folder, read_site
from iquitos_rl.envs import DistrictSite
from iquitos_rl.errors import UserError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Three occupants, whose trees are there as pickles and as numbers."""
    return write_thermal_schema(tmp_path_factory.mktemp("home"), 5, occupants=True)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "home")


def edit(folder, change):
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    change(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")


def only_pickles(schema):
    for block in schema["buildings"].values():
        del block["occupant"]["trees"]


def predicted(tree, seen):
    """(N,) changes of set-points for what is seen (N, 3), one after the other."""
    found = []
    for x in seen:
        node = 0
        while tree.left[node] != node:
            node = (tree.left if x[tree.feature[node]] <= tree.threshold[node] else tree.right)[node]
        found.append(tree.change[node])
    return np.array(found)


def test_trees_decide_as_the_pickles_do(folder):
    """Also exactly at their thresholds, and a number of single precision below and above."""
    rng = np.random.default_rng(0)
    blocks = json.loads((folder / "schema.json").read_text(encoding="utf-8"))["buildings"]
    for building in read_site(folder).buildings:
        attributes = blocks[building.name]["occupant"]["attributes"]
        for change in ("increase", "decrease"):
            model = pickle.loads((folder / attributes[f"setpoint_{change}_model_filename"]).read_bytes())
            tree = getattr(building.occupant, change)
            assert tree.depth == model.get_depth()
            seen = rng.uniform(15, 30, (300, 3)).astype(np.float32)
            at = model.tree_.threshold[rng.integers(0, model.tree_.node_count, 300)].astype(np.float32)
            seen[range(300), rng.integers(0, 3, 300)] = np.nextafter(at, at + rng.integers(-1, 2, 300))
            deltas = {int(label): delta for label, delta in attributes["delta_output_map"].items()}
            expected = [deltas[label] for label in model.predict(seen)]
            np.testing.assert_array_equal(predicted(tree, seen), expected)


def test_a_rounded_threshold_tells_the_same_numbers_apart():
    values = np.random.default_rng(0).uniform(-40, 40, 2000)
    low = rounded_down(values)
    np.testing.assert_array_equal(low, low.astype(np.float32))
    assert (low <= values).all()
    assert (np.nextafter(low.astype(np.float32), np.float32(np.inf)) > values).all()


def test_windows_of_the_data_are_told(folder):
    rows = read_site(folder).rows
    told = []
    for length in ([[0, 30], [31, 60]], [[3, 40]], 30, rows, None):
        edit(folder, lambda schema, length=length: schema.update(episode_time_steps=length))
        warnings = read_folder(folder).report.warnings
        told.append([text.split("makes ")[1].split(" of the")[0] for text in warnings if "episode_time_steps" in text])
    assert told == [["2 episodes"], ["one episode"], ["episodes of 30 rows"], [], []]


class Bomb:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('EXPLODED').touch()",)


def test_no_pickle_is_opened_unless_the_user_says_so(folder, tmp_path, capsys, monkeypatch):
    """Neither by reading, nor by the engine, nor by freezing without the word."""
    monkeypatch.chdir(tmp_path)
    edit(folder, only_pickles)
    for file in folder.glob("*.pkl"):
        file.write_bytes(pickle.dumps(Bomb()))
    assert main(["check", str(folder)]) == 0
    assert "its trees are pickles, which run whatever their author put into them" in capsys.readouterr().out
    with pytest.raises(UserError, match="occupant: trees that are pickles and 2 more: `iquitos-rl case freeze`"):
        DistrictSite([folder])
    assert main(["freeze", str(folder), "--output", str(tmp_path / "frozen")]) == 2
    error = capsys.readouterr().err
    assert "add --trust-pickles if you trust this folder" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "EXPLODED").exists()
    assert not (tmp_path / "frozen").exists()
    assert main(["freeze", str(folder), "--output", str(tmp_path / "frozen"), "--trust-pickles"]) == 2
    assert "holds a NoneType, not a decision tree" in capsys.readouterr().err
    assert (tmp_path / "EXPLODED").exists()


def test_a_frozen_folder_has_the_trees_as_numbers(folder, tmp_path, capsys):
    edit(folder, only_pickles)
    assert len(read_site(folder).unsupported) == 3
    assert main(["freeze", str(folder), "--output", str(tmp_path / "frozen"), "--trust-pickles"]) == 0
    assert "6 pickles opened" in capsys.readouterr().out
    frozen = read_site(tmp_path / "frozen")
    assert frozen.unsupported == ()
    assert '"dropout": 0.3' not in (tmp_path / "frozen" / "schema.json").read_text(encoding="utf-8")
    engine = DistrictSite([frozen], 2)
    assert engine.physics.thermal.occupants is not None


def test_what_citylearn_ignores_is_a_warning(folder):
    def change(schema):
        schema["buildings"]["Building_1"]["set_point_hold_time_steps"] = 4

    edit(folder, change)
    report = read_folder(folder).report
    assert report.errors == []
    assert sum("does not read set_point_hold_time_steps" in text for text in report.warnings) == 1
    assert sum("dropout is taken as 0" in text for text in report.warnings) == 1


def test_another_type_of_building_has_no_occupant(folder):
    """CityLearn reads the files and makes nothing of them."""

    def change(schema):
        schema["buildings"]["Building_1"]["type"] = "citylearn.building.LSTMDynamicsBuilding"

    edit(folder, change)
    reading = read_folder(folder)
    assert [b.occupant is None for b in reading.site.buildings] == [True, False, False]
    assert reading.site.unsupported == ()
    assert any("CityLearn ignores the occupant" in text for text in reading.report.warnings)


def test_an_unknown_occupant_is_left_to_citylearn(folder):
    edit(folder, lambda schema: block(schema).update(type="my.Occupant"))
    assert read_site(folder).unsupported == ("buildings.Building_1.occupant: type my.Occupant",)


def block(schema):
    return schema["buildings"]["Building_1"]["occupant"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s["buildings"]["Building_1"].pop("occupant"), "key occupant is missing"),
        (lambda s: block(s).pop("parameters_filename"), "parameters_filename is missing"),
        (lambda s: s["buildings"]["Building_1"].update(type=None, occupant={"one": 1}), "type must name a module"),
        (lambda s: block(s).update(trees="none.json"), "trees names none.json, which cannot be read"),
        (lambda s: block(s).update(trees="schema.json"), "schema.json holds no tree 'increase'"),
        (lambda s: block(s)["attributes"]["delta_output_map"].pop("1"), "delta_output_map does not know label 1"),
        (lambda s: block(s)["attributes"]["delta_output_map"].update(x=1.0), "x must be a whole number"),
        (lambda s: s.update(random_seed=2**32 - 20), "random_seed 4294967276 is too large to draw from"),
        (lambda s: block(s).update(trees="Building_1.csv"), "trees names Building_1.csv, which is not JSON"),
        (
            lambda s: block(s)["attributes"].update(setpoint_increase_model_filename="none.pkl"),
            "setpoint_increase_model_filename names none.pkl, which cannot be read",
        ),
        (
            lambda s: block(s)["attributes"].update(setpoint_increase_model_filename="Building_1_decrease.pkl"),
            "is not of the present setpoint_increase_model_filename",
        ),
    ],
)
def test_a_mistake_is_one_sentence(folder, change, sentence):
    edit(folder, change)
    assert sum(sentence in text for text in read_folder(folder).report.errors) == 1


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("hvac_mode", 0, "neither 1 nor 2 with an occupant, CityLearn stops at it"),
        ("hvac_mode", 3, "neither 1 nor 2 with an occupant, CityLearn stops at it"),
        ("indoor_dry_bulb_temperature_heating_set_point", "", "the cell is blank with an occupant"),
    ],
)
def test_rows_in_which_an_occupant_cannot_act_are_errors(folder, column, value, sentence):
    """Not before the network has read enough rows, where nobody acts."""
    site = read_site(folder)
    lookback = site.buildings[0].dynamics.lookback
    path = folder / "Building_1.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index(column)
    first = 1 + json.loads((folder / "schema.json").read_text(encoding="utf-8"))["simulation_start_time_step"]

    def put(row):
        cells = lines[first + row].split(",")
        cells[place] = str(value)
        changed = [*lines[: first + row], ",".join(cells), *lines[first + row + 1 :]]
        path.write_text("\n".join(changed) + "\n", encoding="utf-8")
        return [text for text in read_folder(folder).report.errors if sentence in text]

    assert put(lookback - 2) == []
    assert len(put(lookback)) == 1
    assert f"line {first + lookback + 1}" in put(lookback)[0]
    assert put(site.rows - 1) == []


TREE = {
    "feature": [2, -2, 0, -2, -2],
    "threshold": [0.5, -2.0, 21.0, -2.0, -2.0],
    "left": [1, -1, 3, -1, -1],
    "right": [2, -1, 4, -1, -1],
    "label": [0.0, 1.0, 0.0, 0.0, 1.0],
}


def test_a_tree_is_read():
    tree = parse_tree(TREE, {0: 0.5, 1: 1.5})
    seen = np.array([[20, 0, 0.5], [21, 0, 0.6], [21.5, 0, 0.6]])
    np.testing.assert_array_equal(predicted(tree, seen), [1.5, 0.5, 1.5])
    assert tree.depth == 2


def chain(depth):
    """A tree whose every inner node has a leaf on the left."""
    nodes = np.arange(2 * depth + 1)
    inner = (nodes % 2 == 0) & (nodes < 2 * depth)
    left, right = np.where(inner, nodes + 1, -1), np.where(inner, nodes + 2, -1)
    nothing = np.zeros(len(nodes))
    return {"feature": nothing, "threshold": nothing, "left": left, "right": right, "label": nothing}


def test_a_tree_that_would_take_for_ever_is_told():
    assert parse_tree(chain(100), {0: 0.5}).depth == 100
    assert parse_tree(chain(101), {0: 0.5}) == "it is deeper than 100"


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"left": [1, -1, 2, -1, -1]}, "later nodes"),
        ({"right": [2, -1, 5, -1, -1]}, "later nodes"),
        ({"right": [2, -1, -1, -1, -1]}, "later nodes"),
        ({"right": [2, -1, 3.5, -1, -1]}, "later nodes"),
        ({"feature": [3, -2, 0, -2, -2]}, "below 3"),
        ({"feature": []}, "of one length"),
        ({"threshold": [0.5, -2.0, float("nan"), -2.0, -2.0]}, "of one length"),
        ({"threshold": "much"}, "lists of numbers"),
        ({"label": [0.0, 1.0, 0.0, 0.0, 7.0]}, "label 7"),
        ({"label": [0.0, 1.0, 0.0, 0.0]}, "of one length"),
    ],
)
def test_a_broken_tree_is_told(part, sentence):
    assert sentence in parse_tree(TREE | part, {0: 0.5, 1: 1.5})
