"""`python -m iquitos_rl.case`: build the Iquitos case, import metered files, check a schema folder, compare it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from iquitos_rl.cli import Words, loading, make_app, run_app
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
    print(f"building {preset}", flush=True)  # here as below the imports take seconds
    from iquitos_rl.assignments import parse_assignments
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


Texts = tuple[str, ...]


def import_files(
    *,
    output: Output,
    load: Annotated[
        Path | None, Parameter(help="file with the site's demand, or its net meter (default: none)")
    ] = None,
    pv: Annotated[Path | None, Parameter(help="file with PV energy and, if it has it, weather (default: none)")] = None,
    weather: Annotated[
        Path | None, Parameter(help="file with weather: EPW, TMY3, NSRDB, PVGIS or any table (default: none)")
    ] = None,
    sessions: Annotated[
        Path | None, Parameter(help="charging sessions: CSV, or JSON of ACN-Data, OCPI, OCPP (default: none)")
    ] = None,
    tariff: Annotated[
        str | None, Parameter(help="tariff.yaml, a rate of OpenEI as JSON, or mt3, bt5a, flat (default: asked for)")
    ] = None,
    carbon: Annotated[
        Path | None, Parameter(help="hourly carbon intensity of the grid (default: carbon.kg_per_kwh)")
    ] = None,
    zone: Annotated[
        str | None, Parameter(help="the site's time zone, such as Europe/Berlin (default: asked for)")
    ] = None,
    minutes: Annotated[int | None, Parameter(help="length of the case's rows (default: that of the load file)")] = None,
    load_column: Annotated[str | None, Parameter(help="column of the load file (default: found by its name)")] = None,
    pv_column: Annotated[str | None, Parameter(help="column of the PV file (default: found by its name)")] = None,
    carbon_column: Annotated[str | None, Parameter(help="column of the carbon file (default: by its unit)")] = None,
    unit: Annotated[Texts, Parameter(help="kWh, Wh, MWh, GWh, MJ, kW, W, MW or GW (default: as the file says)")] = (),
    quantity: Annotated[
        Texts, Parameter(help="interval, register, daily (a counter of the day) or net (default: as the file says)")
    ] = (),
    decimal: Annotated[Texts, Parameter(help="point or comma (default: as the file says)")] = (),
    dates: Annotated[Texts, Parameter(help="dmy, mdy or ymd (default: as the file says)")] = (),
    stamps: Annotated[
        Texts, Parameter(help="start or end: what a row's time is of its interval (default: as the file says)")
    ] = (),
    clock: Annotated[
        Texts, Parameter(help="utc, standard (no daylight saving) or daylight (default: as the file says)")
    ] = (),
    start: Annotated[Texts, Parameter(help="time of the first row, where rows have none (default: none)")] = (),
    step: Annotated[Texts, Parameter(help="minutes between such rows (default: none)")] = (),
    fill: Annotated[Texts, Parameter(help="longest gap, in hours, that is filled (default: 24)")] = (),
    charger_kw: Annotated[float | None, Parameter(help="power of each charger (default: by the sessions)")] = None,
    discharge_kw: Annotated[float, Parameter(help="power at which chargers feed back (V2G)")] = 0.0,
    vehicle_kwh: Annotated[float | None, Parameter(help="battery of each vehicle (default: by the sessions)")] = None,
    preset: Annotated[
        str | None, Parameter(help="borrow sockets, battery and tariff of iquitos-38 (default: none)")
    ] = None,
    year_seed: YearSeed = 0,
    sets: Sets = (),
    interactive: Annotated[bool, Parameter(help="ask what is missing (default: end with the question)")] = False,
    command: Words = (),
) -> int:
    """Write a case from your own files. What you do not give is not there.

    Options about a file hold for all of them, or for one: --unit load=W --unit pv=kWh.
    """
    if interactive:
        return _interview([word for word in command if word != "--interactive"])
    print("reading the files", flush=True)
    from iquitos_rl.assignments import parse_assignments
    from iquitos_rl.cases.metered.importer import Files, import_case
    from iquitos_rl.cases.metered.reading import readings
    from iquitos_rl.cases.metered.sessions import ChargerOptions
    from iquitos_rl.errors import UserError

    for name, value in (("charger-kw", charger_kw), ("vehicle-kwh", vehicle_kwh)):
        if value is not None and not 0 < value < 1e6:
            raise UserError(f"--{name} must be above 0, not {value:g}")
    if not 0 <= discharge_kw < 1e6:
        raise UserError(f"--discharge-kw must not be negative, not {discharge_kw:g}")
    said = readings(
        unit=unit,
        quantity=quantity,
        decimal=decimal,
        dates=dates,
        stamps=stamps,
        clock=clock,
        start=start,
        step=step,
        fill=fill,
    )
    chargers = ChargerOptions(charger_kw, discharge_kw, vehicle_kwh)
    said["carbon"] = replace(said["carbon"], column=carbon_column)
    files = Files(load, pv, weather, sessions, carbon, said, tariff, zone, minutes, chargers)
    changes = parse_assignments(sets)
    folder, notes = import_case(None, None, preset, year_seed, output, changes, load_column, pv_column, files)
    print("\n".join(notes))
    cases = [folder] if (folder / "case.json").is_file() else sorted(folder.iterdir())
    for case in cases:
        _print_record(case)
    return 0


def _interview(words: list[str]) -> int:
    """Import with these words, and with the answers to what is asked; ends where nothing is answered."""
    from cyclopts import CycloptsError

    from iquitos_rl.cases.metered.answers import option_of
    from iquitos_rl.errors import UserError

    while True:
        try:
            _, bound, _ = commands("case").parse_args(["import", *words], exit_on_error=False, print_error=False)
            status = import_files(*bound.args, **bound.kwargs)
            print(f"the same without questions: iquitos-rl case import {shlex.join(words)}")
            return status
        except (UserError, CycloptsError) as error:
            print(error, flush=True)
            question = error if isinstance(error, UserError) else UserError(" ".join(str(error).split()))
        try:
            answer = input("answer (or options; nothing to end): ").strip()
            more = option_of(str(question), answer) if answer else []
        except (EOFError, ValueError):
            more = []
        if not more:
            raise question
        words = [*words, *more]


def _print_record(folder: Path) -> None:
    record = read_json(folder / "case.json")
    print("\n".join(f"{name}: {value:,}" for name, value in record["figures"].items()))
    print("\n".join(f"warning: {text}" for text in record["warnings"]), end="\n" if record["warnings"] else "")
    print(f"written to {folder}")


def check(folder: Annotated[Path, Parameter(help="a CityLearn schema folder")], /) -> int:
    """Validate a CityLearn schema folder."""
    print(f"reading {folder}", flush=True)
    from iquitos_rl.cases.plausibility import check_case

    report = check_case(folder)
    print("\n".join(f"{name}: {value:,.6g}" for name, value in report.figures.items()))
    for text in report.warnings:
        print(f"warning: {text}")
    for text in report.errors:
        print(f"error: {text}", file=sys.stderr)
    verdict = f"has {_count(report.errors, 'error')}" if report.errors else "is valid"
    print(f"{folder} {verdict}, {_count(report.warnings, 'warning')}")
    return 2 if report.errors else 0


def _count(found: list[str], what: str) -> str:
    return f"{len(found)} {what}{'' if len(found) == 1 else 's'}"


def join(
    folders: Annotated[tuple[Path, ...], Parameter(help="case folders with the same rows and the same tariff")],
    /,
    *,
    output: Output,
) -> int:
    """Write several cases as one with a building, and a meter, for each."""
    from iquitos_rl.cases.schema.join import join as write

    print(f"written to {write(folders, output)}")
    return 0


def describe(
    folder: Annotated[Path, Parameter(help="a CityLearn schema folder")],
    /,
    *,
    output: Annotated[
        Path | None, Parameter(help="the page to write (default: next to the folder, with its name)")
    ] = None,
) -> int:
    """Write a page about a case, to look at before training: load, PV, tariff, weather, visits."""
    from iquitos_rl.report.describe import describe as write

    own = folder.parent if folder.name == "schema.json" else folder
    print(write(own, output or own.resolve().with_name(f"{own.resolve().name}.html")))
    return 0


def parity(
    folder: Annotated[Path, Parameter(help="a CityLearn schema folder")],
    /,
    *,
    steps: Annotated[int | None, Parameter(help="rows to simulate (default: all)")] = None,
    seed: Annotated[int, Parameter(help="draws the actions")] = 0,
) -> int:
    """Step CityLearn and the engine side by side; 1 where they differ."""
    loading()
    from iquitos_rl.errors import UserError
    from iquitos_rl.judging.twin import compare, report

    if steps is not None and steps < 1:
        raise UserError(f"--steps must be at least 1, not {steps}")
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed must be at least 0 and below {2**31}, not {seed}")
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
    print(f"reading {old}", flush=True)
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
    loading()
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
    app.command(describe)
    app.command(join)
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
