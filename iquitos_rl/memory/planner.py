"""What a training run will take, item by item, before it takes anything; and what fits.

Every part says what it holds (agent, buffer, environment), and a rehearsal measures what updates take for a moment.
Here this is added up, and the replay buffer's placement and the micro-batch are chosen. The caller measures what is
free and what the process takes already: interpreter, libraries, data of the case; on a GPU the context, and what other
programs hold there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from torch import nn

from iquitos_rl.buffers.placement import HEADROOM, PLACEMENTS, STAGING_BYTES, Item, Where
from iquitos_rl.envs.district.footprint import held_bytes
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import show_size
from iquitos_rl.memory.recovery import FLOOR
from iquitos_rl.memory.rehearsal import STEP, Rehearsal, rehearse, step_bytes

FLOAT = 4
WORKSPACE = 40 << 20
"""cuBLAS takes 8 to 32 MiB for itself on each stream, and PyTorch's allocator hands out blocks of 2 MiB and more.
Captures run on a stream of their own."""
LOADED_LATER = 72 << 20
"""Kernels that a training loads after the context was measured, and what the driver keeps of graphs. By how much the
context grew, in nine settings of SAC alike, on an H100 (`benchmarks/results/vram_gpu.md`)."""
ASSUMED_CONTEXT = 450 << 20
"""A CUDA context with PyTorch's kernels, where there is no GPU to measure it on."""
STEP_OBSERVATIONS, STEP_STATES = 5, 1.5
"""A step of the environments takes the larger of so many observations (the one acted on, the new one, the rows and the
state that it is joined from, the state before it is scaled) and so many times the district engine's state."""
ENGINE_GRAPHS, GRAPH_STATES = 4, 6
"""Captured functions of the district engine (act, step, reset, observe; see `GuidedSite.capture`), and how many times
its state they keep together, their arguments included."""
HOLES = "holes in the heap"
CHOSEN = "placement", "storage", "buffer_size", "micro_batch"
"""Settings shown below the table, where an agent has them."""
TITLES: dict[Where, tuple[str, str]] = {
    "device": ("GPU", "GPU memory"),
    "ram": ("RAM", "RAM"),
    "disk": ("disk", "disk space"),
}
"""In the table, and in messages."""


class Limits(NamedTuple):
    """Bytes that there are for the whole process."""

    device: int | None
    """None where the agent is on the CPU."""
    ram: int
    disk: int


class Plan(NamedTuple):
    items: tuple[Item, ...]
    config: Any
    """The settings with what was decided."""
    limits: Limits
    notes: tuple[str, ...]

    def total(self, where: Where) -> int:
        """Bytes at the peak."""
        return sum(item.nbytes for item in self.items if item.where == where)

    @property
    def fits(self) -> bool:
        return not self.missing()

    def missing(self) -> dict[Where, int]:
        """Where it does not fit, and by how many bytes."""
        over = {where: self.total(where) - (getattr(self.limits, where) or 0) for where in TITLES}
        return {where: nbytes for where, nbytes in over.items() if nbytes > 0}

    def table(self) -> str:
        """For people: a line for every item, and the sums next to what there is."""
        sums = {where: self.total(where) for where in TITLES}
        needed = {"device": self.limits.device is not None, "ram": True, "disk": sums["disk"] > 0}
        columns = [where for where in TITLES if needed[where]]
        rows = [(item.name, {item.where: item.nbytes}) for item in self.items if item.nbytes]
        rows += [("sum", sums), ("there is", {where: getattr(self.limits, where) for where in columns})]
        cells = [["", *(TITLES[where][0] for where in columns)]]
        cells += [[name, *(show_size(sizes[w]) if sizes.get(w) else "" for w in columns)] for name, sizes in rows]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}" + "".join(f"  {size:>13}" for size in sizes) for name, *sizes in cells]
        values = {name: getattr(self.config, name, None) for name in CHOSEN}
        chosen = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
        return "\n".join([*lines, *([f"chosen: {chosen}"] if chosen else []), *self.notes])


class DoesNotFitError(UserError):
    """What is missing, and what would fit.

    Args:
        plan: the one that comes closest, with the limits that were kept to.
        limits: those to show.
    """

    def __init__(self, advice: str, plan: Plan, limits: Limits) -> None:
        missing = plan.missing()
        short = ", ".join(f"{show_size(nbytes)} of {TITLES[where][1]} missing" for where, nbytes in missing.items())
        largest = max((item for item in plan.items if item.where in missing), key=lambda item: item.nbytes)
        size = show_size(largest.nbytes)
        super().__init__(f"training does not fit: {short}; the largest item is '{largest.name}' with {size}; {advice}")
        self.plan = plan._replace(limits=limits)


