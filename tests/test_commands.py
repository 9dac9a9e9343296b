"""`iquitos-rl` and every `python -m` form: how they are called, what they hand on, and that help needs no torch."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import Token

from iquitos_rl import __main__, case, compare, evaluate, options, plan, settings, size, train, tune
from iquitos_rl.comparison import compare as comparison
from iquitos_rl.report import __main__ as report
from iquitos_rl.runs import session
from iquitos_rl.runs.session import LATEST, Request

ROOT = Path(__main__.__file__).parents[1]
FLAGS = {
    "train": "case eval-case config set episodes steps device engine num-envs seed continue-from amp compile output "
    "resume allow-changes skip-baseline quick cache",
    "evaluate": "case year-seed output",
    "plan": "case config set device num-envs device-memory ram cluster measured sites seeds eval-years",
    "compare": "case agents seeds eval-years eval-cases judged again jobs cluster config set episodes steps device "
    "output",
    "tune": "case trials hours validation-years validation-cases jobs cluster config set num-envs seed episodes steps "
    "device output",
    "case build": "year-seed set output",
    "case import": "load pv weather sessions tariff carbon zone minutes load-column pv-column carbon-column unit "
    "quantity decimal dates stamps clock start step fill charger-kw discharge-kw vehicle-kwh preset year-seed set "
    "output interactive",
    "case check": "",
    "case describe": "output",
    "case join": "output",
    "size": "case battery pv battery-hours output",
    "report": "battery-cost",
    "settings": "case",
}
"""Every flag of every command: none may go."""
FUNCTIONS = {
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "plan": plan.plan,
    "compare": compare.compare,
    "tune": tune.tune,
    "case build": case.build,
    "case import": case.import_files,
    "case check": case.check,
    "case describe": case.describe,
    "case join": case.join,
    "size": size.size,
    "report": report.report,
    "settings": settings.settings,
}


def help_of(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert __main__.main([*command.split(), "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", FLAGS)
def test_help_names_every_flag_with_its_default(command, capsys, monkeypatch):
    text = help_of(command, capsys, monkeypatch)
    assert f"Usage: iquitos-rl {command}" in text
    entries = {entry.split()[0]: entry for entry in re.split(r"\n\W*(?=--[a-z])", text)[1:]}
    assert sorted(set(entries) - {"--help"}) == sorted(f"--{name}" for name in FLAGS[command].split())
    for name, entry in entries.items():
        assert name in ("--set", "--help") or "default: " in entry or "[required]" in entry, entry
    assert len(inspect.signature(FUNCTIONS[command]).parameters) >= len(entries) - 1


def test_help_of_training_points_to_the_list_of_settings(capsys, monkeypatch):
    assert "iquitos-rl settings AGENT" in help_of("train", capsys, monkeypatch)


@pytest.mark.parametrize(
    "module", ["train", "evaluate", "plan", "compare", "tune", "case", "size", "report", "settings", None]
)
def test_every_module_is_a_command_and_its_help_needs_no_torch(module):
    name = "iquitos_rl" if module is None else f"iquitos_rl.{module}"
    argv = [sys.executable, "-X", "importtime", "-m", name, "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: iquitos-rl " if module is None else f"Usage: python -m {name} ")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "iquitos_rl.cli" in imported
    assert not {"torch", "pandas", "scipy", "matplotlib", "gymnasium", "citylearn", "pvlib"} & imported
    assert module == "settings" or not {"pydantic", "yaml"} & imported


def test_the_console_script_is_the_function_tested_here():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'iquitos-rl = "iquitos_rl.__main__:main"' in text


def test_words_without_a_command_are_status_2(capsys):
    assert __main__.main([]) == 2
    assert "Commands" in capsys.readouterr().out
    assert __main__.main(["case"]) == case.main([]) == 2
    assert __main__.main(["trian", "sac"]) == 2
    assert capsys.readouterr().err.startswith('error: unknown command "trian". Did you mean "train"?')


def test_subcommands_reach_their_modules(week_38, capsys):
    assert __main__.main(["case", "check", str(week_38)]) == case.main(["check", str(week_38)]) == 0
    first, second = re.findall(r"^.* is valid, .*$", capsys.readouterr().out, re.MULTILINE)
    assert first == second
    assert __main__.main(["report", "nowhere"]) == report.main(["nowhere"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert first.startswith("error: nowhere")


@pytest.fixture
def asked(monkeypatch):
    """The requests that reach the functions behind the commands, which do nothing."""
    found = []
    monkeypatch.setattr(session, "train", lambda request: found.append(request) or 0)
    monkeypatch.setattr(comparison, "compare", lambda request: found.append(request) or 0)
    return found


@pytest.mark.parametrize("main", [train.main, lambda words: __main__.main(["train", *words])])
def test_a_training_is_asked_for_what_the_words_say(main, asked):
    words = "sac --case c --set reach=0.1 --steps 2e5 --set agent.hidden=[1,2] --amp off --seed 3 --seed 4 --num-envs=7"
    assert main([*words.split(), "--allow-changes"]) == 0
    (request,) = asked
    given = {name: value for name, value in request.flags.items() if value is not None}
    assert given == {"case": "c", "steps": 200_000, "seed": 4, "num_envs": 7}
    assert request == Request(
        "sac", None, request.flags, ("reach=0.1", "agent.hidden=[1,2]", "agent.amp=off"), allow_changes=True
    )


@pytest.mark.parametrize(
    ("words", "resume"),
    [
        ("sac", None),
        ("sac --resume", LATEST),
        ("sac --resume --steps 5", LATEST),
        ("sac --resume outputs/run", Path("outputs/run")),
        ("--resume outputs/run sac", Path("outputs/run")),
        ("sac --resume=outputs/run", Path("outputs/run")),
        ("sac --resume --output x", LATEST),
    ],
)
def test_resume_takes_a_folder_or_none(words, resume, asked):
    assert train.main(words.split()) == 0
    assert asked[0].resume == resume


@pytest.mark.parametrize("main", [compare.main, lambda words: __main__.main(["compare", *words])])
def test_a_comparison_knows_the_command_that_resumes_it(main, asked):
    assert main(["--agents", "a2c", "ppo", "--seeds", "2", "--set", "agent.hidden=[8, 8]"]) == 0
    (request,) = asked
    assert (request.agents, request.seeds) == (("a2c", "ppo"), 2)
    expected = "python -m iquitos_rl compare --agents a2c ppo --seeds 2 --set 'agent.hidden=[8, 8]'"
    assert request.command == expected


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--case", "iquitos_38"], "there is no case iquitos_38; did you mean iquitos-38?"),
        (["--set", "gamma=0.9"], "gamma is not a setting; did you mean agent.gamma?"),
        (["--set", "ev_guard=false"], "ev_guard is not a setting; did you mean task.ev_guard?"),
        (["--steps", "20kk"], "20kk is not a whole number"),
    ],
)
def test_a_typo_is_told_with_what_was_meant_and_leaves_nothing(tmp_path, capsys, words, sentence):
    assert train.main(["sac", *words, "--output", str(tmp_path / "run")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("text", "number"), [("1e5", 100_000), ("20k", 20_000), ("1.5M", 1_500_000), ("7", 7)])
def test_whole_numbers_may_have_a_suffix(text, number):
    token = Token(keyword="--steps", value=text, source="cli")
    assert options._whole(None, [token]) == number
