"""`iquitos-rl size --case home --battery 0:20:5`: what a battery or PV plant of another size would earn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry

MOST_SIZES = 200


def sizes_of(text: str, option: str) -> list[float]:
    """`0:20:5` is 0, 5, 10, 15, 20; `0,5,12` are these. Raises UserError: it is neither."""
    from iquitos_rl.errors import UserError

    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not (0 <= first <= last < 1e9 and step > 0 and (last - first) / step < MOST_SIZES):
                raise ValueError
            return [first + step * k for k in range(int((last - first) / step + 1e-9) + 1)]
        values = [float(part) for part in text.split(",")]
        if not all(0 <= value < 1e9 for value in values):
            raise ValueError
    except ValueError:
        raise UserError(f"{option} {text}: sizes are FIRST:LAST:STEP, or some with commas between") from None
    return values


def size(
    *,
    case: Annotated[Path, Parameter(help="a schema folder, best of a whole year")],
    battery: Annotated[
        str, Parameter(help="kWh of the batteries, as 0:20:5 or 0,5,12 (default: that of the case)")
    ] = "",
    pv: Annotated[str, Parameter(help="kW of the PV plants (default: that of the case)")] = "",
    battery_hours: Annotated[
        float | None, Parameter(help="hours of full power in a battery (default: as the case's battery has, else 2)")
    ] = None,
    output: Annotated[Path | None, Parameter(help="folder for size.csv and size.png (default: none)")] = None,
) -> int:
    """Work out what batteries and PV of other sizes would earn: uncontrolled, with a rule, at the optimum."""
    print("loading PyTorch", flush=True)
    import itertools

    import numpy as np
    import pandas as pd

    from iquitos_rl.cases.schema.reader import read_site
    from iquitos_rl.cases.tariff import read_tariff
    from iquitos_rl.errors import UserError
    from iquitos_rl.judging.sizes import Size, Sized, size_up
    from iquitos_rl.judging.table import markdown_table, money, period
    from iquitos_rl.judging.timeseries import write_csv
    from iquitos_rl.machine.inputs import InputError, read_json
    from iquitos_rl.report.size_figure import earnings
    from iquitos_rl.report.style import save

    if battery_hours is not None and not 0 < battery_hours < 1000:
        raise UserError(f"--battery-hours must be above 0, not {battery_hours:g}")
    site, tariff = read_site(case), read_tariff(case)
    try:
        pv_kw = float(read_json(case / "case.json")["settings"]["pv"]["dc_kw"])
    except (InputError, KeyError, TypeError, ValueError):
        pv_kw = 0.0
    produced = np.sum([building.pv for building in site.buildings], axis=0)
    if not pv_kw and produced.any():
        pv_kw = round(float(produced.max()) / site.hours_per_step, 3)
        print(f"the case does not say how large its PV is: its highest power is taken for it, {pv_kw:g} kW", flush=True)
    own = next((b.battery.capacity for b in site.buildings if b.battery is not None), 0.0)
    batteries = sizes_of(battery, "--battery") if battery else [own]
    plants = sizes_of(pv, "--pv") if pv else [pv_kw if produced.any() else 0.0]
    sizes = [Size(b, p) for p, b in itertools.product(plants, batteries)]
    if len(sizes) > MOST_SIZES:
        raise UserError(f"{len(sizes)} sizes are too many: at most {MOST_SIZES}")
    span = period({"": {"hours": (site.rows - 1) * site.hours_per_step}})

    def tell(done: Sized) -> None:
        bills = f"{done.uncontrolled:,.2f} uncontrolled, {done.rule:,.2f} rule, {done.optimum:,.2f} optimum"
        print(f"battery {done.size.battery_kwh:g} kWh, PV {done.size.pv_kw:g} kW: {bills}", flush=True)

    found = size_up(site, sizes, battery_hours=battery_hours, pv_kw=pv_kw, on_size=tell)
    first, largest = found[0], max(abs(s.uncontrolled) for s in found)
    head = ["battery, kWh", "PV, kW", f"uncontrolled, {tariff.currency} {span}", "rule", "optimum", "rule earns"]
    rows = [
        [f"{s.size.battery_kwh:g}", f"{s.size.pv_kw:g}"]
        + [money(value, largest) for value in (s.uncontrolled, s.rule, s.optimum, first.rule - s.rule)]
        + [money(first.optimum - s.optimum, largest)]
        for s in found
    ]
    print(markdown_table([[*head, "optimum earns"], *rows]))
    print("Earned against the first line. The rule was tuned on these hours and ran on the district engine.")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        columns = [{**s.size._asdict(), **{k: v for k, v in s._asdict().items() if k != "size"}} for s in found]
        write_csv(output / "size.csv", pd.DataFrame(columns))
        save(lambda: earnings(found, tariff.currency, span), output, "size")
        print(f"written to {output}")
    return 0


main = entry("size", size)

if __name__ == "__main__":
    raise SystemExit(main())
