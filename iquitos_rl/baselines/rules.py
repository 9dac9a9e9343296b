"""Rule-based controllers, each a few lines, that agents are compared with.

A rule is a pure function of the present hour, its parameters and facts known beforehand. Parameters are numbers, or
(E, 1) tensors where many candidates run side by side. All quantities are kW and kWh at the meter, (E, B) for E
environments and B buildings; hours are the steps that a rule thinks in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from iquitos_rl.baselines.levels import shave_level
from iquitos_rl.baselines.view import Decision, Now

DAY = 24


class Facts(NamedTuple):
    """What a rule knows beforehand: of the batteries as in `SiteView`, of the mean day as in `Profiles`.

    A day is written down once for each hour that it can start in: [h, k] is k hours after hour h.
    """

    power_kw: Tensor  # (B,)
    usable_kwh: Tensor  # (B,)
    load_kw: Tensor  # (24, 24, B)
    pv_kw: Tensor  # (24, 24, B)
    vehicles_kw: Tensor  # (24, 24, B)
    season: Tensor  # (12, B)
    same: Tensor  # (24, 24) bool, whether all hours up to this one are expensive like the first, or cheap like it
    highest_load_kw: Tensor  # (B,) of the mean day
    highest_pv_kw: Tensor  # (B,)


def known_facts(expensive: Tensor, power_kw: Tensor, usable_kwh: Tensor, profiles: Sequence[Tensor]) -> Facts:
    """Facts from the expensive hours (24,) bool and the tensors of `Profiles`."""
    load, pv, vehicles, season = profiles
    each = torch.arange(DAY, device=load.device)
    hours = (each.unsqueeze(1) + each) % DAY
    same = (expensive[hours] == expensive.unsqueeze(1)).cumprod(-1).bool()
    days = load[hours], pv[hours], vehicles[hours]
    return Facts(power_kw, usable_kwh, *days, season, same, load.amax(0), pv.amax(0))


Parameters = Mapping[str, Tensor]


class Range(NamedTuple):
    """A parameter: where tuning looks, and its value without tuning."""

    low: float
    high: float
    default: float


def uncontrolled(now: Now, p: Parameters, facts: Facts) -> Decision:
    """Vehicles charge at full power on arrival, batteries stay idle."""
    return Decision(torch.zeros_like(now.load_kw), torch.ones_like(now.load_kw))


def self_consumption(now: Now, p: Parameters, facts: Facts) -> Decision:
    """Store PV surplus, and discharge as soon as something is drawn from the grid."""
    net = now.load_kw - now.pv_kw + now.ev_most_kw
    return Decision(-net, torch.ones_like(net))


def peak_hold(now: Now, p: Parameters, facts: Facts) -> Decision:
    """Store surplus; discharge in expensive hours only, at a set power, down to a reserve."""
    net = now.load_kw - now.pv_kw + now.ev_most_kw
    above = (now.stored_kwh - p["reserve"] * facts.usable_kwh).clamp(min=0)
    give = torch.minimum(torch.minimum(net, above), p["power"] * facts.power_kw).clamp(min=0) * now.expensive
    return Decision((-net).clamp(min=0) - give, torch.ones_like(net))


def peak_shave(now: Now, p: Parameters, facts: Facts) -> Decision:
    """Hold the import under a threshold that follows the month's highest so far; refill under another."""
    net = now.load_kw - now.pv_kw + now.ev_most_kw
    reference = facts.highest_load_kw
    start = torch.where(now.expensive, p["peak_start"] * reference, p["off_peak_start"] * reference)
    threshold = torch.maximum(start, torch.where(now.expensive, now.peak_kw, now.off_peak_kw))
    give = (net - threshold).clamp(min=0)
    refill = (p["refill"] * reference - net).clamp(min=0) * ~now.expensive
    take = torch.maximum(torch.minimum(refill, _room_to(now, facts, p["target_soc"])), (-net).clamp(min=0))
    return Decision(torch.where(give > 0, -give, take), torch.ones_like(net))


def water_filling(now: Now, p: Parameters, facts: Facts) -> Decision:
    """Level the rest of the expensive hours with what is stored; before them, refill under a cap to a set SOC."""
    net = now.load_kw - now.pv_kw + now.ev_most_kw
    give = (net - _level(now, facts, net, net)).clamp(min=0)
    refill = (p["cap"] * facts.highest_load_kw - net).clamp(min=0)
    take = torch.maximum(torch.minimum(refill, _room_to(now, facts, p["target_soc"])), (-net).clamp(min=0))
    return Decision(torch.where(now.expensive, torch.where(net > 0, -give, -net), take), torch.ones_like(net))


def smart_ev(now: Now, p: Parameters, facts: Facts) -> Decision:
    """Charge vehicles from PV and, in cheap hours, up to a cap; else only what they need to leave in time.

    The battery stays idle.
    """
    net = now.load_kw - now.pv_kw + now.ev_least_kw
    cap = torch.maximum(now.off_peak_kw, p["cap"] * facts.highest_load_kw) * ~now.expensive
    return Decision(torch.zeros_like(net), _ev_share(now, cap - net))


