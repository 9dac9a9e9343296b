"""What every command shares: parsing, one sentence for a mistake, an exit status, output that any console can show.

Commands are functions with typed arguments, parsed by cyclopts. It was compared with tyro and pydantic-settings. It
raises a mistake as an exception with one sentence, which names the near flag, and imports a subcommand only when it is
called, which keeps torch out of `--help`. Tyro prints a mistake as a box of several lines and exits. Pydantic-settings
splits `--set agent.hidden=[8,8]` at the comma, names no near flag, puts exclusive options under a prefix and takes more
than twice as long to import. Cyclopts is typed, released often, and needs attrs, rich and docstring-parser.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.help import DefaultFormatter, PanelSpec
from rich.box import MINIMAL

from iquitos_rl.errors import Failure, UserError
from iquitos_rl.machine.interrupt import Interrupted

Words = Annotated[tuple[str, ...], Parameter(parse=False)]
"""A command's parameter of this type is given the words after the command's name."""


def _shown(default: Any) -> Any:
    """A default as help shows it; None for one that says nothing."""
    return None if default == () or default is False else default


def make_app(name: str, command: Callable[..., int] | None = None, help: str | None = None) -> App:
    """The parser of a command, or of several."""
    app = App(
        name=name,
        help=help,
        help_format="plaintext",
        help_formatter=DefaultFormatter(panel_spec=PanelSpec(box=MINIMAL, padding=(0, 0))),
        version_flags=[],
        default_parameter=Parameter(allow_repeating=True, negative=(), show_default=_shown),
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
    words = _with_empty_resume(sys.argv[1:] if argv is None else argv)

    def body() -> int:
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


def _with_empty_resume(words: Sequence[str]) -> list[str]:
    """`--resume` may stand without a folder, which no parser tells from one that is followed by an argument."""
    following = [*words[1:], "-"]
    return [
        "--resume=" if word == "--resume" and after.startswith("-") else word for word, after in zip(words, following)
    ]


def run_command(body: Callable[[], int]) -> int:
    """Run a command's body and turn what it raises into an exit status.

    0 success, 1 an audit failed or a simulator died, 2 the user's input is at fault, 130 or 143 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a cp1252 console must not end a run of hours
    try:
        return body()
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except Failure as error:
        print(f"{error.prefix}: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def one_line(text: str) -> str:
    """The text with whatever is not printable, such as line ends and control characters in a user's input, escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
