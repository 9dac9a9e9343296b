"""The temperature inside: CityLearn's recurrent networks, those of all buildings and environments in one product.

Each building has an LSTM of its own. In every row it reads the last L rows, starting from the state in which the row
before left it, and predicts the temperature. Networks of one shape are stacked: G buildings, E environments, I inputs,
H units. In memory the environments come last, (G, features, E), so that the gates of a cell are whole blocks; what is
kept between steps has E as its first dimension all the same, by strides. A cell's input, its own output before and a 1
for the bias stand in one block, so that a row of a layer is one product.

Source: CityLearn 3.0.2, `building.py` (LSTMDynamicsBuilding) and `dynamics.py` (LSTMDynamics).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Floats
from iquitos_rl.cases.thermal import Dynamics

TEMPERATURE = "indoor_dry_bulb_temperature"
DEMANDS = ("cooling_demand", "heating_demand")
SET_POINTS = (f"{TEMPERATURE}_cooling_set_point", f"{TEMPERATURE}_heating_set_point")


PART = 256
"""Environments that a CPU computes at once, so that what a row needs stays in the cache."""


class Group(NamedTuple):
    """Networks of one shape. Gates are ordered input, forget, output, cell."""

    members: tuple[int, ...]
    """Index of each network's building."""
    buildings: Tensor
    """(G,) the same on the device."""
    weights: tuple[Tensor, ...]
    """Of each layer (G, 4H, H + 1 + I or H): of its own output, the bias, of its input."""
    head: Tensor
    """(G, 1, H)."""
    head_bias: Tensor
    """(G, 1, 1)."""
    changing: tuple[str, ...]
    """C names of the inputs that a step changes, besides the temperature: demands, and set-points where somebody
    changes them."""
    low: Tensor
    """(G, C) of these, kWh or C."""
    span: Tensor
    """(G, C)."""
    place: Tensor
    """(G, I, C + 1) 1 where an input is one of these, or the temperature."""
    temperature_low: Tensor
    """(G,) C."""
    temperature_span: Tensor
    """(G,)."""
    lookback: int
    alone: tuple[tuple[Tensor, ...], ...]
    """Of each network its weights in PyTorch's order, layer by layer, for PyTorch's own LSTM.

    Empty where all run in one product.
    """


class Memory(NamedTuple):
    """What the networks of a group remember."""

    window: Tensor
    """(E, G, L, I) the last rows of inputs, the latest last; each with the temperature of the row before it."""
    temperature: Tensor
    """(E, G) of the row before, normalised."""
    hidden: Tensor
    """(E, layers, G, H)."""
    cell: Tensor
    """(E, layers, G, H)."""


def make_groups(
    networks: Sequence[Dynamics | None], where: torch.device, exact: bool, occupied: bool = False
) -> tuple[Group, ...]:
    """Stack the buildings' networks by shape; None for a building without one.

    Args:
        occupied: set-points change.
    """
    shapes: dict[tuple[int, ...], list[int]] = {}
    for b, network in enumerate(networks):
        if network is not None:
            shape = (len(network.layers), len(network.head), len(network.inputs), network.lookback)
            shapes.setdefault(shape, []).append(b)
    groups = ((members, [networks[b] for b in members]) for members in shapes.values())
    return tuple(_group(members, own, where, exact, occupied) for members, own in groups)  # type: ignore[arg-type]