def strongest(now: Now, p: Parameters, facts: Facts) -> Decision:
    """All of the above: level the expensive hours, hold the others under a cap, fill the battery in the valleys before.

    The cap follows the seasons; where no demand charge is due it may go down to nothing. Off peak, the battery shaves
    imports above it, down to a reserve that is kept for the expensive hours. It is charged in the hours before those in
    which the lowest import is expected, at night only to a set SOC, to leave room for PV. Vehicles wait for room under
    the cap.
    """
    reference = facts.highest_load_kw * facts.season[now.month - 1]
    least = now.load_kw - now.pv_kw + now.ev_least_kw
    charged = torch.maximum(now.off_peak_kw, p["cap"] * reference)
    cap = torch.where(now.limit_kw.isinf(), (p["cap"] - START.low) * reference, charged)
    share = _ev_share(now, torch.where(now.expensive, 0.0, cap - least))
    net = least + share * (now.ev_most_kw - now.ev_least_kw)
    level = _level(now, facts, least, net)
    lowest = level + p["patience"] * (now.peak_kw - level).clamp(min=0)
    expensive_kw = torch.where(least > 0, -(least - lowest).clamp(min=0), -least)

    above = (now.stored_kwh - p["reserve"] * facts.usable_kwh).clamp(min=0)
    give = torch.minimum((net - cap).clamp(min=0), above)
    night = (now.pv_kw <= 0) & ((now.hour < DAY // 2) | (now.hour >= 3 * DAY // 4)).unsqueeze(-1)
    target = torch.where(night, p["night_soc"], 1.0)
    filled = torch.minimum(level, cap)
    take = torch.minimum((filled - net).clamp(min=0), _room_to(now, facts, target))
    cheap_kw = torch.where(give > 0, -give, torch.maximum(take, (-net).clamp(min=0)))
    return Decision(torch.where(now.expensive, expensive_kw, cheap_kw), share)


class Spec(NamedTuple):
    act: Callable[[Now, Parameters, Facts], Decision]
    ranges: dict[str, Range]


START, SHARE = Range(0.3, 1.1, 0.8), partial(Range, 0, 1)
HOLD = {"reserve": Range(0, 0.8, 0.0), "power": Range(0.05, 1, 1.0)}
SHAVE = {"peak_start": START, "off_peak_start": START, "refill": SHARE(0.5), "target_soc": SHARE(0.9)}
STRONGEST = {"cap": START, "reserve": SHARE(0.7), "night_soc": SHARE(0.7), "patience": SHARE(0.0)}
RULES: dict[str, Spec] = {
    "uncontrolled": Spec(uncontrolled, {}),
    "self-consumption": Spec(self_consumption, {}),
    "peak-hold": Spec(peak_hold, HOLD),
    "peak-shave": Spec(peak_shave, SHAVE),
    "water-filling": Spec(water_filling, {"cap": SHARE(0.5), "target_soc": SHARE(0.9)}),
    "smart-ev": Spec(smart_ev, {"cap": Range(0, 1.1, 0.8)}),
    "strongest": Spec(strongest, STRONGEST),
}


def _room_to(now: Now, facts: Facts, soc: Tensor) -> Tensor:
    """(E, B) kWh that the battery still takes up to a share of its usable energy."""
    return (now.room_kwh - (1 - soc) * facts.usable_kwh).clamp(min=0)


def _ev_share(now: Now, room_kw: Tensor) -> Tensor:
    """(E, B) share of the vehicles' freedom that fits into `room_kw`; with no freedom it means nothing."""
    return (room_kw / (now.ev_most_kw - now.ev_least_kw).clamp(min=1e-3)).clamp(0, 1)


def _expected(now: Now, facts: Facts, net: Tensor) -> Tensor:
    """(E, B, 24) net consumption expected in this hour, where it is known, and in the next 23.

    The mean day, with load and sun scaled as they are now against what they are on average at this hour.
    """
    load, pv, vehicles = (days.index_select(0, now.hour) for days in (facts.load_kw, facts.pv_kw, facts.vehicles_kw))
    load_scale = (now.load_kw / load[:, 0].clamp(min=1e-3)).clamp(0.5, 1.5)
    bright = pv[:, 0] > 0.1 * facts.highest_pv_kw
    pv_scale = torch.where(bright, (now.pv_kw / pv[:, 0].clamp(min=1e-3)).clamp(0, 2), 1.0)
    ahead = load * load_scale.unsqueeze(1) - pv * pv_scale.unsqueeze(1) + vehicles
    return torch.cat([net.unsqueeze(1), ahead[:, 1:]], dim=1).transpose(1, 2)


def _level(now: Now, facts: Facts, expensive_net: Tensor, cheap_net: Tensor) -> Tensor:
    """(E, B) kW. In expensive hours the level to which the stored energy can lower what is left of them, of imports
    that start with `expensive_net`; in cheap hours the one up to which imports, starting with `cheap_net`, must be
    filled for a full battery by the next expensive hour."""
    net = torch.where(now.expensive, expensive_net, cheap_net)
    ahead, live = _expected(now, facts, net), facts.same.index_select(0, now.hour).unsqueeze(1)
    expensive = now.expensive.unsqueeze(-1)
    # A valley is filled as its mirror image is shaved.
    ahead = torch.where(expensive, ahead.clamp(min=0), -ahead)
    energy = torch.where(now.expensive, now.stored_kwh, now.room_kwh)
    level = shave_level(ahead, facts.power_kw.expand_as(net), energy, live)
    return torch.where(now.expensive, level, -level)
