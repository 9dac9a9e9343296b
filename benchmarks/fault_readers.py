"""Every reader of a file with changed bytes and changed values: each input is read or refused in one sentence.

Changes start from small valid files, the corpus. In the tests and in `faults.py` they are drawn at random; with
`python benchmarks/fault_readers.py READER --seconds 1800` atheris looks for those that reach new code
(`pip install atheris`). Whatever is neither accepted nor a `UserError` is raised, with the input that did it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.assignments import parse_assignments, validate
from iquitos_rl.baselines.guided import controller
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import RuleSettings, default_settings
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.schema.upgrade import read_cycles, upgrade
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.checkpoints.slot import MANIFEST
from iquitos_rl.config import RunSettings, load_settings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import UNCONTROLLED, Reference, store_of, stored
from iquitos_rl.judging.summary import Judged, Result, make_summary
from iquitos_rl.machine.files import digest
from iquitos_rl.report import markup
from iquitos_rl.report.metrics import read_metrics
from iquitos_rl.report.page import write_report
from iquitos_rl.runs.evaluation import load_site_agent
from iquitos_rl.runs.folder import has_failures, read_run
from iquitos_rl.runs.session import RESULT, _stored_result

ROWS = 30
CORPUS = Path(__file__).parent / "corpus"
Target = Callable[[bytes], None]
TOKENS = (b"\0", b'"', b",", b"\n", b"1e999", b"nan", b"-", b"[", b"{", b"\xff", b";", b"0x1")

HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3600, 2**31, 2**53, 2**63, 2**70, 10**99, -(10**99), 10**400),
    *(0.5, -0.0, 1e-320, 1e30, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "nan", "1e999", "=1+1", "../../etc/passwd", "/dev/zero", "x.zip", "a\nb", "\x1b[31m", "é", "<b>", "$x$"),
    *([], {}, [[]], [[[[1]]]], {"a": 1}, [0, 1], [[0, 1], [1, 1]], ["a"], [None], {"": {"": {}}}),
]
"""Values to put in the place of others."""


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few bytes or stretches of a file changed, left out, doubled or put in."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        a, b = sorted((rng.randrange(len(found) + 1), rng.randrange(len(found) + 1)))
        b = min(b, a + rng.choice((1, 4, 64)))
        kind = rng.randrange(5)
        if kind == 0 and found:
            found[min(a, len(found) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[a:b]
        elif kind == 2:
            found[a:a] = found[a:b] * rng.choice((1, 2, 50))
        elif kind == 3:
            found[a:a] = rng.choice(TOKENS)
        else:
            del found[a:]
    return bytes(found)


def change_values(document: Any, rng: random.Random) -> Any:
    """A JSON document with a few values replaced, left out, doubled or moved."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [(node, key) for node, key in _places(document)]
        if not places:
            return deepcopy(rng.choice(HOSTILE))
        node, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del node[key]
        elif kind == 1:
            other, from_key = rng.choice(places)
            with contextlib.suppress(LookupError):  # it may be gone by now
                node[key] = json.loads(json.dumps(other[from_key]))
        elif kind == 2 and isinstance(node, dict):
            node[rng.choice(("x", "", "a" * 300, "\x1b", "name", str(key).upper()))] = node.pop(key)
        elif kind == 3 and isinstance(node, list):
            node[key:key] = [node[key]] * rng.choice((1, 2, 30))
        else:
            node[key] = deepcopy(rng.choice(HOSTILE))
    return rng.choice(HOSTILE) if rng.random() < 0.01 else document


def _places(node: Any) -> list[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in _places(node[key])]


def short_tables(folder: Path) -> None:
    """Cut the data files of a case to its simulated rows."""
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    schema["simulation_end_time_step"] = ROWS - 1
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    for path in folder.glob("*.csv"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[: ROWS + 1]), encoding="utf-8")


