"""The report against a second reading of the files it is made from: its figures, its sentences, and what it refuses."""

import json
import re
import shutil
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from iquitos_rl.errors import UserError
from iquitos_rl.judging.standings import Record, as_json, standings
from iquitos_rl.judging.statistics import difference
from iquitos_rl.judging.summary import gap_shares
from iquitos_rl.report import cost_figures, dispatch_figures, hour_figures, markup, measures
from iquitos_rl.report.__main__ import main
from iquitos_rl.report.measures import (
    co2_terms,
    energy_balance,
    highest_price_hours,
    peak_window,
    step_hours,
)
from iquitos_rl.report.page import write_report
from iquitos_rl.report.results import read_results
from iquitos_rl.report.savings import payback, savings

FIGURES = ("bill", "energy_cost", "demand_cost", "carbon_cost", "shortfall_cost", "co2_kg", "import_kwh")
SCALE = {"CO2, t": 1e3, "import, MWh": 1e3, "export, MWh": 1e3, "EV charging, MWh": 1e3}
KEYS = dict(zip(("bill", "energy", "demand charge", "carbon price", "EV shortfall", "CO2, t", "import, MWh"), FIGURES))
KEYS |= {
    "EV departures": "departures",
    "of these served (5 points of SOC)": "departures_served",
    "export, MWh": "export_kwh",
}


