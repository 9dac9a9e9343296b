"""The report of a run: one self-contained HTML file and its figures, made from the files in the run's folder alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["write_report"]

if TYPE_CHECKING:
    from iquitos_rl.report.page import write_report


def __getattr__(name: str) -> Any:
    # `python -m iquitos_rl.report --help` does without matplotlib.
    if name in __all__:
        from iquitos_rl.report import page

        return page.write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
