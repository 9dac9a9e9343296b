"""What commands share: options, parsing, one sentence for a mistake, an exit status, output that any console can show.

Commands are functions with typed arguments, parsed by cyclopts. It was compared with tyro and pydantic-settings: it
raises a mistake as an exception with one sentence, which names the near flag, and imports a subcommand only when it is
called, which keeps torch out of `--help`. Tyro prints a box of several lines and exits; pydantic-settings splits
`--set agent.hidden=[8,8]` at the comma, names no near flag and takes more than twice as long to import.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter, Token, UnusedCliTokensError
from cyclopts.help import DefaultFormatter, PanelSpec
from cyclopts.validators import mutually_exclusive
from rich.box import MINIMAL

from iquitos_rl.assignments import read_value
from iquitos_rl.config import RunSettings
from iquitos_rl.errors import Failure, UserError
from iquitos_rl.machine import console, unexpected
from iquitos_rl.machine.inputs import is_text
from iquitos_rl.machine.interrupt import Interrupted

Words = Annotated[tuple[str, ...], Parameter(parse=False)]
"""A command's parameter of this type is given the words after the command's name."""


def make_app(name: str, command: Callable[..., int] | None = None, help: str | None = None) -> App:
    """The parser of a command, or of several."""

    def shown(default: Any) -> Any:  # None for a default that says nothing
        return None if default == () or default is False else default

    app = App(
        name=name,
        help=help,
        help_format="plaintext",
        help_formatter=DefaultFormatter(panel_spec=PanelSpec(box=MINIMAL, padding=(0, 0))),
        version_flags=[],
        default_parameter=Parameter(allow_repeating=True, negative=(), show_default=shown),
    )
    if command is not None:
        app.default(command)
    return app


def entry(module: str, command: Callable[..., int]) -> Callable[..., int]:
    """The `main` of a command's module: takes the words, sys.argv's by default, and returns the exit status."""

    def main(argv: Sequence[str] | None = None) -> int:
        return run_app(make_app(f"python -m iquitos_rl.{module}", command), argv)

    return main


def run_app(app: App, argv: Sequence[str] | None = None) -> int:
    """Parse the words, sys.argv's by default, and run the command that they name; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--traceback" in words:
        words = [word for word in words if word != "--traceback"]
        os.environ[unexpected.SHOW] = "1"
    for n, after in enumerate([*words[1:], "-"]):
        if words[n : n + 1] == ["--resume"] and after.startswith("-"):
            words[n] = "--resume="  # it may stand without a folder, which no parser tells from one with an argument

    def body() -> int:
        for word in words:
            if not is_text(word):
                raise UserError(f"{ascii(word)[:200]} is no text in UTF-8, so it can be written to no file")
        try:
            command, bound, unparsed = app.parse_args(words, exit_on_error=False, print_error=False)
        except UnusedCliTokensError as error:
            raise UserError(f"unexpected argument: {' '.join(error.unused_tokens or [])}") from None
        except CycloptsError as error:
            sentence = " ".join(str(error).split()).removesuffix(".")
            raise UserError(sentence[:1].lower() + sentence[1:]) from None
        own: dict[str, Any] = {name: tuple(app.parse_commands(words)[2]) for name in unparsed}
        status = command(*bound.args, **bound.kwargs, **own)
        if status is None:  # help was printed; without the word for it, a command is missing
            return 0 if {"--help", "-h"} & set(words) else 2
        return int(status)

    return run_command(body)


def run_command(body: Callable[[], int]) -> int:
    """Run a command's body and turn what it raises into an exit status.

    0 success, 1 an audit failed or a simulator died, 2 the user's input, the disk or the memory is at fault, 70 this
    program is, 130 or 143 interrupted. Whether the console could be written to changes nothing.
    """
    with console.guarded(), unexpected.in_background():
        try:
            return body()
        except Interrupted as error:
            print(error, file=sys.stderr)
            return error.status
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            status, sentence = explained(error)
            print(sentence, file=sys.stderr)
            if os.environ.get(unexpected.SHOW) and status != unexpected.STATUS:
                traceback.print_exception(error)
                print(getattr(error, "details", ""), file=sys.stderr)
            return status


DISK = (
    *(errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE),
    *(errno.ENOMEM, errno.ENAMETOOLONG, errno.ELOOP, getattr(errno, "EDQUOT", errno.ENOSPC)),
)
"""What an operation on a file fails with for reasons that are not this program's."""


def explained(error: Exception) -> tuple[int, str]:
    """Exit status and sentence for an error that ended a command."""
    if isinstance(error, UserError):
        return 2, f"error: {one_line(str(error))}"
    if isinstance(error, Failure):
        return 1, f"{error.prefix}: {one_line(str(error))}"
    if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK):
        place = "" if error.filename is None else f"{error.filename}: "
        return 2, f"error: {one_line(f'{place}{error.strerror or error}')}"
    if is_out_of_memory(error):
        reason = one_line(str(error))[:200] or "in Python"
        return 2, f"error: memory ran out ({reason}): `iquitos-rl plan` says what fits"
    return unexpected.STATUS, unexpected.sentence(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, PyTorch's allocator of RAM, or that of a GPU had no more memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def one_line(text: str) -> str:
    """A sentence without line ends and other characters that a console would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _setting(name: str, default: str | None = None) -> Parameter:
    """An option that sets a run setting; None, what it is without the option, leaves it to the layers of settings."""
    field = RunSettings.model_fields[name]
    return Parameter(help=f"{field.description} (default: {field.default if default is None else default})")


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """A whole number as `--set` reads it, and `20k` or `1.5M`: `1e5` is one."""
    text = tokens[-1].value
    number = text.rstrip("kM")
    value = read_value(number)
    if number != text and isinstance(value, (int, float)):
        value *= {"k": 1e3, "M": 1e6}.get(text.removeprefix(number), math.nan)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is not int:
        raise ValueError(f"{text} is not a whole number")
    return value


_WHOLE = Parameter(converter=_whole)
_BUDGET = Group("Budget, one of", validator=mutually_exclusive)
OF_AGENT = "the agent's, see `iquitos-rl settings AGENT`"

Case = Annotated[str | None, _setting("case")]
Cases = Annotated[
    tuple[str, ...],
    Parameter(
        name="--case",
        help=f"{RunSettings.model_fields['case'].description}; several folders for several years of one site "
        f"(default: {RunSettings().case})",
    ),
]
EvalCase = Annotated[str | None, _setting("eval_case", "a preset's unseen year, else the case itself")]
Config = Annotated[Path | None, Parameter(help="YAML file of settings (default: none)")]
Sets = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="KEY=VALUE, any setting that `iquitos-rl settings AGENT` lists, e.g. agent.gamma=0.98; may be repeated",
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, _setting("device")]
Engine = Annotated[str | None, _setting("engine")]
NumEnvs = Annotated[int | None, _WHOLE, _setting("num_envs", OF_AGENT)]
Seed = Annotated[int | None, _WHOLE, _setting("seed")]
Episodes = Annotated[int | None, _WHOLE, Parameter(group=_BUDGET), _setting("episodes", OF_AGENT)]
Steps = Annotated[int | None, _WHOLE, Parameter(group=_BUDGET), _setting("steps", OF_AGENT)]