class Readers:
    """Targets by name, and what they need on the disk.

    Args:
        work: an empty folder.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.case = work / "case"
        build_case("iquitos-38", 0, self.case, {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
        short_tables(self.case)
        self.site = read_site(self.case)
        self.env = DistrictSite([self.site], 1)
        self.task = SiteTask([self.site])
        self.agent = PPO(self.env, PPOConfig(hidden=(4,), horizon=2, batch_size=2), seed=0)
        self.agent.save(work / "run" / "policy")
        self.observation = np.zeros(self.task.obs_dim, dtype=np.float32)
        self.state = {"ring": torch.zeros(2_200_000), "rng": {"state": 10**30}, "opt": {0: [torch.ones(2), 1.5, None]}}
        Checkpoints(work / "checkpoints", 0.0).save(self.state, 5, {"train_s": 1.0}, wait=True)
        self.reference = Reference(UNCONTROLLED, self.case, self.site.fingerprint, TaskSettings())
        self.store = store_of(self.reference, work / "cache")
        self.store.mkdir(parents=True)
        (self.store / "timeseries.csv").write_text("step\n0\n", encoding="utf-8")

    def seeds(self) -> dict[str, list[bytes]]:
        """Valid files of each reader."""
        rule = default_settings("strongest", fit_profiles([self.site])).to_json()
        figures = {"bill": 2.0, "co2_kg": 1.0, "import_kwh": 3.0, "energy_cost": 1.0, "demand_cost": 1.0, "hours": 29.0}
        result = Result(figures, timing={"train_s": 1.0})
        judged = {"judged": Judged(figures, 0.0, 1.0, figures)._asdict(), "files": self._sums()}
        objective = Objective(read_tariff(self.case), TaskSettings().objective)
        references = {UNCONTROLLED: Judged(figures, 0.0, 1.0, figures)}
        summary = make_summary("case", True, objective, references, {"ppo": result}, ["w"], torch.device("cpu"))
        summary |= {"settings": {"ppo": {"task": {}}}, "machine": {"cores": 2}, "left_out": {"mpc": "why"}}
        settings = load_settings(["ppo"]).dump()
        run = {"algorithm": "ppo", "created": "2026-01-01T00:00:00+00:00", "threads": 1, "settings": settings}
        manifest = json.loads((self.work / "checkpoints" / "a" / MANIFEST).read_text(encoding="utf-8"))["body"]
        policy = json.loads((self.work / "run" / "policy" / "policy.json").read_text(encoding="utf-8"))
        documents = {
            "schema": json.loads((self.case / "schema.json").read_text(encoding="utf-8")),
            "tariff": json.loads((self.case / "tariff.json").read_text(encoding="utf-8")),
            "record": json.loads((self.case / "case.json").read_text(encoding="utf-8")),
            "upgrade": self._old_schema(),
            "policy": policy,
            "manifest": manifest,
            "rule": rule,
            "judged": judged,
            "summary": summary,
            "run": run,
            "writers": {"wandb": "a1b2", "trackio": "run"},
            "result": {"steps": 0, "result": result._asdict()},
            "settings": settings["ppo"],
        }
        found = {name: [json.dumps(document).encode()] for name, document in documents.items()}
        return found | {
            "settings": [*found["settings"], b"seed: 3\nagent:\n  hidden: [8, 8]\ntask: {objective: {preset: co2}}\n"],
            "assignment": [b"seed=3", b"task.objective.preset=co2", b"case_settings={pv: {model: pvwatts}}"],
            "building": [(self.case / "Building_1.csv").read_bytes()],
            "charger": [(self.case / "moto_001.csv").read_bytes()],
            "weather": [(self.case / "weather.csv").read_bytes()],
            "weights": [(self.work / "run" / "policy" / "policy.safetensors").read_bytes()],
            "metrics": [b"step,loss,return\n1,0.5,\n2,0.25,-3\n"],
            "machine": [b"wm_start_time_step,wm_end_time_step,load_profile\n0,3,[1.0 2]\n,,-1\n"],
        }

    def _old_schema(self) -> dict[str, Any]:
        schema = json.loads((self.case / "schema.json").read_text(encoding="utf-8"))
        schema["simulation_end_timestep"] = schema.pop("simulation_end_time_step")
        return schema

    def _sums(self) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.store.glob("*.csv")}

    # --- each reads bytes as the command would

    def targets(self) -> dict[str, Target]:
        """By name."""
        return {name: getattr(self, f"read_{name}") for name in self.seeds()}

    def _in_case(self, name: str, data: bytes, read: Callable[[], object]) -> None:
        path = self.case / name
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            read()
        finally:
            path.write_bytes(before)

    def _whole_case(self) -> None:
        report = check_case(self.case)
        if not report.errors:
            site = read_site(self.case)
            if not site.unsupported and site.rows <= 10 * ROWS:
                DistrictSite([site], 1).reset(0)

    def read_schema(self, data: bytes) -> None:
        self._in_case("schema.json", data, self._whole_case)

    def read_tariff(self, data: bytes) -> None:
        self._in_case("tariff.json", data, lambda: (check_case(self.case), read_tariff(self.case)))

    def read_record(self, data: bytes) -> None:
        self._in_case("case.json", data, self._whole_case)

    def read_building(self, data: bytes) -> None:
        self._in_case("Building_1.csv", data, self._whole_case)

    def read_charger(self, data: bytes) -> None:
        self._in_case("moto_001.csv", data, self._whole_case)

    def read_weather(self, data: bytes) -> None:
        self._in_case("weather.csv", data, self._whole_case)

    def read_upgrade(self, data: bytes) -> None:
        with TemporaryDirectory() as folder:
            self._in_case("schema.json", data, lambda: upgrade(self.case, Path(folder) / "new"))

    def read_machine(self, data: bytes) -> None:
        (self.work / "machine.csv").write_bytes(data)
        read_cycles(self.work / "machine.csv")

    def _policy(self, description: bytes, weights: bytes) -> None:
        folder = self.work / "changed"
        folder.mkdir(exist_ok=True)
        (folder / "policy.json").write_bytes(description)
        (folder / "policy.safetensors").write_bytes(weights)
        agent, settings = load_site_agent("ppo", folder)
        task = SiteTask([self.site], settings, agent.spec.environment)
        action = controller(agent, task)(self.observation)
        assert action.shape == (task.action_dim,)

    def read_policy(self, data: bytes) -> None:
        self._policy(data, (self.work / "run" / "policy" / "policy.safetensors").read_bytes())

    def read_weights(self, data: bytes) -> None:
        document = json.loads((self.work / "run" / "policy" / "policy.json").read_text(encoding="utf-8"))
        document["tensors_sha256"] = hashlib.sha256(data).hexdigest()
        self._policy(json.dumps(document).encode(), data)

    def read_manifest(self, data: bytes) -> None:
        try:
            body = json.loads(data)
            text = json.dumps({"sha256": digest(body), "body": body}).encode()
        except (ValueError, RecursionError):
            text = data
        (self.work / "checkpoints" / "a" / MANIFEST).write_bytes(text)
        Checkpoints(self.work / "checkpoints", 0.0, lambda text: None).load(self.state)

    def read_rule(self, data: bytes) -> None:
        from iquitos_rl.judging.references import _stored_learned

        (self.work / "rule.json").write_bytes(data)
        rule = _stored_learned(self.work / "rule.json", lambda found: RuleSettings.from_json(found, 1))
        assert rule is None or isinstance(rule, RuleSettings)

    def read_judged(self, data: bytes) -> None:
        (self.store / "judged.json").write_bytes(data)
        found = stored(self.reference, self.work / "cache")
        assert found is None or found.figures["bill"] == found.figures["bill"]

    def read_summary(self, data: bytes) -> None:
        folder = self.work / "finished"
        folder.mkdir(exist_ok=True)
        (folder / "simulation_summary.json").write_bytes(data)
        has_failures(folder)
        with patch.object(markup, "save", lambda draw, folder, name: "<svg></svg>"):
            write_report(folder)

    def read_run(self, data: bytes) -> None:
        (self.work / "run" / "run.json").write_bytes(data)
        read_run(self.work / "run")

    def read_writers(self, data: bytes) -> None:
        from iquitos_rl.writers.several import FILE, _known

        (self.work / FILE).write_bytes(data)
        assert all(isinstance(name, str) for name in _known(self.work / FILE).values())

    def read_result(self, data: bytes) -> None:
        folder = self.work / "evaluated"
        (folder / RESULT).parent.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).write_bytes(data)
        training: Any = argparse.Namespace(agent=argparse.Namespace(steps=0), total=0)
        _stored_result(folder, training)

    def read_settings(self, data: bytes) -> None:
        (self.work / "settings.yaml").write_bytes(data)
        load_settings(["ppo"], self.work / "settings.yaml").dump()

    def read_assignment(self, data: bytes) -> None:
        validate(RunSettings, parse_assignments([data.decode("utf-8", "surrogateescape")]), "")

    def read_metrics(self, data: bytes) -> None:
        (self.work / "metrics.csv").write_bytes(data)
        read_metrics(self.work / "metrics.csv")


def outcome(target: Target, data: bytes) -> str:
    """Accepted or refused; anything else is raised with the input."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            target(data)
        assert "Traceback" not in said.getvalue()
    except UserError:
        return "refused"
    except Exception as error:
        error.add_note(f"input: {data[:4000]!r}") if hasattr(error, "add_note") else None
        raise
    return "accepted"


