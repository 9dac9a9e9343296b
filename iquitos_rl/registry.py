"""Tables of named things that a user can add to: agents, controllers, engines, codecs, presets, writers.

A plugin is one module that adds its entries when it is imported. It is found by the entry point group
`iquitos_rl.plugins`, or by the environment variable `IQUITOS_RL_PLUGINS`: module names or paths of Python files,
separated by commas. Processes that a command starts inherit the variable, so they know the same names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import read_bytes, shown

T = TypeVar("T")
GROUP, VARIABLE = "iquitos_rl.plugins", "IQUITOS_RL_PLUGINS"
_loaded: set[str] = set()


class Registry(Mapping[str, T], Generic[T]):
    """Entries of one kind by name, in the order in which they were added.

    Built-in entries are imported when they are first asked for: `--help` can list their names without importing torch.

    Args:
        kind: what an entry is, for messages.
        builtin: name to `module:attribute` of each entry of the package.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = dict(builtin)

    def add(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            UserError: the name is taken, or no word of letters, digits, `-`, `_` and `.`.
        """
        if name in self._entries:
            raise UserError(f"there is a {self.kind} {name!r} already")
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise UserError(f"{name!r} cannot name a {self.kind}: use letters, digits, '-', '_' and '.'")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """The entry of that name; KeyError where there is none, as in every mapping."""
        load_plugins()
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = getattr(import_module(module), attribute)
        return entry

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(list(self._entries))

    def __len__(self) -> int:
        load_plugins()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._entries

    def require(self, name: str) -> T:
        """The entry of that name.

        Raises:
            UserError: there is none.
        """
        if name not in self:
            raise UserError(f"there is no {self.kind} {name!r}; there are {', '.join(self)}")
        return self[name]

    def named(self, *more: str, only: Callable[[T], bool] | None = None) -> Any:
        """For `Annotated[str, ...]`: a pydantic field that takes the names of this table.

        Args:
            more: further words, such as "auto".
            only: which entries; by default all.
        """

        def choices() -> list[str]:  # an entry is imported only where something of it is asked for
            return [*more, *(name for name in self if only is None or only(self[name]))]

        from pydantic import AfterValidator

        return AfterValidator(Names(self.kind, choices))


@dataclass(frozen=True)
class Names:
    """Validates a field's value, which must be one of some names."""

    kind: str
    choices: Callable[[], list[str]]
    """The names; asked late, since plugins add some."""

    def __call__(self, name: str) -> str:
        """The name itself; a pydantic error where it is none of the choices."""
        if name not in (choices := self.choices()):
            from pydantic_core import PydanticCustomError

            raise PydanticCustomError("unknown_name", f"there is no such {self.kind}; there are {', '.join(choices)}")
        return name


def load_plugins() -> None:
    """Import every plugin that was not imported before.

    Raises:
        UserError: one cannot be imported.
    """
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    for name in [*_installed(), *filter(None, named)]:
        if name in _loaded:
            continue
        _loaded.add(name)  # before the import: a plugin may look names up itself
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                import_module(name)
        except Exception as error:  # whatever the code of a plugin raises
            _loaded.discard(name)
            reason = str(error) if isinstance(error, ImportError | OSError | SyntaxError | UserError) else repr(error)
            raise UserError(f"the plugin {shown(name)} cannot be imported: {reason}") from error


def plugin_source(*functions: Any) -> list[str]:
    """For the key of a stored result: digests of the files in which plugins define these functions, so that a result
    from before a change is not used again. Nothing for this package's own, whose version stands for them."""
    found = []
    for function in functions:
        while isinstance(function, partial):
            function = function.func
        module = sys.modules.get(getattr(function, "__module__", ""))
        if module is not None and not module.__name__.startswith("iquitos_rl.") and module.__file__ is not None:
            found.append(hashlib.sha256(read_bytes(module.__file__)).hexdigest())
    return found


@cache
def _installed() -> list[str]:
    from importlib.metadata import entry_points  # as long to import as all of this module's others

    return [point.value for point in entry_points(group=GROUP)]


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # so that what it defines can be pickled for other processes
    spec.loader.exec_module(module)