def fit(
    agent: Any,
    env: VectorEnv,
    config: Any,
    limits: Limits,
    process: int,
    context: int | None = None,
    networks: Mapping[str, nn.Module] | None = None,
) -> Plan:
    """The first choice that fits: the fastest place for the replay buffer, then smaller micro-batches.

    What the settings say is kept, and a share of each memory is left alone.

    Args:
        agent: a subclass of `Agent`.
        process: bytes of RAM that the process takes already, the environments included.
        context: bytes that the CUDA context and other programs were measured to take; None where there is no GPU.
        networks: those that the agent is given in place of its own.

    Raises:
        DoesNotFitError: nothing fits; it says by how much, and what would.
        UserError: the agent cannot be rehearsed.
    """
    on_gpu, placed = limits.device is not None, hasattr(config, "placement")
    usable = Limits._make(limit and int(limit * (1 - HEADROOM)) for limit in limits)
    assumed = ("the CUDA context is assumed, not measured: there is no GPU here",) * (on_gpu and context is None)

    @cache
    def rehearsed(part: int | None, elsewhere: bool) -> Rehearsal:
        placement = {"placement": "ram" if elsewhere else "cuda"} if placed else {}
        return rehearse(agent, env, changed(micro_batch=part, compile="off", **placement), networks or {}, on_gpu)

    def changed(**changes: Any) -> Any:
        return config.model_copy(update=changes)

    def planned(chosen: Any) -> Plan:
        elsewhere = on_gpu and placed and chosen.placement != "cuda"
        items = _items(env, chosen, rehearsed(chosen.micro_batch, elsewhere), process, context, on_gpu)
        if elsewhere:
            items.append(Item("staging", "ram", 2 * STAGING_BYTES))
        return Plan(tuple(items), chosen, usable, assumed)

    def fitting(part: int | None, **changes: Any) -> Plan | None:
        plans = (planned(changed(micro_batch=part, **place, **changes)) for place in places)
        return next((plan for plan in plans if plan.fits), None)

    places: list[dict[str, Any]] = [{}]
    if placed:
        possible = [place for place in PLACEMENTS if on_gpu or place in ("ram", "disk")]
        places = [{"placement": p} for p in (possible if config.placement == "auto" else [config.placement])]
    batch = rehearsed(config.micro_batch, False).agent.batches()[0]
    parts, part = [config.micro_batch], min(config.micro_batch or batch, batch)
    while part > FLOOR:
        parts.append(part := max(FLOOR, part // 2))
    found = fitting(parts[0])
    if found is None:  # a smaller part never takes more, so the largest that fits is found by halving
        first = bisect_left(parts, True, lo=1, key=lambda part: fitting(part) is not None)
        found = fitting(parts[first]) if first < len(parts) else None
    if found is not None:
        return found._replace(limits=limits, notes=(*assumed, *_told(found.config, config)))
    capacity = getattr(config, "buffer_size", 0)
    sizes = [1 << n for n in range(capacity.bit_length(), 9, -1) if env.num_envs <= 1 << n < capacity]
    smaller = next(filter(None, (fitting(parts[-1], buffer_size=size) for size in sizes)), None)
    if smaller is None:
        advice = f"lower {agent.advice}, or num_envs"
    else:
        where = f" --set agent.placement={smaller.config.placement}" if len(places) > 1 else ""
        advice = f"this would fit: --set agent.buffer_size={smaller.config.buffer_size}{where}"
    closest = planned(changed(micro_batch=parts[-1], **places[-1]))
    raise DoesNotFitError(advice, closest, limits)


def _items(
    env: VectorEnv, config: Any, found: Rehearsal, process: int, context: int | None, on_gpu: bool
) -> list[Item]:
    graphs = on_gpu and config.compile in ("auto", "graphs")  # see `agents/compiled.resolve`
    items = [Item("Python, PyTorch, the case", "ram", process)]
    if on_gpu:
        others = "" if context is None else " and other programs"
        items.append(Item(f"CUDA context{others}", "device", ASSUMED_CONTEXT if context is None else context))
        items.append(Item("kernels and workspaces", "device", LOADED_LATER + WORKSPACE * (1 + graphs)))
        items.append(Item("environments", "device", held_bytes(env)))
    # The environments' step comes on top of what the agent takes then; of all moments the largest counts.
    state = env.state_bytes
    least = max(STEP_OBSERVATIONS * env.obs_dim * FLOAT, STEP_STATES * state)
    step = int(env.num_envs * max(least, step_bytes(env)))
    moments = {**found.moments, STEP: found.moments[STEP] + step}
    largest = max(moments, key=lambda name: moments[name])
    held = {**found.agent.held(), largest: moments[largest]}
    if not on_gpu:
        held[HOLES] = int(found.agent.holes * moments[largest])
    if graphs:  # each keeps for itself whatever its capture allocated
        sizes, engine = len(found.agent.batches()), ENGINE_GRAPHS * (state > 0)
        name = f"{sizes * len(found.agent.gradients) + engine} CUDA graphs"
        held[name] = sizes * found.gradients + GRAPH_STATES * state * env.num_envs
    items += [*(Item(name, "device", nbytes) for name, nbytes in held.items()), *found.agent.stored(config)]
    return items if on_gpu else [Item(name, "ram" if at == "device" else at, size) for name, at, size in items]


def _told(chosen: Any, config: Any) -> Iterator[str]:
    """What a user should know of a choice that is not simply what was asked for."""
    if chosen.micro_batch != config.micro_batch:
        yield f"gradients are computed {chosen.micro_batch} transitions at a time: slower, the same result"
    if getattr(chosen, "placement", None) == "disk":
        yield "the replay buffer is a file: an SSD is needed for speed; its pages in RAM are the system's to take"
