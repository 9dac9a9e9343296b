"""`python -m iquitos_rl.case`: build the Iquitos case, import metered files, check a schema folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.iquitos.calibration import calibration_table, format_table
from iquitos_rl.cases.iquitos.presets import PRESETS, parse_overrides
from iquitos_rl.cases.metered.importer import import_case
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Returns 0, or 2 where the input is at fault (an error on stderr says what)."""
    for console in (sys.stdout, sys.stderr):
        if hasattr(console, "reconfigure"):
            console.reconfigure(errors="replace")  # file names may not fit a Windows code page
    arguments = _parser().parse_args(argv)
    try:
        return {"build": _build, "import": _import, "check": _check}[arguments.command](arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m iquitos_rl.case", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="write the synthetic Iquitos case as a CityLearn schema folder")
    build.add_argument("preset", choices=list(PRESETS))
    meter = commands.add_parser("import", help="write a case from metered files")
    meter.add_argument("--load", type=Path, required=True, metavar="FILE", help="CSV file with the site's demand")
    meter.add_argument("--pv", type=Path, metavar="FILE", help="CSV file with PV energy and, if it has it, weather")
    meter.add_argument("--load-column", metavar="NAME", help="column of the load file, where its name does not tell")
    meter.add_argument("--pv-column", metavar="NAME", help="column of the PV file, where its name does not tell")
    meter.add_argument("--preset", choices=list(PRESETS), default="iquitos-38", help="sockets, battery and tariff")
    for command in (build, meter):
        command.add_argument(
            "--year-seed", type=int, default=0, metavar="N", help="draws whatever is random (default 0)"
        )
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="GROUP.KEY=VALUE",
            help="override a setting, e.g. tariff.kind=flat",
        )
        command.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    check = commands.add_parser("check", help="validate a CityLearn schema folder")
    check.add_argument("folder", type=Path, metavar="DIR")
    return parser


def _build(arguments: argparse.Namespace) -> int:
    overrides = parse_overrides(arguments.set)
    folder = build_case(arguments.preset, arguments.year_seed, arguments.output, overrides)
    print(format_table(calibration_table(folder)))
    _print_record(folder)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    folder, notes = import_case(
        arguments.load,
        arguments.pv,
        arguments.preset,
        arguments.year_seed,
        arguments.output,
        parse_overrides(arguments.set),
        load_column=arguments.load_column,
        pv_column=arguments.pv_column,
    )
    print("\n".join(notes))
    _print_record(folder)
    return 0


def _print_record(folder: Path) -> None:
    record = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    print("\n".join(f"{name}: {value:,}" for name, value in record["figures"].items()))
    print("\n".join(f"warning: {text}" for text in record["warnings"]), end="\n" if record["warnings"] else "")
    print(f"written to {folder}")


def _check(arguments: argparse.Namespace) -> int:
    report = check_case(arguments.folder)
    print("\n".join(f"{name}: {value:,.6g}" for name, value in report.figures.items()))
    for text in report.warnings:
        print(f"warning: {text}")
    for text in report.errors:
        print(f"error: {text}", file=sys.stderr)
    verdict = "is valid" if not report.errors else f"has {len(report.errors)} errors"
    print(f"{arguments.folder} {verdict}, {len(report.warnings)} warnings")
    return 2 if report.errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
