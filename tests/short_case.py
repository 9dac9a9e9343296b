"""Cases cut short."""

import json
from pathlib import Path


def shorten(folder: Path, rows: int, first: int = 0) -> Path:
    """Let a schema simulate only `rows` rows of its data."""
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["simulation_start_time_step"], schema["simulation_end_time_step"] = first, first + rows - 1
    path.write_text(json.dumps(schema), encoding="utf-8")
    return folder
