"""Settings, command lines, case folders and metered files with anything in them, through the commands themselves.

Each ends in success, or in one sentence and exit status 2. Whatever else happens is an exception here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from iquitos_rl import case as case_command
from iquitos_rl import train
from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import RunSettings, shipped_agents
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import UNCONTROLLED, Reference, prepare
from iquitos_rl.runs import session
from iquitos_rl.runs.years import prepare_years
from iquitos_rl.settings import rows


def outcome(body: Callable[[], int], most: int = 1) -> str:
    """Accepted or refused; anything but success, or `most` sentences and status 2, is an AssertionError."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = body()
    sentences = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    others = [line for line in err.getvalue().splitlines() if not line.startswith(("error: ", "warning: "))]
    assert status in (0, 2), (status, err.getvalue())
    assert len(sentences) <= most, err.getvalue()
    assert bool(sentences) == (status == 2), err.getvalue()
    assert not others, err.getvalue()
    return "refused" if status else "accepted"


@contextlib.contextmanager
def without_training(check: bool = False) -> Iterator[None]:
    """Commands stop where training would begin; with `check` after reading and checking the case."""

    def stop(run: Any, settings: Any, device: Any, request: Any, interrupts: Any) -> int:
        first = settings.run
        if first.case in PRESETS and not first.case_settings:
            return 0
        if first.case not in PRESETS:
            years = prepare_years(first, run.folder.parent / "cache")
            report = check_case(years.evaluate)
            if report.errors:
                raise UserError(f"{years.evaluate}: {report.errors[0]}")
            if check:
                sites = [read_site(folder) for folder in years.train]
                if not sites[0].unsupported:
                    DistrictSite(sites, 2, first.task).reset(0)
                prepare(Reference(UNCONTROLLED, years.evaluate, "", first.task))
        return 0

    original = session.train_in
    session.train_in = stop
    try:
        yield
    finally:
        session.train_in = original


def fuzz(cases: int, strategy: Any, body: Callable[[Any], str]) -> Counter[str]:
    """Outcomes of so many examples; a failing one is shrunk and raised."""
    counts: Counter[str] = Counter()

    @hypothesis_settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        counts[body(example)] += 1

    run()
    return counts


