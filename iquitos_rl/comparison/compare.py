"""A comparison from its request to its tables."""

from __future__ import annotations

import time

from iquitos_rl.comparison.plan import ComparisonRequest, open_comparison, plan
from iquitos_rl.comparison.runner import Runner, reference_records
from iquitos_rl.comparison.summary import copy_median_hours, summarise
from iquitos_rl.judging.references import copy_hours, kept
from iquitos_rl.judging.standings import as_csv, co2_markdown, markdown, standings
from iquitos_rl.machine.device import choose_threads
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.report.page import write_report
from iquitos_rl.runs.folder import SUMMARY, lock_output


def compare(request: ComparisonRequest) -> int:
    """Carry the comparison out and write its tables; returns the exit status: 1 where a training failed.

    Raises:
        UserError: the input is at fault.
        Failure: a process died, or a simulated year contradicts itself.
        Interrupted: the user asked to stop; the same request resumes the comparison.
    """
    started = time.perf_counter()
    with Interrupts("finishing the step and saving") as interrupts:
        comparison = plan(request)
        open_comparison(comparison)
        choose_threads(1)
        with lock_output(comparison.output):
            runner = Runner(comparison, request.jobs, interrupts, request.command)
            references = runner.references()
            records = reference_records(comparison, references)
            records += runner.judgements(runner.trainings())
            for name in kept():
                if name in references:
                    copy_hours(references[name][0], comparison.cache, comparison.output)
            chosen = copy_median_hours(comparison, records)
            summary = {
                **summarise(comparison, records, standings(records), runner),
                "hours_of_seed": chosen,
                "command": request.command,
                "jobs": request.jobs,
                "wall_s": round(time.perf_counter() - started, 1),
            }
            write_json(comparison.output / SUMMARY, summary)
            text = markdown(summary)
            write_text(comparison.output / "comparison.md", text)
            write_text(comparison.output / "comparison.csv", as_csv(records))
            write_text(comparison.output / "co2_comparison.md", co2_markdown(summary))
            page = write_report(comparison.output)
            print(f"{text}\nresults in {comparison.output}, to read: {page}", flush=True)
            return 1 if runner.failed else 0
