"""A command of this package as a message shows it: it can be typed where this process was started."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import PurePath

SCRIPT = "iquitos-rl"


def command(*words: str) -> str:
    """`iquitos-rl WORDS`, or `python -m iquitos_rl WORDS` where the process was started in that way."""
    installed = PurePath(sys.argv[0]).name.removesuffix(".exe") == SCRIPT
    whole = [*([SCRIPT] if installed else ["python", "-m", "iquitos_rl"]), *words]
    return subprocess.list2cmdline(whole) if sys.platform == "win32" else shlex.join(whole)