def _group(members: list[int], networks: list[Dynamics], where: torch.device, exact: bool, occupied: bool) -> Group:
    read = occupied and any(name in n.inputs for name in SET_POINTS for n in networks)
    changing = (*DEMANDS, *SET_POINTS) if read else DEMANDS

    def stack(values: Sequence[object]) -> Tensor:
        return torch.from_numpy(np.stack(values)).to(where, torch.float32)  # type: ignore[arg-type]

    def gates(layer: tuple[Floats, Floats, Floats, Floats]) -> Floats:
        """From PyTorch's order (input, forget, cell, output)."""
        into, back, one, other = layer
        i, f, g, o = np.split(np.hstack([back, (one + other)[:, None], into]), 4)
        return np.concatenate([i, f, o, g])

    def limits(name: str) -> list[tuple[float, float]]:
        """Lowest value and span of an input in each network; 0 and 1 where it has none of that name."""
        found = [(n.inputs.index(name) if name in n.inputs else None, n) for n in networks]
        return [(0.0, 1.0) if i is None else (n.low[i], n.high[i] - n.low[i]) for i, n in found]

    def one_hot(name: str) -> list[list[float]]:
        return [[float(own == name) for own in network.inputs] for network in networks]

    def weights(network: Dynamics) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(part).float().clone() for layer in network.layers for part in layer)

    depth = range(len(networks[0].layers))
    scales = np.array([limits(name) for name in changing])
    temperature = np.array(limits(TEMPERATURE))
    return Group(
        members=tuple(members),
        buildings=torch.tensor(members, device=where),
        weights=tuple(stack([gates(n.layers[k]) for n in networks]) for k in depth),
        head=stack([n.head[None] for n in networks]),
        head_bias=stack([np.full((1, 1), n.head_bias) for n in networks]),
        changing=changing,
        low=torch.tensor(scales[..., 0].T, device=where),
        span=torch.tensor(scales[..., 1].T, device=where),
        place=stack([np.array(one_hot(name)) for name in (*changing, TEMPERATURE)]).permute(1, 2, 0).contiguous(),
        temperature_low=torch.tensor(temperature[:, 0], device=where, dtype=torch.float32),
        temperature_span=torch.tensor(temperature[:, 1], device=where, dtype=torch.float32),
        lookback=networks[0].lookback,
        alone=tuple(weights(network) for network in networks) if exact and where.type == "cpu" else (),
    )