def hours_of(battery):
    """40 days over two months that obey the energy balance; `battery` scales the battery's power."""
    rng = np.random.default_rng(3)
    step = np.arange(40 * 24 - 1)
    hour = step % 24
    load, ev = rng.uniform(400, 900, len(step)), rng.uniform(0, 60, len(step))
    pv = np.clip(np.sin((hour - 6) / 12 * np.pi), 0, None) * 700
    bess = battery * np.where((hour > 8) & (hour < 15), 100, np.where(hour > 17, -90, 0))
    net = load - pv + bess + ev
    columns = {"step": step, "month": 1 + step // (31 * 24), "day_type": 1, "hour": hour, "load_kwh": load}
    columns |= {"pv_kwh": pv, "bess_kwh": bess, "ev_kwh": ev, "other_kwh": 0.0, "net_kwh": net}
    columns |= {"import_kwh": net.clip(min=0), "export_kwh": -net.clip(max=0), "battery_soc": 0.5}
    columns |= {"price": np.where(hour >= 18, 0.45, 0.28), "carbon_intensity": 0.45, "co2_kg": net.clip(min=0) * 0.45}
    trace = {"step": step, "action/b/battery": 0.0, "demand_cost": rng.uniform(0, 50, len(step))}
    trace |= {"missing_kwh": rng.uniform(0, 0.2, len(step)), "departures": 2.0, "served": 2.0}
    return pd.DataFrame(columns), pd.DataFrame(trace)


def figures_of(hours, trace):
    energy, demand = (hours.import_kwh * hours.price).sum(), trace.demand_cost.sum()
    carbon, shortfall = 0.1 * hours.co2_kg.sum(), 5 * trace.missing_kwh.sum()
    values = (energy + demand + carbon + shortfall, energy, demand, carbon, shortfall, hours.co2_kg.sum())
    found = dict(zip(FIGURES, (*values, hours.import_kwh.sum())))
    found |= {"export_kwh": hours.export_kwh.sum(), "departures": 1918.0, "departures_served": 1917.0}
    return {key: float(value) for key, value in found.items()}


def write_run(folder, agents=("sac",), **extra):
    """A run's folder; several agents have subfolders."""
    folder.mkdir()
    controllers = {}
    for i, name in enumerate(("uncontrolled", *agents)):
        hours, trace = hours_of(float(i))
        place = folder / name if len(agents) > 1 and i else folder
        place.mkdir(exist_ok=True)
        hours.to_csv(place / f"timeseries_{name}.csv", index=False)
        trace.to_csv(place / f"trace_{name}.csv", index=False)
        if i:
            steps = np.arange(1, 41) * 1000.0
            rows = {"step": steps, "env/carbon_kg": steps, "episode_return": -1 / steps, "ram_mib": 900.0 + i}
            pd.DataFrame(rows).to_csv(place / "metrics.csv", index=False)
        controllers[name] = figures_of(hours, trace)
    alone = {key: 1.3 * value for key, value in controllers["uncontrolled"].items() if key in FIGURES}
    summary = {
        "case": "iquitos-38",
        "evaluated_on": "an unseen year",
        "simulator": "citylearn",
        "currency": "PEN",
        "controllers": {"grid_only": alone, **controllers, **extra.pop("controllers", {})},
        "failed": {},
        "audit": {"largest_balance_residual_kwh": 1e-6, "warnings": []},
        "timing": {name: {"train_s": 12.5} for name in agents},
        "memory": {"ram_peak_mib": 1234.5},
        "settings": {name: {"seed": 7, "task": {"objective": {"preset": "bill"}}} for name in agents},
        **extra,
    }
    (folder / "simulation_summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


class Page(HTMLParser):
    """Attributes, texts of paragraphs and cells of tables of a page that closes what it opens."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.tags, self.tables, self.text, self.open = [], Counter(), [], "", []
        self.feed(text)
        assert self.open == []

    def table(self, first):
        """The table whose first cell says that."""
        return next(rows for rows in self.tables if rows[0][0] == first)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        self.tags[tag] += 1
        self.attributes += [(name, value) for name, value in attributes]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.lasttag in ("td", "th") and self.tables and self.tables[-1]:
            self.tables[-1][-1][-1] += data.strip()


def text_of(folder):
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def html(run):
    return text_of(run)


@pytest.fixture
def undrawn(monkeypatch):
    """Names of the figures asked for, in place of the drawing."""
    names = []
    monkeypatch.setattr(markup, "save", lambda draw, folder, name: names.append(name) or "<svg></svg>")
    return names


def test_headline_and_table_say_what_the_summary_says(run, html):
    controllers = json.loads((run / "simulation_summary.json").read_text(encoding="utf-8"))["controllers"]
    mine, idle = controllers["sac"]["bill"], controllers["uncontrolled"]["bill"]
    page = Page(html)
    said = unescape(re.search(r"class=headline>(.*?)</p>", html)[1])
    numbers = [float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*\.?\d*", said)]
    assert numbers[0] == pytest.approx(abs(idle - mine), abs=0.5)
    assert numbers[1] == pytest.approx(100 * abs(1 - mine / idle), abs=0.05)
    assert numbers[2] == round(mine)
    assert numbers[3] == round(idle)
    assert ("better than the best of the others (uncontrolled)" in said) == (mine < idle)
    assert "1,917 of 1,918 vehicles" in page.text

    head, *rows = page.table("PEN")
    assert head == ["PEN", "SAC", "uncontrolled", "grid alone"]
    cells = {row[0]: row[1:] for row in rows}
    assert set(KEYS) <= set(cells)
    for label, key in KEYS.items():
        for name, cell in zip(("sac", "uncontrolled", "grid_only"), cells[label]):
            if key not in controllers[name]:
                assert cell == ""
            else:
                value = controllers[name][key] / SCALE.get(label, 1)
                assert float(cell.replace(",", "")) == pytest.approx(value, abs=0.05 if label in SCALE else 0.5)


def test_the_page_loads_nothing_and_runs_nothing(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert references
    assert all(value.startswith(("#", "data:")) for value in references)
    assert not re.search(r"https?:|url\((?!#)|@import|//cdn", html)
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_ids_are_unique_and_references_resolve(html):
    page = Page(html)
    ids = Counter(value for name, value in page.attributes if name == "id")
    assert max(ids.values()) == 1
    used = set(re.findall(r"url\(#([^)]+)\)", html))
    used |= {value[1:] for name, value in page.attributes if name.endswith("href") and value.startswith("#")}
    assert used
    assert used <= set(ids)


def test_every_figure_has_words_for_those_who_do_not_see_it(html):
    figures = re.findall(r"<figure>(<svg[^>]*>).*?<figcaption>(.*?)</figcaption></figure>", html, flags=re.DOTALL)
    assert len(figures) == html.count("<svg")
    for svg, caption in figures:
        assert 'role="img"' in svg
        assert unescape(re.search(r'aria-label="([^"]+)"', svg)[1]) == unescape(caption).replace("\xa0", " ")


def test_every_figure_is_there_as_a_png_too(run, html):
    pictures = sorted((run / "plots").iterdir())
    assert len(pictures) == Page(html).tags["svg"] >= 14
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_equal_files_give_an_equal_report_whatever_the_readers_style(run, html, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30.0)
    assert text_of(copy) == html
    for picture in (run / "plots").iterdir():
        assert (copy / "plots" / picture.name).read_bytes() == picture.read_bytes()
    assert matplotlib.rcParams["font.size"] == 30.0


def test_monthly_bars_are_each_months_peaks_and_charges(run):
    figure = hour_figures.monthly(read_results(run))
    expected = []
    for name in ("uncontrolled", "sac"):
        hours, trace = (pd.read_csv(run / f"{kind}_{name}.csv") for kind in ("timeseries", "trace"))
        for month in (1, 2):
            mine = hours.month == month
            expected.append([hours.import_kwh[mine & (hours.hour >= 18)].max()])
            expected[-1] += [hours.import_kwh[mine & (hours.hour < 18)].max(), trace.demand_cost[mine].sum() / 1e3]
    drawn = [[bar.get_height() for bar in axis.patches] for axis in figure.axes]
    np.testing.assert_allclose(np.transpose(drawn), expected)


def test_balance_adds_up_and_windows_hold_the_peak(run):
    hours = read_results(run).hours["sac"]
    came, went = energy_balance(hours)
    assert sum(came.values()) == pytest.approx(sum(went.values()), rel=1e-9)
    assert came["PV"] == pytest.approx(hours.pv_kwh.sum())
    for row in (0, 30, 500, len(hours) - 1):
        peaked = hours.assign(import_kwh=np.where(np.arange(len(hours)) == row, 1e6, hours.import_kwh))
        for days in (1, 7):
            window = peak_window(peaked, days)
            assert window.start <= row < window.stop <= len(hours)
            assert window.start % 24 == 0
            assert window.stop - window.start in (24 * days, 24 * days - 1)


def test_step_length_and_dear_hours():
    quarter = pd.DataFrame({"hour": np.repeat(np.arange(24), 4), "price": 0.2})
    assert step_hours(quarter) == 0.25
    assert step_hours(quarter[::4]) == 1
    assert highest_price_hours(quarter) is None
    assert highest_price_hours(quarter.assign(price=np.linspace(0, 1, 96))) is None
    two = quarter.assign(price=np.where(quarter.hour > 17, 0.45, 0.28))
    assert (highest_price_hours(two) == (quarter.hour > 17)).all()


def test_share_of_the_gap():
    found = {"uncontrolled": {"bill": 10.0}, "optimum": {"bill": 6.0}, "sac": {"bill": 7.0}, "rule": {}}
    assert gap_shares(found)["sac"] == pytest.approx(0.75)
    assert "rule" not in gap_shares(found)
    assert "sac" not in gap_shares({**found, "optimum": {"bill": 10.0}})
    assert "sac" not in gap_shares({"uncontrolled": {"bill": 10.0}, "sac": {"bill": 7.0}})


def test_several_agents_with_a_rule_and_an_optimum(tmp_path, undrawn):
    bill = {"bill": 1.0, "energy_cost": 0.5, "demand_cost": 0.5, "carbon_cost": 0.0, "shortfall_cost": 0.0}
    extra = {"optimum": bill, "peak_shave": {**bill, "bill": 2.0}, "odd": {"bill": 5.0}}
    failed = {"a2c": "it <b>broke</b>"}
    run = write_run(tmp_path / "run", ("sac", "ppo"), controllers=extra, failed=failed)
    (run / "metrics.csv").write_text("step,episode_return\n1,5\n", encoding="utf-8")
    (run / "ppo" / "metrics.csv").unlink()
    text = Page(text_of(run)).text
    results = read_results(run)
    assert set(results.metrics) == {"sac"}, "a file at the top belongs to no one of several agents"
    assert list(results.hours) == ["uncontrolled", *results.agents]
    assert results.rules == ["peak_shave", "odd"]
    assert {"gap", "week_sac", "week_ppo", "year_uncontrolled"} <= set(undrawn)
    assert "No metrics.csv of PPO" in text
    assert "worse than the best of the others (peak shave)" in text
    assert "The summary lacks a term of the bill of odd" in text
    assert "A2C failed: it <b>broke</b>." in text
    assert "below the optimum" not in text


BILLS = {"uncontrolled": (100.0, 200.0), "strongest": (90.0, 160.0), "optimum": (80.0, 120.0), "mpc": (82.0, 125.0)}


@pytest.fixture
def comparison(tmp_path):
    """Two agents with two seeds in two years; the second left no metrics."""
    rng = np.random.default_rng(4)
    records = [Record(name, None, year, {"bill": bill}) for name, own in BILLS.items() for year, bill in zip("ab", own)]
    for name in ("sac", "ppo"):
        for seed, year in ((0, "a"), (0, "b"), (1, "a"), (1, "b")):
            records.append(
                Record(name, seed, year, {"bill": float(rng.uniform(*(81, 99) if year == "a" else (125, 199)))})
            )
    records = [r._replace(figures={**r.figures, "co2_kg": 5.0, "departures_served": 10.0}) for r in records]
    found = standings(records)
    extra = {"kind": "comparison", "years": ["a", "b"], "seeds": 2, "hours_of_seed": {"sac": 1, "ppo": 0}}
    extra |= {"standings": as_json(found), "records": [r._asdict() for r in records], "command": "python -m compare"}
    run = write_run(tmp_path / "run", ("sac", "ppo"), left_out={"smart-ev": "no sockets"}, **extra)
    for seed in (0, 1):
        (run / f"sac-seed-{seed}").mkdir()
        shutil.copy(run / "sac" / "metrics.csv", run / f"sac-seed-{seed}" / "metrics.csv")
    for name in ("sac", "ppo"):
        (run / name / "metrics.csv").unlink()
    return run, found


def test_a_comparison_begins_with_its_standings(comparison, undrawn):
    run, found = comparison
    page = Page(text_of(run))
    assert {"gap", "below_strongest", "bill", "learning", "week_sac"} <= set(undrawn)
    best = min(("sac", "ppo"), key=lambda name: found[name].bill.value)
    said = page.text[page.text.index(f"{best.upper()} closes") :]
    numbers = [float(text) for text in re.findall(r"-?\d+\.?\d*", said)]
    closed, below = found[best].gap_closed, found[best].below_strongest
    expected = [100 * end for end in (closed.value, closed.low, closed.high)]
    np.testing.assert_allclose(numbers[:3], expected, atol=0.0501)
    expected = [below.value, *sorted((below.low, below.high), key=lambda end: end * np.sign(below.value))]
    np.testing.assert_allclose(numbers[3:6], np.sign(below.value) * np.array(expected), atol=0.00501)
    assert numbers[6:8] == [found[best].better, 4]
    assert [row[0] for row in page.table("controller")[1:]] == [
        {"sac": "SAC", "ppo": "PPO", "mpc": "MPC", "strongest": "strongest rule"}.get(name, name)
        for name in sorted(found, key=lambda name: found[name].bill.value)
    ]
    assert "smart-ev is left out: no sockets." in page.text
    rows = {tuple(row[:3]): row for row in page.tables[2][1:]}
    assert len(rows) == 8
    for record in json.loads((run / "simulation_summary.json").read_text(encoding="utf-8"))["records"]:
        if record["controller"] in ("sac", "ppo"):
            bill, year = record["figures"]["bill"], "ab".index(record["year"])
            row = rows[record["controller"].upper(), str(record["seed"]), record["year"]]
            idle, rule, best = (BILLS[name][year] for name in ("uncontrolled", "strongest", "optimum"))
            assert float(row[3].rstrip("\xa0%")) == pytest.approx(100 * (idle - bill) / (idle - best), abs=0.051)
            assert float(row[4].rstrip("\xa0%")) == pytest.approx(100 * (1 - bill / rule), abs=0.0051)
    assert "SAC 1, PPO 0" in page.text
    assert "No metrics.csv of PPO" in page.text
    assert "python -m compare" in page.text


def test_intervals_and_seeds_are_drawn_where_they_are(comparison):
    run, found = comparison
    results = read_results(run)
    assert [len(frames) for frames in results.metrics.values()] == [2]
    names = ["strongest", "sac"]
    best = np.mean(BILLS["optimum"])
    bills = {
        name: [r["figures"]["bill"] for r in results.summary["records"] if r["controller"] == name] for name in names
    }
    for draw in (cost_figures.gap, cost_figures.above_optimum):
        axis = draw(results, names).axes[0]
        first = next(i for i, line in enumerate(axis.lines) if len(line.get_xdata()) == 4)  # the agent's four bills
        strokes, interval = axis.lines[first : first + 2]
        own, scale = found["sac"].gap_closed, 100
        if draw is cost_figures.above_optimum:
            thousand = 1e3 if "thousand" in axis.get_xlabel() else 1.0
            by_year = (np.reshape(own, (-1, 2)) for own in (bills["sac"], BILLS["optimum"]))
            own, scale = difference(*by_year), 1 / thousand
            np.testing.assert_allclose(
                [bar.get_width() for bar in axis.patches], [(np.mean(bills[name]) - best) / thousand for name in names]
            )
            expected = [(bill - yearly) / thousand for bill, yearly in zip(bills["sac"], 2 * BILLS["optimum"])]
            np.testing.assert_allclose(strokes.get_xdata(), expected)
        np.testing.assert_allclose(axis.patches[1].get_width(), scale * own.value)
        np.testing.assert_allclose(interval.get_xdata(), [scale * end for end in (own.low, own.high)])
        assert len(strokes.get_xdata()) == 2 * found["sac"].seeds


def test_one_run_has_bars_without_intervals(tmp_path):
    run = write_run(tmp_path / "run", controllers={"optimum": {"bill": 1000.0}})
    results = read_results(run)
    axis = cost_figures.above_optimum(results, ["uncontrolled", "sac"]).axes[0]
    thousand = 1e3 if "thousand" in axis.get_xlabel() else 1.0
    expected = [(results.controllers[name]["bill"] - 1000) / thousand for name in ("uncontrolled", "sac")]
    np.testing.assert_allclose([bar.get_width() for bar in axis.patches], expected)
    assert sum(len(line.get_xdata()) for line in axis.lines[:-1]) == 0


def test_terms_of_the_co2_add_up():
    found = {"co2_kg": 900.0, "import_kwh": 2000.0, "pv_kwh": 700.0, "export_kwh": 100.0, "load_kwh": 2340.0}
    terms = co2_terms({**found, "ev_kwh": 130.0})
    assert terms == pytest.approx({"load": 0.81, "vehicles": 0.045, "losses, other": 0.045})
    assert set(co2_terms({**dict.fromkeys(found, 0.0), "ev_kwh": 0.0}).values()) == {0.0}


def test_a_day_shows_the_hours_of_its_controller_and_of_others(tmp_path):
    run = write_run(tmp_path / "run")
    results = read_results(run)
    figure = dispatch_figures.dispatch(results, "sac", slice(48, 72))
    own, other = (results.hours[name].iloc[48:72] for name in ("sac", "uncontrolled"))
    for axis, (key, scale) in zip(figure.axes[1:], (("net_kwh", 1), ("ev_kwh", 1), ("battery_soc", 100))):
        for line, hours in zip(axis.lines, (other, own)):
            np.testing.assert_allclose(line.get_ydata()[:-1], scale * hours[key])
            assert axis.get_ylim()[0] <= line.get_ydata().min()
            assert line.get_ydata().max() <= axis.get_ylim()[1]
    np.testing.assert_allclose(figure.axes[4].lines[0].get_ydata()[:-1], own.price)


def test_sockets_are_drawn_one_by_one(tmp_path):
    run = write_run(tmp_path / "run")
    columns = {"departures": [4, 0, 5], "served": [3, 0, 5], "missing_kwh": [1.5, 0, 0], "energy_kwh": [9, 0, 8]}
    for name in ("uncontrolled", "sac"):
        pd.DataFrame({"socket": ["a", "b", "c"], **columns}).to_csv(run / f"sockets_{name}.csv", index=False)
    figure = hour_figures.sockets(read_results(run))
    assert [bar.get_height() for bar in figure.axes[0].patches] == columns["departures"]
    for line in figure.axes[1].lines:
        np.testing.assert_allclose(line.get_ydata(), [75, np.nan, 100])
    for line in figure.axes[2].lines:
        np.testing.assert_allclose(line.get_ydata(), columns["missing_kwh"])


def test_an_agent_below_the_optimum_is_called_wrong(tmp_path, undrawn):
    run = write_run(tmp_path / "run")
    summary = json.loads((run / "simulation_summary.json").read_text(encoding="utf-8"))
    worse = max(summary["controllers"][name]["bill"] for name in ("sac", "uncontrolled"))
    summary["controllers"]["uncontrolled"]["bill"] = worse + 2
    summary["controllers"]["optimum"] = {"bill": worse + 1}
    (run / "simulation_summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert "SAC is below the optimum: either that bound or this result is wrong" in text_of(run)


def test_text_from_files_is_escaped(tmp_path, undrawn):
    evil = "<script>alert(1)</script>"
    run = write_run(tmp_path / "run", currency=evil, case=f"iquitos{evil}", failed={evil: evil}, versions={evil: evil})
    page = text_of(run)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


@pytest.mark.parametrize(
    ("gone", "sentence", "absent"),
    [
        ("metrics.csv", "No metrics.csv of SAC", {"learning"}),
        ("timeseries_sac.csv", "No timeseries CSV for SAC", {"day_sac", "week_sac", "year_sac", "map_net_sac"}),
        ("timeseries_*.csv", "holds no timeseries CSV", {"monthly", "balance", "vehicles", "average_day"}),
        ("trace_sac.csv", "A trace CSV is missing", set()),
    ],
)
def test_what_is_missing_is_said_and_not_drawn(tmp_path, undrawn, gone, sentence, absent):
    run = write_run(tmp_path / "run")
    for path in run.glob(gone):
        path.unlink()
    assert sentence in text_of(run)
    assert not absent & set(undrawn)
    assert "bill" in undrawn


def test_a_bare_summary_is_enough(tmp_path):
    (tmp_path / "simulation_summary.json").write_text('{"controllers": {}}', encoding="utf-8")
    text = text_of(tmp_path)
    assert "This run has no results of an agent." in text
    assert "<figure>" not in text


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("simulation_summary.json", "{", "not JSON"),
        ("simulation_summary.json", "[]", "valid dictionary"),
        ("simulation_summary.json", '{"controllers": {"sac": {"bill": NaN}}}', "NaN is no finite number"),
        ("simulation_summary.json", '{"controllers": {"sac": {"bill": "5"}}}', "controllers.sac.bill"),
        ("simulation_summary.json", '{"controllers": {}, "audit": 5}', "audit: "),
        ("simulation_summary.json", '{"controllers": {"../x": {}}, "timing": {"../x": {}}}', "cannot be the name"),
        ("simulation_summary.json", '{"controllers": {}, "audit": {"residual": "x"}}', "audit.residual: "),
        ("timeseries_sac.csv", "step,month\n0,1\n", "lacks column"),
        ("timeseries_sac.csv", "", "cannot be read"),
        ("trace_sac.csv", "demand_cost,missing_kwh,departures,served\n1,1,1,x\n", "served"),
        ("trace_sac.csv", "demand_cost,missing_kwh,departures,served\n1,1,1,1\n", "1 rows"),
    ],
)
def test_damaged_files_end_in_one_sentence(tmp_path, capsys, file, content, complaint):
    run = write_run(tmp_path / "run")
    (run / file).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(complaint)):
        write_report(run)
    assert main([str(run)]) == 2
    assert file in capsys.readouterr().err
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("key", ["records", "years", "seeds", "hours_of_seed", "evaluated_on", "standings.ppo.bill"])
def test_a_comparison_without_a_part_is_refused(comparison, key):
    run, _ = comparison
    path = run / "simulation_summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    *outer, last = key.split(".")
    found = summary
    for name in outer:
        found = found[name]
    del found[last]
    path.write_text(json.dumps(summary), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}: {key}: Field required")):
        write_report(run)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    with pytest.raises(UserError, match=r"simulation_summary\.json"):
        write_report(tmp_path)
    assert main([str(tmp_path / "nowhere")]) == 2
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("rule", [0.0, -50.0])
def test_a_percentage_of_no_bill_or_of_an_income_is_left_out(rule):
    bills = {"sac": -60.0, "strongest": rule}
    results = SimpleNamespace(
        summary={}, standings={}, controllers={name: {"bill": value} for name, value in bills.items()}
    )
    assert measures.scores(results, "below_strongest") == {}
    results.controllers["strongest"]["bill"] = 40.0
    assert measures.scores(results, "below_strongest")["sac"].value == pytest.approx(250.0)


def test_savings_are_those_of_the_hours_and_a_year_says_what_a_battery_may_cost(tmp_path):
    run = write_run(tmp_path / "run")
    summary = json.loads((run / "simulation_summary.json").read_text())
    bills = {name: own["bill"] for name, own in summary["controllers"].items()}
    monthly = {}
    for name, scale in (("uncontrolled", 2.0), ("sac", 1.0)):
        path = next(run.rglob(f"timeseries_{name}.csv"))
        hours = pd.read_csv(path)
        hours["cost"] = scale * hours.import_kwh * hours.price
        monthly[name] = hours.cost.groupby((hours.month != hours.month.shift()).cumsum()).sum()
        hours.to_csv(path, index=False)
    saved = monthly["uncontrolled"] - monthly["sac"]
    rows = savings(read_results(run))[0]
    row = next(cells for cells in rows if cells[0] == "SAC")
    assert float(row[1].replace(",", "")) == pytest.approx(bills["uncontrolled"] - bills["sac"], abs=1)
    assert [float(x.replace(",", "")) for x in row[3].split(" to ")] == pytest.approx([saved.min(), saved.max()], abs=1)
    for own in summary["controllers"].values():
        own["hours"] = 960.0
    (run / "simulation_summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="covers 40 days, and a payback needs a year"):
        write_report(run, 9000.0)
    for own in summary["controllers"].values():
        own["hours"] = 8760.0
    summary["controllers"]["sac"]["bill"] = bills["uncontrolled"] - 1500.0
    (run / "simulation_summary.json").write_text(json.dumps(summary))
    assert "9,000 PEN are paid back in 6.0 years" in payback(read_results(run), 9000.0)
    assert "costs no more than 15,000 PEN" in payback(read_results(run))
    assert "costs no more than 15,000 PEN" in unescape(write_report(run).read_text())
    summary["controllers"]["sac"]["bill"] = bills["uncontrolled"] + 1.0
    (run / "simulation_summary.json").write_text(json.dumps(summary))
    assert payback(read_results(run)) is None