def setting_keys() -> list[str]:
    """Every setting's full name, and some that are none."""

    found = [row.key for row in rows(RunSettings())]
    agents = [row.key for entry in AGENTS.values() for row in rows(entry.config(), "agent.")]
    return [*found, *agents, "agent", "task", "sac", "sac.agent", "agent.", ".", "case_settings.pv", "x"]


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=12),
    st.lists(st.integers(-2, 300), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(
        ["auto", "float16", "district", "citylearn", "iquitos-38", "nan", "-.inf", "1e400", "!!python/x y"]
    ),
)
assignments = st.builds(
    lambda key, value: f"{key}={json.dumps(value) if not isinstance(value, str) else value}",
    st.sampled_from(setting_keys()),
    values,
)
OPTIONS = "--case --eval-case --config --set --episodes --steps --device --engine --num-envs --seed --resume --help"
WORDS = (
    "sac ppo a2c all --allow-changes --skip-baseline cpu cuda iquitos-38 district 5 -1 nan 1e9 seed=1 = missing.yaml"
)
words = st.sampled_from([*OPTIONS.split(), *WORDS.split(), "\0", "a" * 300, ""]) | st.text(max_size=8)
documents = st.recursive(
    st.one_of(values, st.text(max_size=5)),
    lambda inner: st.dictionaries(st.sampled_from(setting_keys()) | st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)


def fuzz_settings(work: Path, cases: int) -> Counter[str]:
    """`--set` and YAML files with any keys and values."""
    number = iter(range(10**9))

    def body(example: tuple[str, list[str], Any]) -> str:
        algorithm, sets, document = example
        folder = work / f"set-{next(number)}"
        config = work / "fuzz.yaml"
        config.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        argv = [algorithm, "--set", "threads=1", *(part for text in sets for part in ("--set", text))]
        with_config = ["--config", str(config)] if document is not None else []
        try:
            return outcome(lambda: train.main([*argv, *with_config, "--output", str(folder)]))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    example = st.tuples(
        st.sampled_from([*shipped_agents(), "all"]), st.lists(assignments, max_size=3), documents | st.none()
    )
    with without_training():
        return fuzz(cases, example, body)


def fuzz_command_line(work: Path, cases: int) -> Counter[str]:
    """Any words in any order; a result that is there already must stay."""
    kept = work / "kept"
    kept.mkdir()
    (kept / "result.txt").write_text("mine", encoding="utf-8")

    def body(argv: list[str]) -> str:
        found = outcome(lambda: train.main([*argv, "--set", "threads=1", "--output", str(kept)]))
        assert [path.name for path in kept.iterdir() if path.name != ".lock"] == ["result.txt"]
        return found

    begin = st.lists(words, max_size=6) | st.lists(words, max_size=5).map(lambda rest: ["sac", *rest])
    before = Path.cwd()
    os.chdir(work)
    try:
        with without_training():
            return fuzz(cases, begin, body)
    finally:
        os.chdir(before)


cells = st.one_of(
    st.sampled_from(["", "nan", "inf", "-1e308", "many", "1e400", "0", "-5", "\0", '"', "7,7", "2.5"]),
    st.text(max_size=4),
)
edits = st.tuples(
    st.sampled_from(["cell", "drop row", "drop column", "cut", "append", "bytes", "delete", "json"]),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    cells,
    values,
)


def edit_folder(folder: Path, edit: tuple[str, int, int, str, Any]) -> None:
    """Damage one file of a schema folder, or of a folder of tables."""
    kind, a, b, cell, value = edit
    files = sorted(folder.glob("*.csv" if kind in ("cell", "drop row", "drop column") else "*.*"))
    path = folder / "schema.json" if kind == "json" else files[a % len(files)]
    if kind == "json":
        if not path.is_file():
            return
        schema = json.loads(path.read_text(encoding="utf-8"))
        node: Any = schema
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = keys[b % len(keys)]
            b = b // len(keys) + a
            if not isinstance(node[key], dict | list) or not node[key] or a % 3 == 0:
                break
            node, a = node[key], a // 3
        if cell:
            node[key] = value
        else:
            del node[key]
        path.write_text(json.dumps(schema), encoding="utf-8")
        return
    data = path.read_bytes()
    lines = data.decode("utf-8", errors="replace").splitlines()
    if kind == "delete":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(data[: b % (len(data) + 1)])
    elif kind == "append":
        path.write_bytes(data + cell.encode())
    elif kind == "bytes":
        changed = bytearray(data)
        changed[b % len(data)] = a % 256
        path.write_bytes(changed)
    elif kind == "drop row":
        del lines[b % min(len(lines), 60)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        rows = [line.split(",") for line in lines]
        column = a // len(files) % len(rows[0])
        if kind == "drop column":
            rows = [[text for i, text in enumerate(row) if i != column] for row in rows]
        else:
            row = rows[b % min(len(rows), 60)]
            row[column % len(row)] = cell
        path.write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")


def fuzz_schema(folder: Path, work: Path, cases: int) -> Counter[str]:
    """Schema folders with one or two faults, through `case check` and the start of a training."""
    number = iter(range(10**9))

    def body(example: list[tuple[str, int, int, str, Any]]) -> str:
        name = f"fuzz-{next(number)}"
        broken, output = work / name, work / f"{name}-out"
        shutil.copytree(folder, broken)
        try:
            for edit in example:
                edit_folder(broken, edit)
            outcome(lambda: case_command.main(["check", str(broken)]), most=1_000)
            argv = ["a2c", "--case", str(broken), "--set", "threads=1", "--output", str(output)]
            return outcome(lambda: train.main(argv))
        finally:
            shutil.rmtree(broken, ignore_errors=True)
            shutil.rmtree(output, ignore_errors=True)

    with without_training(check=True):
        return fuzz(cases, st.lists(edits, min_size=1, max_size=2), body)


def meter_files(folder: Path) -> Path:
    """A year of a site's load and PV, hour by hour, as a meter writes it."""
    folder.mkdir()
    stamps = [datetime(2023, 1, 1) + timedelta(hours=hour) for hour in range(8_760)]
    load = ["datetime,demand_kwh", *(f"{stamp},{500 + 9 * stamp.hour}" for stamp in stamps)]
    pv = ["datetime,pv_kwh", *(f"{stamp},{max(0, 6 - abs(stamp.hour - 12)) * 90}" for stamp in stamps)]
    for name, lines in (("load.csv", load), ("pv.csv", pv)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def fuzz_meter_files(work: Path, cases: int) -> Counter[str]:
    """Metered files with one or two faults, through `case import`."""
    whole, number = meter_files(work / "meter"), iter(range(10**9))
    sizes = ["--preset", "iquitos-38", "--set", "sockets.moto_count=1", "--set", "sockets.mototaxi_count=0"]

    def body(example: list[tuple[str, int, int, str, Any]]) -> str:
        name = f"meter-{next(number)}"
        broken, output = work / name, work / f"{name}-case"
        shutil.copytree(whole, broken)
        try:
            for edit in example:
                edit_folder(broken, edit)
            files = ["--load", str(broken / "load.csv"), "--pv", str(broken / "pv.csv")]
            found = outcome(lambda: case_command.main(["import", *files, *sizes, "--output", str(output)]))
            if found == "accepted":
                assert not check_case(output).errors
            return found
        finally:
            shutil.rmtree(broken, ignore_errors=True)
            shutil.rmtree(output, ignore_errors=True)

    return fuzz(cases, st.lists(edits, min_size=1, max_size=2), body)