def normalised_rows(networks: Sequence[Dynamics], changing: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Of networks of one shape: (T, G, I) inputs as the data give them, normalised, those that change 0; and (T, G)
    normalised temperatures of the data."""
    inputs, temperatures = [], []
    for network in networks:
        values = (network.series - network.low) / (network.high - network.low)
        index = network.inputs.index(TEMPERATURE)
        temperatures.append(values[:, index])
        known = [name != TEMPERATURE and name not in changing for name in network.inputs]
        inputs.append(values * known)
    return np.stack(inputs, axis=1), np.stack(temperatures, axis=1)


def blank(group: Group, envs: int) -> Memory:
    """What the networks remember at the start of an episode: nothing."""
    g, inputs, _ = group.place.shape
    h, device, depth = group.head.shape[-1], group.head.device, len(group.weights)
    window = torch.zeros(g, inputs, group.lookback, envs, device=device).permute(3, 0, 2, 1)
    hidden, cell = (torch.zeros(depth, g, h, envs, device=device).permute(3, 0, 1, 2) for _ in range(2))
    return Memory(window, torch.zeros(g, envs, device=device).t(), hidden, cell)


def predict(
    group: Group, memory: Memory, known: Tensor, data: Tensor, changing: Tensor, full: Tensor
) -> tuple[Memory, Tensor]:
    """Read one more row and predict its temperature.

    Args:
        known: (E, G, I) normalised inputs of the row from the data, those that change 0.
        data: (E, G) normalised temperature of the row in the data, which holds until the window is full.
        changing: (E, G, C) kWh that cooling and heating delivered in the row, and set-points at its start.
        full: (E,) bool: the window holds as many rows as the network reads, and the row before them.

    Returns:
        The memory after the row, and the temperature (E, G) in C.
    """
    normal = ((changing - group.low) / group.span).to(torch.float32)
    entries = torch.cat([normal, memory.temperature.unsqueeze(-1)], dim=-1).permute(1, 2, 0)
    row = torch.baddbmm(known.permute(1, 2, 0), group.place, entries)
    window = torch.cat([memory.window.permute(1, 3, 2, 0)[:, :, 1:], row.unsqueeze(2)], dim=2)
    output, hidden, cell = (_read_alone if group.alone else read)(
        group, window, memory.hidden.permute(1, 2, 3, 0), memory.cell.permute(1, 2, 3, 0)
    )
    normal = torch.where(full.unsqueeze(-1), output, data)
    kept = full.to(torch.float32)  # until the window is full the networks' state is 0
    memory = Memory(
        window.permute(3, 0, 2, 1), normal, (hidden * kept).permute(3, 0, 1, 2), (cell * kept).permute(3, 0, 1, 2)
    )
    return memory, normal * group.temperature_span + group.temperature_low


def _read_alone(group: Group, window: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `read`, network by network: with one environment equal to CityLearn to the bit.

    CityLearn runs its networks as in training, and PyTorch has another kernel for that, which rounds differently. Some
    networks make a hundred times as much of the rounding.
    """
    outputs, states = [], []
    with torch.enable_grad():
        for g, weights in enumerate(group.alone):
            start = [x[:, g].transpose(1, 2).contiguous() for x in (hidden, cell)]
            rows = window[g].permute(2, 1, 0).contiguous()
            read, *state = torch.lstm(rows, start, weights, True, len(group.weights), 0.0, True, False, True)
            outputs.append(torch.nn.functional.linear(read[:, -1], group.head[g], group.head_bias[g, 0]))
            states.append([x.transpose(1, 2) for x in state])
    last_hidden, last_cell = (torch.stack(kind, dim=1) for kind in zip(*states))
    return torch.cat(outputs, dim=1), last_hidden, last_cell


def read(group: Group, window: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Let the networks read a window.

    Args:
        window: (G, I, L, E).
        hidden, cell: (layers, G, H, E) before the window.

    Returns:
        The networks' output (E, G), and `hidden` and `cell` after the window.
    """
    if torch.is_grad_enabled() and (window.requires_grad or hidden.requires_grad):
        hidden, cell = _read_traced(group, window, hidden, cell)
        return (torch.bmm(group.head, hidden[-1]) + group.head_bias)[:, 0].t(), hidden, cell
    envs = window.shape[-1]
    part = PART if window.device.type == "cpu" else envs
    parts = [
        _read_part(group, *(x[..., first : first + part] for x in (window, hidden, cell)))
        for first in range(0, envs, part)
    ]
    hidden, cell = parts[0] if len(parts) == 1 else (torch.cat(kind, dim=-1) for kind in zip(*parts))
    output = (torch.bmm(group.head, hidden[-1]) + group.head_bias)[:, 0].t()
    return output, hidden, cell


def _read_part(group: Group, window: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """`hidden` and `cell` after the window, of a part of the environments."""
    depth, g, width, envs = hidden.shape
    blocks = [window.new_ones(g, weights.shape[-1], envs) for weights in group.weights]
    own = [block[:, :width] for block in blocks]
    inputs = [block[:, width + 1 :] for block in blocks]
    cells = list(cell)
    for k in range(depth):
        own[k].copy_(hidden[k])
    for row in window.unbind(2):
        inputs[0].copy_(row)
        for k, weights in enumerate(group.weights):
            if k:
                inputs[k].copy_(own[k - 1])
            z = torch.bmm(weights, blocks[k])
            i, f, o = z[:, : 3 * width].sigmoid_().split(width, dim=1)
            cells[k] = torch.addcmul(f * cells[k], i, z[:, 3 * width :].tanh_())
            torch.mul(o, cells[k].tanh(), out=own[k])
    return torch.stack(own), torch.stack(cells)


def _read_traced(group: Group, window: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """As `_read_part`, in operations that autograd can go through."""
    width, one = hidden.shape[2], window.new_ones(window.shape[0], 1, window.shape[-1])
    hiddens, cells = list(hidden), list(cell)
    for row in window.unbind(2):
        below = row
        for k, weights in enumerate(group.weights):
            z = torch.bmm(weights, torch.cat([hiddens[k], one, below], dim=1))
            i, f, o = z[:, : 3 * width].sigmoid().split(width, dim=1)
            cells[k] = torch.addcmul(f * cells[k], i, z[:, 3 * width :].tanh())
            hiddens[k] = below = o * cells[k].tanh()
    return torch.stack(hiddens), torch.stack(cells)
