"""The report of a run: one self-contained HTML file and its figures, made only from files in the run's folder."""

from iquitos_rl.report.page import write_report

__all__ = ["write_report"]
