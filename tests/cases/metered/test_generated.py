"""Files of every kind come back to the energy that was written, or ask; `benchmarks/import_files.py` tries 2,000."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import import_files


def test_files_of_every_kind_are_read_right_or_asked_about() -> None:
    found: Counter[str] = Counter()
    import_files.run(200, lambda kind, result: found.update([result]))
    assert found["right"] > 50  # without a question
