"""What is damaged in a cache is made again, with a word about it; what is whole is used."""

import json
import random
import shutil
import socket

import pytest

from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.cases.presets import PRESETS, Preset
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.comparison.plan import ComparisonRequest, years_to_judge
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging import references
from iquitos_rl.judging.references import UNCONTROLLED, Reference, find_rule, store_of, stored
from iquitos_rl.judging.summary import COMPARED
from iquitos_rl.machine.files import folder_digest, write_json
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, prepare_years, preset_year, require_case


def spoil(path, kind, rng):
    """Damage one file."""
    data = path.read_bytes()
    path.unlink()
    if kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == "changed":
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif kind == "folder":
        path.mkdir()
    elif kind == "other":
        path.write_text('{"x": [1, 2]}')


KINDS = ["cut", "changed", "missing", "folder", "other"]


@pytest.fixture
def toy(monkeypatch, week_38):
    """A preset that copies a folder, and how often it was built."""
    built = []

    def build(seed, folder, overrides):
        built.append(seed)
        shutil.copytree(week_38, folder, dirs_exist_ok=True)

    monkeypatch.setitem(PRESETS._entries, "toy", Preset(build))
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_year_is_built_again(toy, tmp_path, kind, capsys):
    folder = preset_year("toy", 0, {}, tmp_path)
    before, rng = folder_digest(folder), random.Random(kind)
    assert preset_year("toy", 0, {}, tmp_path) == folder
    assert toy == [0]
    for name in ("schema.json", "weather.csv", "Building_1.csv"):
        spoil(folder / name, kind, rng)
        assert preset_year("toy", 0, {}, tmp_path) == folder
        assert folder_digest(folder) == before
        assert "is damaged; it is built again" in capsys.readouterr().err
    assert toy == [0] * 4


def test_a_new_version_of_a_preset_is_built_anew(toy, tmp_path, monkeypatch):
    before = preset_year("toy", 0, {}, tmp_path)
    monkeypatch.setitem(PRESETS._entries, "toy", PRESETS["toy"]._replace(version=2))
    assert preset_year("toy", 0, {}, tmp_path) != before
    assert toy == [0, 0]


def test_a_preset_can_judge_what_was_trained_on_another(toy, tmp_path, monkeypatch):
    """Such as a preset with shifted years: its first year that none is trained on."""
    monkeypatch.setitem(PRESETS._entries, "toy-shifted", PRESETS["toy"])
    found = prepare_years(RunSettings(case="toy", years=2, eval_case="toy-shifted"), tmp_path)
    assert found.evaluate == preset_year("toy-shifted", EVALUATION_YEAR_SEED, {}, tmp_path)
    assert found.train == [preset_year("toy", seed, {}, tmp_path) for seed in (0, 1)]
    assert found.unseen
    request = ComparisonRequest((), 1, 2, ("toy-shifted", "toy"), 1, None, None, {"case": "toy"}, ("years=2",), None)
    years = years_to_judge(request, RunSettings(case="toy", years=2), tmp_path)
    assert list(years) == ["toy-shifted-1000", "toy-shifted-1001", "toy-1000", "toy-1001"]
    assert years["toy-shifted-1001"] == preset_year("toy-shifted", 1001, {}, tmp_path)


@pytest.fixture
def reference(week_38):
    return Reference(UNCONTROLLED, week_38, read_site(week_38).fingerprint, TaskSettings())


def put(reference, cache, figures):
    store = store_of(reference, cache)
    store.mkdir(parents=True, exist_ok=True)
    (store / "timeseries.csv").write_text("step\n0\n")
    sums = {"timeseries.csv": references.hashlib.sha256(b"step\n0\n").hexdigest()}
    judged = {"figures": figures, "demand_audit": 0.0, "seconds": 1.0, "grid_only": figures}
    write_json(store / "judged.json", {"judged": judged, "files": sums})
    return store


@pytest.mark.parametrize("name", ["judged.json", "timeseries.csv"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_reference_counts_as_none(reference, tmp_path, name, kind, capsys):
    figures = dict.fromkeys(COMPARED, 1.0)
    store = put(reference, tmp_path, figures)
    assert stored(reference, tmp_path).figures == figures
    for seed in range(5):
        spoil(store / name, kind, random.Random(seed))
        found = stored(reference, tmp_path)
        # A digit may have become another one in figures, which nothing can tell.
        assert found is None or (name == "judged.json" and kind == "changed")
        assert found is not None or (name, kind) == ("judged.json", "missing") or "again" in capsys.readouterr().err
        shutil.rmtree(store)
        put(reference, tmp_path, figures)


@pytest.mark.parametrize("lacking", COMPARED)
def test_a_reference_without_a_figure_counts_as_none(reference, tmp_path, lacking):
    put(reference, tmp_path, {name: 1.0 for name in COMPARED if name != lacking})
    assert stored(reference, tmp_path) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_rule_is_tuned_again(week_38, tmp_path, monkeypatch, kind):
    site, tuned = read_site(week_38), []
    rule = default_settings("strongest", fit_profiles([site]))

    def tune(name, sites, task, on_share):
        tuned.append(name)
        return rule

    monkeypatch.setattr(references, "tune", tune)
    for _ in range(2):
        found = find_rule("strongest", [site], TaskSettings(), tmp_path)
        assert found.parameters == rule.parameters
    assert tuned == ["strongest"]
    path = next((tmp_path / "rules").glob("*.json"))
    if kind == "changed":  # another digit is no damage that can be seen; another number is
        data = json.loads(path.read_text())
        data["parameters"][next(iter(RULES["strongest"].ranges))] = "x"
        path.write_text(json.dumps(data))
    elif kind == "folder":
        return  # nothing can be written in its place
    else:
        spoil(path, kind, random.Random(0))
    assert find_rule("strongest", [site], TaskSettings(), tmp_path).parameters == rule.parameters
    assert tuned == ["strongest"] * 2
    assert find_rule("strongest", [site], TaskSettings(), tmp_path, skip=True).parameters == rule.parameters


CASES = ["iquitos-83x", "a" * 5000, "no such folder", "citylearn_challenge_2099", "\x00", "é", "x/y/z", "\ud800"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("look", [require_case, resolve_case])
def test_a_misspelt_case_looks_for_nothing_on_the_internet(case, look, monkeypatch, tmp_path):
    def connect(*arguments, **options):
        raise AssertionError("it asked the network")

    for name in ("create_connection", "getaddrinfo", "socket"):
        monkeypatch.setattr(socket, name, connect)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CITYLEARN_OFFLINE", raising=False)
    with pytest.raises(UserError, match=r"neither a folder .* nor a CityLearn dataset|did you mean") as error:
        look(case)
    assert len(str(error.value)) < 1000
