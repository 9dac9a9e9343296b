"""What a run survives, counted: `python benchmarks/faults.py --output FOLDER`.

Kills at random moments, damaged checkpoints, bad input by the thousand, and the share of time that saving takes. The
tests run a small part of each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import shutil
import signal
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from iquitos_rl import case as case_command
from iquitos_rl import train
from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.check import check_case
from iquitos_rl.cases.iquitos import build_case
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.reader import read_site
from iquitos_rl.config import ALGORITHMS, RunSettings
from iquitos_rl.envs.district import DistrictSite
from iquitos_rl.errors import UserError
from iquitos_rl.runs.checkpoint import Checkpoints
from iquitos_rl.runs.files import digest, write_json, write_text
from iquitos_rl.runs.references import UNCONTROLLED, Reference, prepare
from iquitos_rl.runs.slot import MANIFEST
from iquitos_rl.runs.summary import machine, versions
from iquitos_rl.runs.years import prepare_years

SMALL = {
    "sac": {"hidden": [8], "learning_starts": 30, "batch_size": 16, "log_every": 3, "buffer_size": 300},
    "ppo": {"hidden": [8], "horizon": 4, "batch_size": 6, "epochs": 2},
    "a2c": {"hidden": [8], "horizon": 2, "log_every": 6},
}


def short_case(folder: Path, rows: int) -> Path:
    """The first hours of iquitos-38."""
    build_case("iquitos-38", 0, folder)
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["simulation_end_time_step"] = rows - 1
    write_text(path, json.dumps(schema))
    return folder


# --- kills


def command(algorithm: str, folder: Path, output: Path) -> list[str]:
    """A run of a few seconds that saves at every report, and goes on where there is something to go on with."""
    sets = ["--set", "checkpoint_minutes=0", "--set", "threads=1", "--set", f"agent={json.dumps(SMALL[algorithm])}"]
    size = ["--steps", "240", "--num-envs", "3"]
    return [algorithm, "--case", str(folder), *size, *sets, "--output", str(output), "--resume"]


def start(argv: list[str], log: Path) -> int:
    """The command in a process of its own, forked so that a kill costs no imports; returns its number."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - not pytest's
        status = train.main(argv)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child: int, seconds: float | None, log: Path | None = None) -> int | None:
    """The exit status, or None where the process was killed after so many seconds: from its start, or with `log` from
    its first sign of training."""
    if seconds is not None:
        while log is not None and b"train " not in log.read_bytes() and not _has_ended(child):
            time.sleep(0.01)
        time.sleep(seconds)  # the moment of the kill
        os.kill(child, signal.SIGKILL)  # a child that has ended already is not reaped yet, so this is harmless
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def results(output: Path) -> dict[str, Any]:
    """What must be equal: weights, simulated hours, training figures but for memory."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in output.glob("*_*.csv")}
    found["policy"] = (output / "policy" / "policy.safetensors").read_bytes()
    found["metrics"] = pd.read_csv(output / "metrics.csv").drop(columns="ram_mib").to_csv()
    return found


def half_written(output: Path) -> list[str]:
    """Files under their final names that cannot be read."""
    bad = []
    for path in output.rglob("*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            bad.append(path.name)
    bad += [path.name for path in output.glob("*_*.csv") if not path.read_bytes().endswith(b"\n")]
    checkpoints = Checkpoints(output / "checkpoints", 0.0, lambda text: None)
    try:
        checkpoints.load()
    except UserError as error:
        bad.append(str(error))
    return bad


def kill_runs(folder: Path, work: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill commands at random moments until `kills` have been killed; each goes on until it ends by itself."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    references: dict[str, tuple[dict[str, Any], float]] = {}
    log = work / "log.txt"
    while counts["kills"] < kills:
        algorithm = ALGORITHMS[counts["runs"] % len(ALGORITHMS)]
        if algorithm not in references:
            begun = time.perf_counter()
            if wait(start(command(algorithm, folder, work / algorithm / "undisturbed"), log), None) != 0:
                raise AssertionError(log.read_text(encoding="utf-8")[-2000:])
            references[algorithm] = results(work / algorithm / "undisturbed"), time.perf_counter() - begun
        expected, seconds = references[algorithm]
        output = work / algorithm / f"run-{counts['runs']}"
        while True:
            log.write_bytes(b"")
            child = start(command(algorithm, folder, output), log)
            if counts["kills"] >= kills:
                status = wait(child, None)
            elif rng.random() < 0.25:
                status = wait(child, rng.uniform(0, 1.1 * seconds))
            else:
                status = wait(child, rng.uniform(0, 0.6 * seconds), log)
            text = log.read_text(encoding="utf-8", errors="replace")
            if status is None:
                counts["kills"] += 1
                counts[phase(text)] += 1
                bad = half_written(output)
                counts["half-written files"] += len(bad)
                assert not bad, bad
                continue
            counts["resumes that ended well"] += status == 0
            assert status == 0, text[-2000:]
            break
        counts["runs"] += 1
        same = results(output) == expected
        counts["equal to the undisturbed run"] += same
        assert same, f"{output} differs"
        shutil.rmtree(output)
    return dict(counts)


def phase(text: str) -> str:
    """Where a killed command was, from what it had printed."""
    if "results in" in text:
        return "killed at the end"
    if any(f"evaluate {name}" in text for name in ALGORITHMS):
        return "killed while judging"
    return "killed while training and saving" if "training on" in text else "killed before training"


# --- damaged checkpoints


class Bomb:
    """Unpickling this would raise the count."""

    executed = 0

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    Bomb.executed += 1


def damages(rng: random.Random) -> dict[str, Callable[[Path], None]]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

    def truncate(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])

    def foreign(path: Path) -> None:
        others = [other for other in path.parent.parent.rglob("*.*") if other.is_file()]
        donor = rng.choice([other for other in others if other.read_bytes() != path.read_bytes()])
        path.write_bytes(donor.read_bytes())

    return {
        "bit flipped": flip,
        "truncated": truncate,
        "missing": lambda path: path.unlink(),
        "foreign": foreign,
        "pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    }


def damage_checkpoints(work: Path, count: int, seed: int) -> dict[str, int]:
    """Damage one file of the newest checkpoint of two and count how often the one before it is used and said so."""
    rng = random.Random(seed)
    whole = Checkpoints(work / "whole", 0.0)
    for step in (1, 2):
        generator = torch.Generator().manual_seed(step)
        ring = torch.rand(300_000, 16, generator=generator)  # 18 MiB: three blocks
        whole.save({"ring": ring, "weights": torch.rand(9, generator=generator)}, step, {}, wait=True)
    counts: Counter[str] = Counter()
    kinds = damages(rng)
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        folder = work / "damaged"
        shutil.copytree(work / "whole", folder)
        kinds[kind](rng.choice(sorted((folder / "b").iterdir())))
        told: list[str] = []
        loaded = Checkpoints(folder, 0.0, told.append).load()
        counts[kind] += loaded is not None and loaded.step == 1 and bool(told)
        shutil.rmtree(folder)
    return {**counts, "damaged": count, "code executed": Bomb.executed}


# --- bad input


def outcome(body: Callable[[], int], most: int = 1) -> str:
    """Accepted or refused; anything but success, or `most` sentences and status 2, is an AssertionError."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = body()
        except SystemExit as error:  # argparse: usage, then one sentence
            status = int(error.code or 0)
            assert status in (0, 2), status
            return "refused" if status else "accepted"
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

    def stop(run: Any, settings: Any, device: Any, arguments: Any, interrupts: Any) -> int:
        first = next(iter(settings.values())).run
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

    original = train.train_in
    train.train_in = stop
    try:
        yield
    finally:
        train.train_in = original


