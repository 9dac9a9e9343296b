"""What a training run will take, item by item, before it takes anything; and what fits.

Every part says what it holds (agent, buffer, environment), and a rehearsal measures what an update takes for a moment
(`rehearsal.py`). Here this is added up, and the placement of the replay buffer and the micro-batch are chosen. The
caller measures what is free, and what the process takes already: interpreter, libraries, data of the case; on a GPU the
context, and what other programs hold there.
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
from iquitos_rl.memory.rehearsal import STEP, Rehearsal, rehearse

FLOAT = 4
WORKSPACE = 40 << 20
"""cuBLAS takes 8 to 32 MiB for itself on each stream, and PyTorch's allocator hands out blocks of 2 MiB and more.
Captures run on a stream of their own."""
LOADED_LATER = 72 << 20
"""Kernels that a training loads after the context was measured, and what the driver keeps of graphs. By how much the
context grew, in nine settings of SAC alike, on an H100 (`benchmarks/results/vram_gpu.md`)."""
ASSUMED_CONTEXT = 450 << 20
"""A CUDA context with PyTorch's kernels, where there is no GPU to measure it on."""
STEP_OBSERVATIONS = 5
"""Tensors of an observation's width that exist at once in a step of the environments: the one acted on, the new one,
the rows and the state that it is joined from, the state before it is scaled."""
STEP_STATES = 1.5
"""A step of the district engine takes so many times its state."""
ENGINE_GRAPHS, GRAPH_STATES = 4, 6
"""Captured functions of the district engine (act, step, reset, observe; see `GuidedSite.capture`), and how many times
its state they keep together, their arguments included."""
CHOSEN = "placement", "storage", "buffer_size", "micro_batch"
"""Settings shown below the table, where an agent has them."""


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
        limits: dict[Where, int] = {
            "device": self.limits.device or 0,
            "ram": self.limits.ram,
            "disk": self.limits.disk,
        }
        return {where: self.total(where) - limit for where, limit in limits.items() if self.total(where) > limit}

    def table(self) -> str:
        """For people: a line for every item, and the sums next to what there is."""
        columns: list[Where] = ["ram"]
        if self.limits.device is not None:
            columns.insert(0, "device")
        if self.total("disk"):
            columns.append("disk")
        width = max(len(item.name) for item in self.items)

        def line(name: str, cells: dict[Where, int]) -> str:
            shown = [show_size(cells[where]) if cells.get(where) else "" for where in columns]
            return f"{name:<{width}}" + "".join(f"  {cell:>13}" for cell in shown)

        heads: dict[Where, str] = {"device": "GPU", "ram": "RAM", "disk": "disk"}
        lines = [" " * width + "".join(f"  {heads[where]:>13}" for where in columns)]
        lines += [line(item.name, {item.where: item.nbytes}) for item in self.items if item.nbytes]
        lines.append(line("sum", {where: self.total(where) for where in columns}))
        lines.append(
            line("there is", {"device": self.limits.device or 0, "ram": self.limits.ram, "disk": self.limits.disk})
        )
        values = {name: getattr(self.config, name, None) for name in CHOSEN}
        chosen = [f"{name} {value}" for name, value in values.items() if value is not None]
        return "\n".join([*lines, "chosen: " + ", ".join(chosen), *self.notes])


