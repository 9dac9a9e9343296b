"""What a training run will take, item by item, before it takes anything; and what fits.

Pure arithmetic from the sizes of the environment and the settings. Only two things are measured, by the caller: what is
free, and what the process takes already (interpreter, libraries, data of the case; on a GPU the context, and what other
programs hold there).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Any, Literal, NamedTuple

import torch

from iquitos_rl.buffers.codecs import CODECS
from iquitos_rl.buffers.placement import HEADROOM, PLACEMENTS, STAGING_BYTES, Placement
from iquitos_rl.buffers.replay import Sizes, layouts, resolve_storage
from iquitos_rl.buffers.rollout import Rollout, storage_type
from iquitos_rl.envs.district.footprint import held_bytes
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import show_size
from iquitos_rl.memory.recovery import FLOOR

Where = Literal["device", "ram", "disk"]
FLOAT, DOUBLE = 4, 8
BATCHES_PER_GATHER = 8
VALUE_CHUNK = 2_048
WORKSPACE = 40 << 20
"""cuBLAS takes 8 to 32 MiB for itself on each stream, and PyTorch's allocator hands out blocks of 2 MiB and more.
Captures run on a stream of their own."""
LOADED_LATER = 72 << 20
"""Kernels that a training loads after the context was measured, and what the driver keeps of graphs. By how much the
context grew, in nine settings of SAC alike, on an H100 (`benchmarks/results/vram_gpu.md`)."""
ASSUMED_CONTEXT = 450 << 20
"""A CUDA context with PyTorch's kernels, where there is no GPU to measure it on."""
STEP = "a step of the environments"
STEP_OBSERVATIONS = 5
"""Tensors of an observation's width that are there at once in a step of the environments: the one acted on, the new
one, the rows and the state that it is joined from, the state before it is scaled."""
STEP_STATES = 1.5
"""A step of the district engine takes so many times its state."""
ENGINE_GRAPHS, GRAPH_STATES = 4, 6
"""An action's meaning, a step, the beginning of episodes, what is seen (see `GuidedSite.capture`), and how many times
the state they keep together, their arguments included."""
ESTIMATES = 8
"""Numbers of a transition that its advantage is made of: reward, value and the next one, continuation, advantage,
return, and the discounted reward in float64."""


class Dims(NamedTuple):
    """What the arithmetic needs of an environment."""

    num_envs: int
    obs_dim: int
    action_dim: int
    record_bytes: dict[str, tuple[int, int]]
    """Storage to bytes of an observation and of an action in a replay buffer."""
    table_columns: int
    """Columns of an observation that are a row of a table."""
    masked: bool
    episode_steps: int | None
    env_bytes: int
    """Tensors of the environment on its device."""
    state_bytes: int
    """What one environment of a batched engine keeps between two steps; 0 for others."""

    @classmethod
    def of(cls, env: VectorEnv) -> Dims:
        exogenous = env.exogenous
        records = {}
        possible = [name for name, codec in CODECS.items() if exogenous is not None or not codec.bounded]
        for storage in ("auto", *possible):
            both = layouts(resolve_storage(storage, exogenous), env.obs_dim, env.action_dim, exogenous, env.device)
            records[storage] = both[0].nbytes, both[1].nbytes
        masked = env.action_mask_columns is not None
        columns = 0 if exogenous is None else exogenous.table.shape[1]
        sizes = env.num_envs, env.obs_dim, env.action_dim
        return cls(*sizes, records, columns, masked, env.episode_steps, held_bytes(env), env.state_bytes)

    @property
    def step_bytes(self) -> int:
        """The most that a step of all environments takes for a moment."""
        return int(self.num_envs * max(STEP_OBSERVATIONS * self.obs_dim * FLOAT, STEP_STATES * self.state_bytes))


class Item(NamedTuple):
    name: str
    where: Where
    nbytes: int


class Limits(NamedTuple):
    """Bytes that there are for the whole process."""

    device: int | None
    """None where the agent is on the CPU."""
    ram: int
    disk: int


class Choice(NamedTuple):
    """What the planner decides; None where it does not apply."""

    placement: Placement | None
    storage: str
    capacity: int | None
    micro_batch: int | None


class Plan(NamedTuple):
    items: tuple[Item, ...]
    choice: Choice
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

    def apply(self, config: Any) -> Any:
        """The settings with what was decided."""
        placed = {} if self.choice.placement is None else {"placement": self.choice.placement}
        return config.model_copy(update={**placed, "micro_batch": self.choice.micro_batch})

    def table(self) -> str:
        """For people: a line for every item, and the sums beside what there is."""
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
        choice = [f"{name} {value}" for name, value in self.choice._asdict().items() if value is not None]
        return "\n".join([*lines, "chosen: " + ", ".join(choice), *self.notes])


