"""What is wrong or worth knowing about a schema folder: problems are collected, and the same remark is told once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from iquitos_rl.machine.inputs import shown

Severity = Literal["error", "warning"]
SCHEMA = "schema.json"


@dataclass(frozen=True)
class Problem:
    """One remark, and where it belongs."""

    severity: Severity
    file: str
    """Name in the folder."""
    message: str
    key: str | None = None
    """Column of a data file, or the dotted path of a block in a JSON file."""
    line: int | None = None
    """Line of a data file, counted from 1, the header's."""
    rows: int = 1
    """How many rows of the file it applies to; `line` is the first of them."""
    kind: str | None = None
    """What makes two remarks the same one; by default the message."""

    @property
    def remark(self) -> tuple[str, ...]:
        """Equal for the same remark on other files, blocks and rows."""
        column = self.key or "" if self.file != SCHEMA else ""
        return self.severity, column, self.kind or self.message

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return shown(f"{self.file}{line}: {f'{self.key}: ' if self.key else ''}{self.message}")


@dataclass
class Report:
    """Problems in the order in which they were found.

    Errors: CityLearn 3.0.2 cannot run the folder, or would compute something else than the files say. Everything else
    is a warning.
    """

    problems: list[Problem] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        severity: Severity,
        file: str,
        message: str,
        key: str | None = None,
        line: int | None = None,
        rows: int = 1,
        kind: str | None = None,
    ) -> None:
        """Record a problem, see `Problem`."""
        self.problems.append(Problem(severity, file, message, key, line, rows, kind))

    @property
    def errors(self) -> list[str]:
        """One sentence for each kind of error: an example, and how many more there are."""
        return self._sentences("error")

    @property
    def warnings(self) -> list[str]:
        """One sentence for each kind of warning."""
        return self._sentences("warning")

    def _sentences(self, severity: Severity) -> list[str]:
        groups: dict[tuple[str, ...], list[Problem]] = {}
        for problem in dict.fromkeys(self.problems):  # buildings share files: what is found twice is one problem
            if problem.severity == severity:
                groups.setdefault(problem.remark, []).append(problem)
        more = [sum(problem.rows for problem in group) - 1 for group in groups.values()]
        return [f"{group[0]}{f' (and {n} more)' if n else ''}" for group, n in zip(groups.values(), more)]