class DoesNotFitError(UserError):
    """What is missing, and what would fit.

    Args:
        plan: the one that comes closest.
    """

    def __init__(self, message: str, plan: Plan) -> None:
        super().__init__(message)
        self.plan = plan


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
    device, ram, disk = (None if limit is None else int(limit * (1 - HEADROOM)) for limit in limits)
    kept, on_gpu = Limits(device, ram or 0, disk or 0), device is not None
    assumed = ("the CUDA context is assumed, not measured: there is no GPU here",) * (on_gpu and context is None)

    @cache
    def rehearsed(micro_batch: int | None, elsewhere: bool) -> Rehearsal:
        changes = {"micro_batch": micro_batch, "compile": "off", "placement": "ram" if elsewhere else "cuda"}
        known = {name: value for name, value in changes.items() if hasattr(config, name)}
        return rehearse(agent, env, config.model_copy(update=known), networks or {}, on_gpu and with_graphs(config))

    def planned(chosen: Any) -> Plan:
        elsewhere = on_gpu and getattr(chosen, "placement", "cuda") != "cuda"
        found = rehearsed(chosen.micro_batch, elsewhere)
        items = [Item("Python, PyTorch, the case", "ram", process)]
        items += _of_gpu(env, chosen, context) if on_gpu else []
        items += _of_agent(env, chosen, found)
        items += [Item("staging", "ram", 2 * STAGING_BYTES)] if elsewhere else []
        if not on_gpu:
            items = [item._replace(where="ram") if item.where == "device" else item for item in items]
        return Plan(tuple(items), chosen, kept, assumed)

    batch = rehearsed(config.micro_batch, False).agent.batches()[0]
    places, parts = _places(config, on_gpu), _parts(config, batch)

    def fitting(part: int | None, **changes: int) -> Plan | None:
        choices = (config.model_copy(update={"micro_batch": part, **place, **changes}) for place in places)
        return next((plan for plan in map(planned, choices) if plan.fits), None)

    # A smaller part never takes more, so the largest that fits is found by halving.
    fits = fitting(parts[0])
    if fits is None:
        first = bisect_left(parts, True, lo=1, key=lambda part: fitting(part) is not None)
        fits = fitting(parts[first]) if first < len(parts) else None
    if fits is not None:
        return fits._replace(limits=limits, notes=(*assumed, *_told(fits.config, config)))
    closest = planned(config.model_copy(update={"micro_batch": parts[-1], **places[-1]}))
    advice = [_missing(closest)]
    capacity = getattr(config, "buffer_size", 0)
    sizes = [1 << n for n in range(capacity.bit_length(), 9, -1) if env.num_envs <= 1 << n < capacity]
    smaller = next(filter(None, (fitting(parts[-1], buffer_size=size) for size in sizes)), None)
    if smaller is not None:
        would = smaller.config
        where = f" --set agent.placement={would.placement}" if config.placement != would.placement else ""
        advice.append(f"this would fit: --set agent.buffer_size={would.buffer_size}{where}")
    else:
        advice.append(f"lower {agent.advice}, or num_envs")
    raise DoesNotFitError(f"training does not fit: {'; '.join(advice)}", closest._replace(limits=limits))


def _of_gpu(env: VectorEnv, config: Any, context: int | None) -> list[Item]:
    """What a GPU holds whatever the agent."""
    others = "" if context is None else " and other programs"
    return [
        Item(f"CUDA context{others}", "device", ASSUMED_CONTEXT if context is None else context),
        Item("kernels and workspaces", "device", LOADED_LATER + WORKSPACE * (1 + with_graphs(config))),
        Item("environments", "device", held_bytes(env)),
    ]


def _of_agent(env: VectorEnv, config: Any, found: Rehearsal) -> list[Item]:
    # The environments' step comes on top of what the agent takes then; of all moments the largest counts.
    step = max(STEP_OBSERVATIONS * env.obs_dim * FLOAT, STEP_STATES * env.state_bytes)
    moments = {**found.moments, STEP: found.moments[STEP] + int(env.num_envs * step)}
    largest = max(moments, key=lambda name: moments[name])
    items = [Item(name, "device", nbytes) for name, nbytes in {**found.held, largest: moments[largest]}.items()]
    if found.captured:
        engine = GRAPH_STATES * env.state_bytes * env.num_envs
        count = len(found.captured) + ENGINE_GRAPHS * (engine > 0)
        items.append(Item(f"{count} CUDA graphs", "device", sum(found.captured) + engine))
    return items + found.agent.stored(config)


def with_graphs(config: Any) -> bool:
    """Whether an agent with these settings replays CUDA graphs on a GPU; see `agents/compiled.resolve`."""
    return config.compile in ("auto", "graphs")


def _places(config: Any, on_gpu: bool) -> list[dict[str, Any]]:
    """Settings of the placement, the fastest first; one without any where the agent has no such setting."""
    if not hasattr(config, "placement"):
        return [{}]
    if config.placement != "auto":
        return [{"placement": config.placement}]
    return [{"placement": place} for place in PLACEMENTS if on_gpu or place in ("ram", "disk")]


def _parts(config: Any, batch: int) -> list[int | None]:
    """Values of `micro_batch` from the setting's own down to the smallest, for gradients of `batch` transitions."""
    parts, largest = [config.micro_batch], min(config.micro_batch or batch, batch)
    while largest > FLOOR:
        largest = max(FLOOR, largest // 2)
        parts.append(largest)
    return parts


def _told(chosen: Any, config: Any) -> Iterator[str]:
    """What a user should know of a choice that is not simply what was asked for."""
    if chosen.micro_batch != config.micro_batch:
        yield f"gradients are computed {chosen.micro_batch} transitions at a time: slower, the same result"
    if getattr(chosen, "placement", None) == "disk":
        yield "the replay buffer is a file: an SSD is needed for speed; its pages in RAM are the system's to take"


def _missing(plan: Plan) -> str:
    names: dict[Where, str] = {"device": "GPU memory", "ram": "RAM", "disk": "disk space"}
    short = [f"{show_size(missing)} of {names[where]} missing" for where, missing in plan.missing().items()]
    largest = max((item for item in plan.items if item.where in plan.missing()), key=lambda item: item.nbytes)
    return f"{', '.join(short)}; the largest item is '{largest.name}' with {show_size(largest.nbytes)}"