def setting_keys() -> list[str]:
    """Every setting's full name, and some that are none."""

    def names(model: Any, prefix: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            inner = field.annotation
            found += names(inner, f"{prefix}{name}.") if hasattr(inner, "model_fields") else [f"{prefix}{name}"]
        return found

    agents = [name for entry in AGENTS.values() for name in names(entry.config, "agent.")]
    return [*names(RunSettings), *agents, "agent", "task", "sac", "sac.agent", "agent.", ".", "case_settings.pv", "x"]


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

    example = st.tuples(st.sampled_from([*ALGORITHMS, "all"]), st.lists(assignments, max_size=3), documents | st.none())
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
    """Damage one file of a schema folder."""
    kind, a, b, cell, value = edit
    files = sorted(folder.glob("*.csv" if kind in ("cell", "drop row", "drop column") else "*.*"))
    path = folder / "schema.json" if kind == "json" else files[a % len(files)]
    if kind == "json":
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


def fuzz_checkpoints(work: Path, cases: int) -> Counter[str]:
    """Manifests with anything in them, under a right checksum, and bytes changed anywhere."""
    template = work / "template"
    checkpoints = Checkpoints(template, 0.0)
    state = {"ring": torch.zeros(2_200_000), "rng": {"state": 10**30}, "optimizer": {0: [torch.ones(2), 1.5, None]}}
    checkpoints.save(state, 5, {"train_s": 1.0}, wait=True)
    body_of = json.loads((template / "a" / MANIFEST).read_text(encoding="utf-8"))["body"]
    trees = st.recursive(
        values | st.sampled_from(["state.ring", "tensor", "dict"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["tensor", "array", "dict", "tuple", "float", "x"]), inner, max_size=2)
        ),
        max_leaves=8,
    )
    layouts = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F64", "X"]) | values,
            "shape": values,
            "blocks": values | st.lists(st.text()),
        }
    )
    parts = st.dictionaries(
        st.sampled_from(list(body_of)), trees | st.dictionaries(st.text(max_size=3), layouts, max_size=2), min_size=1
    )
    example = st.tuples(st.booleans(), parts, st.integers(0, 10**9), st.integers(1, 255))

    def body(given_parts: tuple[bool, dict[str, Any], int, int]) -> str:
        crafted, changed, place, xor = given_parts
        folder = work / "crafted"
        shutil.copytree(template, folder)
        try:
            path = folder / "a" / MANIFEST
            if crafted:
                body = {**body_of, **json.loads(json.dumps(changed))}
                path.write_text(json.dumps({"sha256": digest(body), "body": body}), encoding="utf-8")
            else:
                files = sorted((folder / "a").iterdir())
                path = files[place % len(files)]
                data = bytearray(path.read_bytes())
                data[place // len(files) % len(data)] ^= xor
                path.write_bytes(data)
            Checkpoints(folder, 0.0, lambda text: None).load({"ring": torch.zeros(2_200_000)})
            return "accepted"
        except UserError as error:
            return "refused" if "\n" not in str(error) else str(error)
        finally:
            shutil.rmtree(folder)

    return fuzz(cases, example, body)


# --- the share of time


def saving_share(steps: int, minutes: float, folder: Path) -> dict[str, float]:
    """SAC with the shipped sizes on iquitos-38: training with saving in the background and without, in turns, and what
    one save costs the training thread when the whole buffer is new and when 1,000 steps are."""
    site = read_site(folder)
    config = AGENTS["sac"].config(batch_size=256, update_ratio=0.1, learning_starts=5_000, n_step=3)

    def speed(save: Checkpoints | None) -> float:
        env = DistrictSite([site], 32, starts="random")
        agent = AGENTS["sac"].agent(env, config, seed=0)

        def report(progress: Any) -> None:
            if save is not None and save.due():
                save.save({"agent": agent.state_dict(), "env": env.state_dict()}, progress.steps, {})

        begun = time.perf_counter()
        agent.learn(steps, on_log=report)
        seconds = time.perf_counter() - begun
        if save is not None:
            save.finish()
            shares.append(save.seconds / seconds)
            saves.append(save.saves)
        return steps / seconds

    shares: list[float] = []
    saves: list[int] = []
    ratios = []
    for turn in range(3):
        with TemporaryDirectory() as work:
            plain = speed(None)
            ratios.append(speed(Checkpoints(Path(work) / str(turn), minutes)) / plain)
    with TemporaryDirectory() as work:
        ring = torch.rand(300_001, site_width(site))
        checkpoints = Checkpoints(Path(work), 0.0)
        costs = []
        for first in (0, 1_000, 2_000, 3_000):
            ring[first : first + 1_000] += 1
            before = checkpoints.seconds
            begun = time.perf_counter()
            checkpoints.save({"ring": ring}, first, {})
            costs.append(time.perf_counter() - begun)
            checkpoints.finish()
            assert checkpoints.seconds > before
    return {
        "minutes between saves": minutes,
        "saves": statistics.mean(saves),
        "share of the training thread's time": statistics.median(shares),
        "speed with saving over speed without": statistics.median(ratios),
        "buffer MiB": round(ring.nbytes / 2**20),
        "seconds of a first save": costs[0],
        "seconds of a later save": costs[-1],
        "share at one save in 10 minutes": costs[-1] / 600,
    }


def site_width(site: Any) -> int:
    return int(DistrictSite([site], 1).obs_dim)


# --- the table


def table(found: dict[str, Any]) -> str:
    lines = ["| What | Count |", "|---|---:|"]
    for section, figures in found.items():
        if section in ("machine", "versions"):
            continue
        for name, value in figures.items():
            lines.append(f"| {section}: {name} | {value:.4g} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for faults.json and faults.md")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=500)
    parser.add_argument("--cases", type=int, default=2_400, help="bad inputs, over four kinds")
    parser.add_argument("--steps", type=int, default=20_000, help="of each training whose speed is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["kills", "damage", "input", "time"], action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["CITYLEARN_OFFLINE"] = "1"
    arguments.output.mkdir(parents=True, exist_ok=True)
    chosen = arguments.only or ["kills", "damage", "input", "time"]
    path = arguments.output / "faults.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = short_case(work / "case", 48)
        if "damage" in chosen:
            found["damaged checkpoints"] = damage_checkpoints(work, arguments.damages, arguments.seed)
        if "input" in chosen:
            share = arguments.cases // 8
            counts = {
                "settings": fuzz_settings(work, 2 * share),
                "command line": fuzz_command_line(work, 2 * share),
                "checkpoints": fuzz_checkpoints(work, 3 * share),
                "schema folders": fuzz_schema(folder, work, share),
            }
            found["bad input"] = {f"{kind} {how}": n for kind, c in counts.items() for how, n in sorted(c.items())}
            found["bad input"]["cases"] = sum(c.total() for c in counts.values())
            found["bad input"]["tracebacks"] = 0  # one would have ended this program
        if "kills" in chosen:
            found["kills"] = kill_runs(folder, work, arguments.kills, arguments.seed)
        if "time" in chosen:
            build_case("iquitos-38", 0, work / "year")
            found["saving"] = saving_share(arguments.steps, 0.1, work / "year")
    found |= {"machine": machine(torch.device("cpu"), 1), "versions": versions()}
    write_json(path, found)
    write_text(arguments.output / "faults.md", table(found) + "\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
