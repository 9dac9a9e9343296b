"""`python -m iquitos_rl.case`: build the Iquitos case, import metered files, check a schema folder, compare it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from iquitos_rl.assignments import parse_assignments
from iquitos_rl.cli import make_app, run_app
from iquitos_rl.machine.inputs import read_json

YearSeed = Annotated[int, Parameter(help="draws whatever is random")]
Sets = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="GROUP.KEY=VALUE, any that `iquitos-rl settings --case PRESET` lists, e.g. tariff.kind=flat; may be "
        "repeated",
    ),
]
Output = Annotated[Path, Parameter(help="a new or empty folder")]


def build(
    preset: Annotated[str, Parameter(help="iquitos-38, iquitos-128")],
    /,
    *,
    output: Output,
    year_seed: YearSeed = 0,
    sets: Sets = (),
) -> int:
    """Write a year of a preset as a CityLearn schema folder."""
    from iquitos_rl.cases.iquitos.calibration import calibration_table, format_table
    from iquitos_rl.cases.iquitos.presets import IQUITOS
    from iquitos_rl.cases.presets import build_preset

    folder = build_preset(preset, year_seed, output, parse_assignments(sets))
    if preset in IQUITOS:
        print(format_table(calibration_table(folder)))
        _print_record(folder)
    else:
        print(f"written to {folder}")
    return 0


def import_files(
    *,
    load: Annotated[Path, Parameter(help="CSV file with the site's demand")],
    output: Output,
    pv: Annotated[
        Path | None, Parameter(help="CSV file with PV energy and, if it has it, weather (default: none)")
    ] = None,
    load_column: Annotated[str | None, Parameter(help="column of the load file (default: found by its name)")] = None,
    pv_column: Annotated[str | None, Parameter(help="column of the PV file (default: found by its name)")] = None,
    preset: Annotated[str, Parameter(help="sockets, battery and tariff")] = "iquitos-38",
    year_seed: YearSeed = 0,
    sets: Sets = (),
) -> int:
    """Write a case from metered files."""
    from iquitos_rl.cases.metered.importer import import_case

    folder, notes = import_case(
        load, pv, preset, year_seed, output, parse_assignments(sets), load_column=load_column, pv_column=pv_column
    )
    print("\n".join(notes))
    _print_record(folder)
    return 0


def _print_record(folder: Path) -> None:
    record = read_json(folder / "case.json")
    print("\n".join(f"{name}: {value:,}" for name, value in record["figures"].items()))
    print("\n".join(f"warning: {text}" for text in record["warnings"]), end="\n" if record["warnings"] else "")
    print(f"written to {folder}")


def check(folder: Annotated[Path, Parameter(help="a CityLearn schema folder")], /) -> int:
    """Validate a CityLearn schema folder."""
    from iquitos_rl.cases.plausibility import check_case

    report = check_case(folder)
    print("\n".join(f"{name}: {value:,.6g}" for name, value in report.figures.items()))
    for text in report.warnings:
        print(f"warning: {text}")
    for text in report.errors:
        print(f"error: {text}", file=sys.stderr)
    verdict = "is valid" if not report.errors else f"has {len(report.errors)} errors"
    print(f"{folder} {verdict}, {len(report.warnings)} warnings")
    return 2 if report.errors else 0


def parity(
    folder: Annotated[Path, Parameter(help="a CityLearn schema folder")],
    /,
    *,
    steps: Annotated[int | None, Parameter(help="rows to simulate (default: all)")] = None,
    seed: Annotated[int, Parameter(help="draws the actions")] = 0,
) -> int:
    """Step CityLearn and the engine side by side; 1 where they differ."""
    from iquitos_rl.errors import UserError
    from iquitos_rl.judging.twin import compare, report

    if steps is not None and steps < 1:
        raise UserError(f"--steps must be at least 1, not {steps}")
    found = compare(folder, steps, seed)
    print("\n".join(report(found)))
    failures = found.failures()
    for text in failures:
        print(f"differs: {text}", file=sys.stderr)
    print(f"{folder}: {'not equal' if failures else 'equal'} within the bars")
    return 1 if failures else 0


def upgrade(
    old: Annotated[Path, Parameter(help="a schema folder of CityLearn 1 or 2")],
    /,
    *,
    output: Output,
) -> int:
    """Write a folder of an older CityLearn in the form of CityLearn 3."""
    from iquitos_rl.cases.schema.reader import read_folder
    from iquitos_rl.cases.schema.upgrade import upgrade as convert

    print("\n".join(convert(old, output)))
    errors = read_folder(output).report.errors
    for text in errors:
        print(f"error: {text}", file=sys.stderr)
    print(f"written to {output}{', which still has errors' if errors else ''}")
    return 2 if errors else 0


def freeze(
    folder: Annotated[Path, Parameter(help="a CityLearn schema folder")],
    /,
    *,
    output: Output,
    trust_pickles: Annotated[
        bool, Parameter(help="open the pickles of the occupants' trees, which run whatever their author put into them")
    ] = False,
) -> int:
    """Write a folder with every size and parameter that CityLearn would draw or compute as a number."""
    from iquitos_rl.cases.schema.freeze import freeze as write
    from iquitos_rl.cases.schema.freeze import occupied
    from iquitos_rl.envs.citylearn.sizes import citylearn_sizes
    from iquitos_rl.envs.citylearn.trees import exported_trees
    from iquitos_rl.errors import UserError

    if (buildings := occupied(folder)) and not trust_pickles:
        raise UserError(
            f"{folder}: the trees of {buildings[0]}'s occupant are pickles, which run whatever their author put into "
            "them; add --trust-pickles if you trust this folder"
        )
    trees = exported_trees(folder)
    count = write(folder, output, citylearn_sizes(folder), trees)
    if trees:
        print(f"{2 * len(trees)} pickles opened, their trees written down as numbers")
    print(f"{count} devices frozen, written to {output}")
    return 0


def commands(name: str) -> App:
    """The parser of the subcommands."""
    app = make_app(
        name, help="Build the Iquitos case, import metered files, check a schema folder, compare it with CityLearn."
    )
    app.command(build)
    app.command(import_files, name="import")
    app.command(check)
    app.command(parity)
    app.command(upgrade)
    app.command(freeze)
    return app


APP = commands("case")
"""For `iquitos-rl case`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    return run_app(commands("python -m iquitos_rl.case"), argv)


if __name__ == "__main__":
    raise SystemExit(main())
