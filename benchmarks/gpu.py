"""Everything that can only be checked on a GPU, in one call: `PYTHONPATH=. python benchmarks/gpu.py --output FOLDER`.

The tests marked `gpu`, then the tables of a GPU, in files of their own (`..._gpu.md`): memory of training under caps
(`vram.py`), speed of the district engine (`speed.py`), of the learners (`speed_learner.py`) and of training end to end
(`end_to_end.py`, only with a peer). Goes on after a failure; the exit status is 1 where anything failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from iquitos_rl.cli import run_command
from iquitos_rl.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CAPS = ("8GiB", "4GiB", "2GiB", "1GiB")


def commands(output: Path, peer_python: str | None) -> list[list[str]]:
    """What is run, one after the other, each by this interpreter."""
    peer = [] if peer_python is None else ["--peer-python", peer_python]
    beside = [] if peer_python is None else ["--sb3", peer_python]
    learner = ["benchmarks/speed_learner.py", "--device", "cuda", "--output", str(output), *beside]
    caps = [word for cap in CAPS for word in ("--cap", cap)]
    return [
        ["-m", "pytest", "-m", "gpu", "-v"],
        ["benchmarks/vram.py", "--device", "cuda", "--output", str(output), *peer, *caps],
        ["benchmarks/speed.py", "engine", "--device", "cuda", "--output", str(output)],
        [*learner, "--rows", "standard"],
        [*learner, "--rows", "on-policy"],
        *([["benchmarks/end_to_end.py", "--device", "cuda", "--output", str(output), *peer]] if peer else []),
    ]


def run(arguments: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        raise UserError("PyTorch sees no CUDA device here")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    failed = []
    for command in commands(arguments.output.resolve(), arguments.peer_python):
        print("python", *command, flush=True)
        if subprocess.run([sys.executable, *command], cwd=ROOT).returncode != 0:
            failed.append(" ".join(command[:3]))
    print(f"failed: {'; '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--peer-python", help="interpreter with stable-baselines3, see vram.py")
    arguments = parser.parse_args()
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
