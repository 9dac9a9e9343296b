"""What commands share: parsing, one sentence for a mistake, an exit status, output that any console can show.

Commands are functions with typed arguments, parsed by cyclopts. It was compared with tyro and pydantic-settings: it
raises a mistake as an exception with one sentence, which names the near flag, and imports a subcommand only when it is
called, which keeps torch out of `--help`. Tyro prints a box of several lines and exits; pydantic-settings splits
`--set agent.hidden=[8,8]` at the comma, names no near flag and takes more than twice as long to import.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.help import DefaultFormatter, PanelSpec
from rich.box import MINIMAL

from iquitos_rl.errors import Failure, UserError
from iquitos_rl.machine import console, unexpected
from iquitos_rl.machine.command import command as shown
from iquitos_rl.machine.inputs import is_text
from iquitos_rl.machine.interrupt import Interrupted, Interrupts
from iquitos_rl.machine.launched import launched

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


def loading() -> None:
    """Say what the next seconds go into; called when all that can be wrong with the words has been checked."""
    if sys.modules.get("torch") is None:
        print("loading PyTorch and CityLearn", flush=True)


def entry(module: str, command: Callable[..., int]) -> Callable[..., int]:
    """The `main` of a command's module: takes the words, sys.argv's by default, and returns the exit status."""

    def main(argv: Sequence[str] | None = None) -> int:
        return run_app(make_app(f"python -m iquitos_rl.{module}", command), argv)

    return main


def run_app(app: App, argv: Sequence[str] | None = None) -> int:
    """Parse the words, sys.argv's by default, and run the command that they name; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = app.name[0].removeprefix("iquitos-rl").removeprefix("python -m iquitos_rl.")
    again = f"stopped; to start it again: {shown(*name.split(), *words)}"
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
        if launched() > 1:
            raise UserError("torchrun starts programs that train an agent in Python, and no command: docs/cluster.md")
        own: dict[str, Any] = {name: tuple(app.parse_commands(words)[2]) for name in unparsed}
        status = command(*bound.args, **bound.kwargs, **own)
        if status is None:  # help was printed; without the word for it, a command is missing
            return 0 if {"--help", "-h"} & set(words) else 2
        return int(status)

    return run_command(stoppable(body, again))


def stoppable(body: Callable[[], int], message: str) -> Callable[[], int]:
    """A command's body that Ctrl-C and SIGTERM stop where it is, with this message. Commands that save what they have
    done have `Interrupts` of their own inside."""

    def run() -> int:
        with Interrupts() as interrupts:
            interrupts.message = message
            try:
                with interrupts.at_once():
                    return body()
            except Exception:
                interrupts.check()  # a library took the interruption for an error
                raise

    return run


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
