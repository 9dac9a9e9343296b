"""Which column of a table holds what, by its name."""

from __future__ import annotations

import re
from collections.abc import Callable

from iquitos_rl.cases.metered.numerals import figure, looks_like_number, unit_behind
from iquitos_rl.cases.metered.table import Table
from iquitos_rl.cases.metered.units import Unit, units_in
from iquitos_rl.errors import UserError


def words(text: str) -> re.Pattern[str]:
    """A pattern that finds any of these words; a word may go on where it ends with *."""
    joined = "|".join(word[:-1] + "[a-zà-ÿ]*" if word.endswith("*") else word for word in text.split())
    return re.compile(rf"(?<![a-zà-ÿ])(?:{joined})(?![a-zà-ÿ])", re.I)


OTHER = words(
    # money
    "tarif* price* precio* preis* cost* kosten coste* prix preco* preço* soles pen usd eur euro* ahorro* saving* fee "
    "income revenue "
    # emissions
    "co2 co2e carbon* emission* "
    # what is measured beside energy
    "factor faktor powerfactor rate rates volt* voltage current amps ampere* freq* temp* soc capacity reactive "
    "apparent blind* reactiva aparente limit "
    # weather
    "humid* wind* ghi dni dhi irrad* "
    # what is said about a row
    "status state_of* quality count* punta peak_hours"
)
"""Columns that are neither energy nor power."""
PER_UNIT = re.compile(r"(?:/|\bper\b|\bpro\b|\bpor\b)\s*[kM]?Wh", re.I)
PV = words(
    "pv* solar* fv photovolt* fotovolt* generat* generac* erzeug* produ[ckz]* yield ertrag* inverter wechselrichter* "
    "ac dc"
)
DC = words("dc dc_* gleichstrom*")
EXPORT = words(
    "export* einspeis* inject* feed feedin feed_in feed-in return* surplus excedent* excess vertid* rückspeis* "
    "rueckspeis* teruglever* sold sell to_grid netzeinspeisung 2\\.8\\.0 2\\.8\\.1"
)
IMPORT = words(
    "import* bezug* netzbezug* bezogen afname afgenomen soutir* purchas* bought from_grid 1\\.8\\.0 1\\.8\\.1"
)
LOAD = words(
    "load* last* consum* usage used use demand* verbrauch* carga* house* haus* home* site building total* energy "
    "energie* import* bezug* netzbezug* afname grid mall"
)
SUB_METER = words(
    "battery batterie* batt akku* bess storage speicher* charg* discharg* ev evse wallbox* heatpump heat_pump "
    "wärmepumpe* hvac"
)
"""Parts of a site: their columns are its load only where there is no other."""
EXTREME = words("max maximum min minimum peak spitze* máx* mín* std")
NET = words("net netto neto saldo balance residual*")
UNIT_TITLE = re.compile(r"^(unit|units|uom|unit_of_measurement|einheit|unidad|unité|eenheid)$", re.I)


def number_columns(table: Table, times: tuple[str, ...]) -> list[str]:
    """The columns, but for those of time, whose cells are numbers."""
    found = []
    for title in table.header:
        cells = table.sample(title)
        if title not in times and cells and sum(map(looks_like_number, cells)) >= 0.8 * len(cells):
            found.append(title)
    return found


def unit_of(table: Table, title: str) -> list[Unit]:
    """The units that name a column: in its title, behind its figures, in a column of units, or around the table."""
    if found := units_in(title):
        return found
    behind = unit_behind([cell for cell in table.sample(title) if figure(cell) != cell])
    if behind and (found := units_in(behind)):
        return found
    for other in table.header:
        cells = set(table.columns[other])
        if UNIT_TITLE.match(other) and len(cells) == 1 and (found := units_in(next(iter(cells)))):
            return found
    described = [line for line in table.around if line.startswith(f"{title}:")]
    for lines in (described, table.around):
        found = list(dict.fromkeys(unit for line in lines for unit in units_in(line)))
        if len(found) == 1:
            return found
    return []


def energy_columns(table: Table, times: tuple[str, ...]) -> list[str]:
    """The columns that may hold energy or power: those with a unit of it, else the numbers that nothing else names."""
    candidates = [
        title for title in number_columns(table, times) if not OTHER.search(title) and not PER_UNIT.search(title)
    ]
    return [title for title in candidates if units_in(title)] or candidates


def narrowed(candidates: list[str], *steps: Callable[[str], bool]) -> list[str]:
    """What is left after each step that leaves anything."""
    for fits in steps:
        candidates = [title for title in candidates if fits(title)] or candidates
    return candidates


def is_energy(title: str) -> bool:
    units = units_in(title)
    return bool(units) and units[0].energy


def one_of(table: Table, candidates: list[str], option: str, notes: list[str]) -> str:
    """The one candidate. Raises UserError: there is none, or several: the question."""
    titles = ", ".join(table.header)
    if len(candidates) != 1:
        several = f"several columns may hold the energy ({', '.join(candidates)})"
        what = several if candidates else "no column holds energy"
        raise UserError(f"{table.name}: {what}; name one of {titles} with {option}")
    if len(table.header) > 2:
        notes.append(f"{table.name}: energy from column {candidates[0]} (of {titles})")
    return candidates[0]