def changed(data: bytes, rng: random.Random) -> bytes:
    """A file with values changed where it is JSON, else with bytes changed."""
    if data[:1] == b"{" and rng.random() < 0.75:
        return json.dumps(change_values(json.loads(data), rng)).encode()
    return change_bytes(data, rng)


def fuzz_readers(work: Path, cases: int, seed: int = 0, only: str | None = None) -> dict[str, Counter[str]]:
    """So many changed inputs for each reader; counts of what became of them."""
    readers = Readers(work)
    seeds, counts = readers.seeds(), {}
    for name, target in readers.targets().items():
        if only not in (None, name):
            continue
        rng = random.Random(f"{seed} {name}")
        kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
        for data in seeds[name]:
            assert outcome(target, data) == "accepted", name
        found: Counter[str] = Counter(outcome(target, data) for data in kept)
        found.update(outcome(target, changed(rng.choice([*seeds[name], *kept]), rng)) for _ in range(cases))
        counts[name] = found
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader")
    parser.add_argument("--seconds", type=int, default=1800)
    arguments = parser.parse_args()
    import atheris

    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        readers = Readers(Path(temporary) / "work")
        target, seeds = readers.targets()[arguments.reader], readers.seeds()[arguments.reader]
        inputs = Path(temporary) / "inputs"
        inputs.mkdir()
        for n, data in enumerate([*seeds, *(path.read_bytes() for path in (CORPUS / arguments.reader).glob("*"))]):
            (inputs / str(n)).write_bytes(data)
        atheris.instrument_all()
        words = [sys.argv[0], str(inputs), f"-max_total_time={arguments.seconds}", "-rss_limit_mb=4096", "-timeout=60"]
        atheris.Setup(words, lambda data: outcome(target, data))
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
