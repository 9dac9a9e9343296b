"""Checkpoints that were damaged or crafted: noticed, the one before used, and never any code of theirs executed."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fault_inputs import fuzz, values
from hypothesis import strategies as st

from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.checkpoints.slot import MANIFEST
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import digest


class Bomb:
    """Unpickling this would raise the count."""

    executed = 0

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    Bomb.executed += 1


def damages(rng: random.Random) -> dict[str, Callable[[Path], None]]:
    """Ways to spoil a file."""

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
    return {
        "checkpoints damaged": count,
        "noticed, told, and the one before used": counts.total(),
        **{f"of these {kind}": n for kind, n in counts.items()},
        "code executed": Bomb.executed,
    }


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
            "dtype": st.sampled_from(["float32", "float64", "Tensor"]) | values,
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