class DoesNotFitError(UserError):
    """What is missing, and what would fit.

    Args:
        plan: the one that comes closest.
    """

    def __init__(self, message: str, plan: Plan) -> None:
        super().__init__(message)
        self.plan = plan


def perceptron(sizes: Sequence[int]) -> int:
    """Parameters of linear layers of the given sizes, biases included."""
    return sum(i * o + o for i, o in pairwise(sizes))


def taped(sizes: Sequence[int], rows: int, half: bool, norms: bool = False, layers: int | None = None) -> int:
    """Bytes of the tape that `agents/layers.py` writes in a perceptron, or of its first `layers`, without the first
    one's input: with norms also what comes before and after them, with bfloat16 also copies of the weights."""
    count, each = len(sizes) - 1, FLOAT // 2 if half else FLOAT
    layers = count if layers is None else layers
    nbytes = rows * sum(sizes[1:layers]) * (3 if norms else 1) * each
    if half:  # all of it but the output layer
        nbytes += perceptron(sizes[: min(layers + 1, count)]) * each + (layers == count) * rows * sizes[-2] * each
    return nbytes


def rewound(sizes: Sequence[int], rows: int, half: bool, norms: bool = False, parameters: bool = True) -> int:
    """Most bytes at once on the way back along that tape: what is left of it, the gradients by a layer's output and by
    its input, and the gradients of the parameters behind them."""
    most, count = 0, len(sizes) - 1
    for layer in range(count):
        by_input = sizes[layer] if layer else 0
        under_way = rows * (sizes[layer + 1] + by_input) * (FLOAT // 2 if half and layer < count - 1 else FLOAT)
        behind = perceptron(sizes[layer:]) * FLOAT if parameters else 0
        most = max(most, taped(sizes, rows, half, norms, layer + 1) + under_way + behind)
    return most


def sac_items(dims: Dims, c: Any, choice: Choice, on_gpu: bool) -> list[Item]:
    """Items of a SAC agent with settings `c`."""
    assert choice.capacity is not None
    d, a, h = dims.obs_dim, dims.action_dim, list(c.hidden)
    actor = perceptron([d, *h, 2 * a]) * FLOAT
    n = c.critics
    critics = n * (perceptron([d + a, *h, 1]) + (2 * sum(h) if c.layer_norm else 0)) * FLOAT
    batch, part = c.batch_size, min(choice.micro_batch or c.batch_size, c.batch_size)
    obs_bytes, action_bytes = dims.record_bytes[choice.storage]
    sizes = Sizes.of(choice.capacity, dims.num_envs, episode_steps=dims.episode_steps)
    replay, small = sizes.nbytes(obs_bytes, action_bytes), sizes.ring_rows * 8
    # Of the updates that one step brings, as many batches are fetched at once; from other memory one by one.
    updates = ceil(c.update_ratio * dims.num_envs)
    fetched = 1 if on_gpu and choice.placement != "cuda" else min(BATCHES_PER_GATHER, updates)
    row = (2 * d + a + 3) * FLOAT
    noise = 2 * a * FLOAT * min(BATCHES_PER_GATHER, updates) * batch
    again = updates > BATCHES_PER_GATHER or fetched < updates
    record = 2 * obs_bytes + action_bytes
    fetching = fetched * batch * (record + 2 * dims.table_columns * FLOAT)
    fetching += fetched * batch * row * again  # the last batch is still there while the next one is decoded
    half, norms = c.amp != "off", c.layer_norm
    of_actor, of_critics = [d, *h, 2 * a], [d + a, *h, 1]
    actions, live, rounded = a * part * FLOAT, a * part * dims.masked, FLOAT // 2 * half
    # The critics read observation and action joined, in bfloat16 beside what it was rounded from.
    reading = (d + a) * part * (FLOAT + rounded) + n * taped(of_critics, part, half, norms)
    joined = (d + a) * part * (rounded or FLOAT)
    critics_turn = max(
        9 * actions + live,  # while the next action is drawn
        actions + reading,
        joined + n * rewound(of_critics, part, half, norms),
        critics,
    )
    by_action = max(n + 1, 1.5 * n * half) * actions  # each critic's gradient by it, and their sum or float32 copies
    tape, waiting = taped(of_actor, part, half), 3 * actions + live  # the action, and the output it was drawn from
    actors_turn = part * d * rounded + max(
        tape + waiting + reading,
        tape + waiting + joined + n * rewound(of_critics, part, half, norms, parameters=False),
        tape + waiting + joined + n * h[0] * part * (rounded or FLOAT) + by_action,
        tape + 11 * actions + 3 * live,  # from there to the one by the output
        6 * actions + live + rewound(of_actor, part, half),
        actor,
    )
    split = part < batch  # the sum so far beside a part's own
    # Either network's gradients are kept until it is its turn again.
    gradient = max(actor + critics_turn + critics * split, critics + actors_turn + actor * split)
    place: Where = "device" if on_gpu else "ram"
    items = [
        Item("actor and critics", place, actor + critics),
        Item("target critics", place, critics),
        Item("gradients", place, actor + critics),
        Item("Adam's moments", place, 2 * (actor + critics)),
        Item(f"{fetched} batches and noise", place, fetched * batch * row + noise),
        _largest(
            place,
            {
                f"a gradient from {part} transitions": max(0, gradient - actor - critics),
                "fetching batches": fetching,
                STEP: dims.step_bytes,
            },
        ),
        *_graphs(c, place, dims, gradient, 2),
    ]
    if on_gpu and choice.placement != "cuda":
        items.append(Item("the next batch on its way", place, batch * (record + 3 * FLOAT)))
        items.append(Item("staging", "ram", 2 * STAGING_BYTES))
    if choice.placement == "disk":
        # Pages of the file that are in RAM are the system's to take back, so they count nowhere.
        return [*items, Item("replay file", "disk", replay - small), Item("replay index", "ram", small)]
    where: Where = "device" if choice.placement == "cuda" else "ram"
    return [*items, Item(f"replay of {choice.capacity:,}, {choice.storage}", where, replay)]


def on_policy_items(dims: Dims, c: Any, choice: Choice, on_gpu: bool, moments: int) -> list[Item]:
    """Items of PPO (two moments a parameter) or A2C (one), with settings `c`."""
    d, a, h, e = dims.obs_dim, dims.action_dim, list(c.hidden), dims.num_envs
    weights = (perceptron([d, *h, a]) + perceptron([d, *h, 1]) + a) * FLOAT
    dtype = storage_type(c.storage)
    rollout = Rollout(c.horizon, e, d, a, masked=dims.masked, obs_dtype=dtype, device="meta").nbytes
    steps = c.horizon * e
    minibatches = hasattr(c, "batch_size")  # A2C looks at the rollout itself
    batch = min(c.batch_size, steps) if minibatches else steps
    part = min(choice.micro_batch or batch, batch)
    converted = 0 if dtype == torch.float32 else d
    row = (d + a + 4) * FLOAT + (a if dims.masked else 0)
    # The critic's backward pass comes first, then the head's, then the actor's.
    head = (7 if dims.masked else 6) * a * part * FLOAT
    half, critic = c.amp != "off", perceptron([d, *h, 1]) * FLOAT
    waiting = taped([d, *h, a], part, half)
    of_critic = waiting + 2 * a * part * FLOAT + rewound([d, *h, 1], part, half)
    of_actor = max(waiting + head, rewound([d, *h, a], part, half))
    gradient = max(of_critic, critic + of_actor, weights) + weights * (part < batch)
    gradient += 2 * part * d * (FLOAT // 2) * half  # each network's copy of the observations
    gradient += batch * row if minibatches else part * converted * FLOAT
    chunk = min(VALUE_CHUNK, steps)
    update = {
        f"a gradient from {part} transitions": max(0, gradient - weights),
        "values of a rollout": chunk * (max(map(sum, pairwise([*h, 1]))) + converted) * FLOAT,
        STEP: dims.step_bytes + e * 3 * d * DOUBLE,
    }
    if minibatches:
        update["taking a minibatch"] = batch * (2 * row + converted * dtype.itemsize)  # the last one is still there
    else:
        update["the optimiser's step"] = 2 * weights
    place: Where = "device" if on_gpu else "ram"
    return [
        Item("actor and critic", place, weights),
        Item("gradients", place, weights),
        Item("optimiser's moments", place, moments * weights),
        Item(f"rollout of {steps:,}", place, rollout),
        Item("advantages and returns", place, ESTIMATES * steps * FLOAT),
        _largest(place, update),
        *_graphs(c, place, dims, gradient, 2 if batch and steps % batch else 1),
    ]


def _largest(where: Where, moments: dict[str, int]) -> Item:
    """What is there only for a moment: one after the other, so the largest counts."""
    name = max(moments, key=lambda name: moments[name])
    return Item(name, where, moments[name])


def with_graphs(config: Any) -> bool:
    """Whether an agent with these settings replays CUDA graphs on a GPU; see `agents/compiled.resolve`."""
    return config.compile in ("auto", "graphs")


def _graphs(c: Any, where: Where, dims: Dims, each: int, count: int) -> list[Item]:
    """A CUDA graph keeps for itself whatever its capture allocated: those of gradients, and those of the engine."""
    if where != "device" or not with_graphs(c):
        return []
    engine = GRAPH_STATES * dims.state_bytes * dims.num_envs
    return [Item(f"{count + ENGINE_GRAPHS * (engine > 0)} CUDA graphs", where, count * each + engine)]


def build(
    algorithm: str, dims: Dims, config: Any, choice: Choice, limits: Limits, process: int, context: int | None
) -> Plan:
    """The plan of one choice.

    Args:
        process: bytes of RAM that the process takes already, the environments included.
        context: bytes that the CUDA context and other programs were measured to take; None where there is no GPU.
    """
    on_gpu = limits.device is not None
    items = [Item("Python, PyTorch, the case", "ram", process)]
    notes = []
    if on_gpu:
        beside = "" if context is None else " and other programs"
        items.append(Item(f"CUDA context{beside}", "device", ASSUMED_CONTEXT if context is None else context))
        items.append(Item("kernels and workspaces", "device", LOADED_LATER + WORKSPACE * (1 + with_graphs(config))))
        items.append(Item("environments", "device", dims.env_bytes))
        if context is None:
            notes.append("the CUDA context is assumed, not measured: there is no GPU here")
    if algorithm == "sac":
        items += sac_items(dims, config, choice, on_gpu)
    else:
        items += on_policy_items(dims, config, choice, on_gpu, moments=2 if algorithm == "ppo" else 1)
    return Plan(tuple(items), choice, limits, tuple(notes))


def fit(algorithm: str, dims: Dims, config: Any, limits: Limits, process: int, context: int | None = None) -> Plan:
    """The first choice that fits: the fastest place for the replay buffer, then smaller micro-batches.

    What the settings say is kept, and a share of each memory is left alone.

    Raises:
        DoesNotFitError: nothing fits; it says by how much, and what would.
    """
    device, ram, disk = (None if limit is None else int(limit * (1 - HEADROOM)) for limit in limits)
    kept = Limits(device, ram or 0, disk or 0)
    choices = _choices(algorithm, dims, config, limits.device is not None)

    def planned(choice: Choice) -> Plan:
        return build(algorithm, dims, config, choice, kept, process, context)

    for choice in choices:
        plan = planned(choice)
        if plan.fits:
            return plan._replace(limits=limits, notes=plan.notes + _told(plan.choice, config))
    closest = planned(choices[-1])
    advice = [_missing(closest)]
    sizes = (1 << n for n in range(choices[-1].capacity.bit_length(), 9, -1)) if choices[-1].capacity else ()
    smaller = (choice._replace(capacity=size) for size in sizes for choice in choices if size < (choice.capacity or 0))
    fitting = next((choice for choice in smaller if planned(choice).fits), None)
    if fitting is not None:
        where = f" --set agent.placement={fitting.placement}" if config.placement != fitting.placement else ""
        advice.append(f"this would fit: --set agent.buffer_size={fitting.capacity}{where}")
    elif algorithm == "ppo":
        advice.append("lower agent.horizon, num_envs or agent.hidden")
    else:
        advice.append("lower num_envs or agent.hidden")
    raise DoesNotFitError(f"training does not fit: {'; '.join(advice)}", closest._replace(limits=limits))


def _choices(algorithm: str, dims: Dims, config: Any, on_gpu: bool) -> list[Choice]:
    """In the order in which they are preferred."""
    batch = getattr(config, "batch_size", None) or config.horizon * dims.num_envs
    largest = min(config.micro_batch or batch, batch)
    parts: list[int | None] = [config.micro_batch]
    while largest > FLOOR:
        largest = max(FLOOR, largest // 2)
        parts.append(largest)
    if algorithm != "sac":
        return [Choice(None, config.storage, None, part) for part in parts]
    placements: list[Placement] = [p for p in PLACEMENTS if on_gpu or p in ("ram", "disk")]
    if config.placement != "auto":
        placements = [config.placement]
    return [Choice(place, config.storage, config.buffer_size, part) for part in parts for place in placements]


def _told(choice: Choice, config: Any) -> tuple[str, ...]:
    """What a user should know of a choice that is not simply what was asked for."""
    notes = []
    if choice.micro_batch != config.micro_batch:
        notes.append(f"gradients are computed {choice.micro_batch} transitions at a time: slower, the same result")
    if choice.placement == "disk":
        notes.append(
            "the replay buffer is a file: an SSD is needed for speed; its pages in RAM are the system's to take"
        )
    return tuple(notes)


def _missing(plan: Plan) -> str:
    names: dict[Where, str] = {"device": "GPU memory", "ram": "RAM", "disk": "disk space"}
    short = [f"{show_size(missing)} of {names[where]} missing" for where, missing in plan.missing().items()]
    largest = max((item for item in plan.items if item.where in plan.missing()), key=lambda item: item.nbytes)
    return f"{', '.join(short)}; the largest item is '{largest.name}' with {show_size(largest.nbytes)}"
