"""An owner's answer to a question of the import, as the option that says it."""

from __future__ import annotations

import re
import shlex

OPTION = re.compile(r"--[a-z][a-z-]*(?: [\w.]+=)?")


def option_of(question: str, answer: str) -> list[str]:
    """The words of the command line that an answer stands for; none where the question names no option.

    An answer that begins with `--` is taken as it is. A number goes to the first setting (`--set key=`) that the
    question names, anything else to its first other option.

    Raises:
        ValueError: the quotes of an answer are not closed.
    """
    if answer.startswith("--"):
        return shlex.split(answer)
    options = OPTION.findall(question)
    settings = [option for option in options if option.startswith("--set ")]
    others = [option for option in options if not option.startswith("--set")]
    number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", answer) is not None
    chosen = (settings or others) if number else (others or settings)
    if not chosen:
        return []
    name, _, key = chosen[0].partition(" ")
    return [name, f"{key}{answer}"]
