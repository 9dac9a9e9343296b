"""Builds a case from an owner's files: load, PV, weather, charging sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from iquitos_rl.cases.iquitos.presets import TARIFFS, CaseSettings, Overrides, with_changes
from iquitos_rl.cases.metered.own_case import write_own_case
from iquitos_rl.cases.metered.own_files import Files as Files
from iquitos_rl.cases.metered.own_files import gather, zone_of
from iquitos_rl.cases.metered.own_rows import put_on_step, shared_period
from iquitos_rl.cases.metered.own_site import own_settings, require_tariff
from iquitos_rl.cases.metered.period import days, years
from iquitos_rl.cases.metered.tariff_file import read_tariff_file
from iquitos_rl.cases.metered.zone import fixed_zone, named_zone
from iquitos_rl.errors import UserError


def import_case(
    load_file: Path | None,
    pv_file: Path | None,
    preset: str | None,
    year_seed: int,
    output: Path,
    settings: Overrides = None,
    load_column: str | None = None,
    pv_column: str | None = None,
    files: Files | None = None,
) -> tuple[Path, list[str]]:
    """Write a case folder from an owner's files; one folder a year below `output` where they cover several.

    Args:
        preset: brings sockets, battery and tariff; without one the site has what the owner gives, and no more.
        files: everything else that the owner has or says; its load and PV file are those above where given.

    Returns:
        The folder, and one sentence for each assumption made.

    Raises:
        UserError: a file that is broken, with file and line; a question that only the owner can answer, with the option
            that answers it; a bad setting; an output that is not empty.
    """
    files = files or Files()
    files = replace(files, load=load_file or files.load, pv=pv_file or files.pv)
    columns = {"load": load_column, "pv": pv_column}
    named = {role: replace(files.reading(role), column=name) for role, name in columns.items() if name is not None}
    files = replace(files, readings={**files.readings, **named})
    notes: list[str] = []
    resolved, given = own_settings(preset, settings, notes)
    if files.pv is None and resolved.pv.model == "metered":
        raise UserError("setting pv.model: 'metered' needs --pv FILE")
    if year_seed < 0:
        raise UserError(f"year seed {year_seed}: must not be negative")
    if files.load is None and files.sessions is None:
        raise UserError("there is nothing to import: give --load FILE, or --sessions FILE")
    zone = named_zone(files.zone) if files.zone else None
    if zone is None and "site.utc_offset" in given:
        zone = fixed_zone(resolved.site.utc_offset)
    chosen = isinstance(settings, CaseSettings) or "pv.model" in (settings or {})
    chosen = chosen and resolved.pv.model != "metered"
    site = gather(files, zone, notes)
    tariff = None
    if files.tariff is None:
        require_tariff(given)
    elif files.tariff in TARIFFS:
        resolved = with_changes(resolved, {"tariff.kind": files.tariff})
    else:
        tariff = read_tariff_file(Path(files.tariff), notes)
        flat = resolved.tariff.model_copy(update={"kind": "flat", "currency": tariff.currency})
        resolved = resolved.model_copy(update={"tariff": flat})
    step = put_on_step(site, files, notes)
    period = shared_period(site, files, step, notes)
    parts = years(period, zone_of(site))
    folder = Path(output)
    if len(parts) > 1:
        notes.append(f"{days(period):,} days: one case for each of {len(parts)} years, in folders below {output}")
    for part in parts:
        name = str(zone_of(site).local(np.array([part.first]))[0])[:4]
        own = folder / name if len(parts) > 1 else folder
        own_notes = list(notes) if len(parts) > 1 else notes
        write_own_case(own, preset, year_seed, resolved, given, chosen, site, part, step, files, own_notes, tariff)
        notes.extend(note for note in own_notes if note not in notes)
    return folder, notes
