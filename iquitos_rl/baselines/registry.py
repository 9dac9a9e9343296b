"""What agents are compared with, by the names that tables, files and figures use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from iquitos_rl.baselines.citylearn_agents import DeviceSite, citylearn_agent
from iquitos_rl.baselines.controller import Controller, uncontrolled
from iquitos_rl.baselines.planner import Planner
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.baselines.tune_planner import planning
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.registry import Registry

GREY = "#6B6B6B"
Needs = Literal["nothing", "rule", "plan"]
Learned = RuleSettings | Planner


class ControllerEntry(NamedTuple):
    """One controller, and what commands and report need to know of it."""

    label: str
    """Its name in tables and figures."""
    meaning: str
    """What it is, in one sentence without capital and full stop."""
    make: Callable[[CityLearnSite, Any], Controller] | None
    """From the year's environment and what was learned, a `Learned` or None; None where no simulator runs it: for a
    bound, or a sum."""
    needs: Needs = "nothing"
    """Of the training years: nothing, the parameters of the rule of that name in `RULES`, or the planner of that name
    in `KINDS`."""
    kept: bool = False
    """Whether every run evaluates it and keeps its hours for the figures; the others only a comparison does."""
    site: type[CityLearnSite] = CityLearnSite
    """The environment, where its actions are others than an agent's."""
    colour: str = GREY
    """In figures, #RRGGBB. No green: to readers without red or green cones it is the grey of most controllers."""
    dashes: str = "-"
    """Its line; dashed or dotted, so that it can be told from an agent's without colour."""


def rule_entry(name: str, label: str | None = None, meaning: str | None = None, **look: Any) -> ControllerEntry:
    """The entry of a rule in `RULES`; its meaning is by default the first line of the function's documentation."""

    def make(env: CityLearnSite, learned: Learned | None) -> Controller:
        assert isinstance(learned, RuleSettings)
        return Rule(env.task, learned).predict

    line = (RULES[name].act.__doc__ or name).split("\n")[0].rstrip(".")
    return ControllerEntry(label or name, meaning or line[0].lower() + line[1:], make, "rule", **look)


def plan_entry(label: str, meaning: str) -> ControllerEntry:
    """The entry of a planner in `KINDS`."""

    def make(env: CityLearnSite, learned: Learned | None) -> Controller:
        assert isinstance(learned, Planner)
        return planning(env.task, learned).predict

    return ControllerEntry(label, meaning, make, "plan")


def _of_citylearn(name: str, meaning: str) -> ControllerEntry:
    return ControllerEntry(name, meaning, lambda env, _: citylearn_agent(env, name), site=DeviceSite)


CONTROLLERS: Registry[ControllerEntry] = Registry("controller", {})
for _name, _entry in {
    "grid_only": ControllerEntry("grid alone", "the same consumption without PV and battery", None),
    "uncontrolled": ControllerEntry(
        "uncontrolled",
        "storage idle, cooling and heating as in the data, every vehicle charged at full power from its arrival",
        lambda env, _: uncontrolled(env),
        kept=True,
    ),
    **{name: rule_entry(name) for name in RULES if name not in ("uncontrolled", "strongest")},
    "strongest": rule_entry(
        "strongest",
        "strongest rule",
        "the best fixed rule of this package, its parameters tuned on training data",
        kept=True,
        colour="#000000",
        dashes="--",
    ),
    "mpc": plan_entry("MPC", "plans a day and a half ahead each hour, over scenarios of what was seen so far"),
    "mpc-forecast": plan_entry("MPC, forecasts", "the same with forecasts of load and PV, as good as a site gets"),
    "mpc-perfect": plan_entry("MPC, perfect", "the same with load, PV and visits known a day and a half ahead"),
    "day-ahead": plan_entry(
        "day ahead", "plans each day as it begins and corrects the plan each hour, with the same forecasts"
    ),
    "BusinessAsUsual": _of_citylearn(
        "BusinessAsUsual", "CityLearn's own: stores surplus PV, charges every vehicle until it is full"
    ),
    "RBCSmartPolicy": _of_citylearn("RBCSmartPolicy", "CityLearn's own rule-based agent with the parameters it ships"),
    "BasicRBC": _of_citylearn(
        "BasicRBC", "CityLearn's own: charges by night and discharges by day, by the clock alone"
    ),
    "OptimizedRBC": _of_citylearn("OptimizedRBC", "CityLearn's own BasicRBC, its hours found by a search"),
    "BasicBatteryRBC": _of_citylearn("BasicBatteryRBC", "CityLearn's own BasicRBC for batteries: charges at noon"),
    "BasicElectricVehicleRBC": _of_citylearn(
        "BasicElectricVehicleRBC", "CityLearn's own BasicRBC, with fixed hours for vehicles"
    ),
    "optimum": ControllerEntry(
        "optimum",
        "perfect foresight: the cheapest plan when the whole year is known beforehand; nothing can beat it",
        None,
        kept=True,
        colour="#CC79A7",
        dashes=":",
    ),
}.items():
    CONTROLLERS.add(_name, _entry)
