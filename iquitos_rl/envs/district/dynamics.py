"""The temperature inside: CityLearn's recurrent networks, those of all buildings and environments in one product.

Each building has an LSTM of its own. In every row it reads the last L rows, starting from the state in which the row
before left it, and predicts the temperature. Networks of one shape are stacked: G buildings, E environments, I inputs,
H units. Within a row everything is laid out features first, (G, features, E), so that the gates of a cell are whole
blocks of memory.

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


class Group(NamedTuple):
    """Networks of one shape. Gates are ordered input, forget, output, cell."""

    members: tuple[int, ...]
    """Index of each network's building."""
    buildings: Tensor
    """(G,) the same on the device."""
    into: tuple[Tensor, ...]
    """Of each layer (G, 4H, I or H)."""
    back: tuple[Tensor, ...]
    """Of each layer (G, 4H, H)."""
    bias: tuple[Tensor, ...]
    """Of each layer (G, 4H, 1)."""
    head: Tensor
    """(G, 1, H)."""
    head_bias: Tensor
    """(G, 1, 1)."""
    low: Tensor
    """(G, 2) of the demands for cooling and heating, kWh."""
    span: Tensor
    """(G, 2)."""
    place: Tensor
    """(G, 2, I) 1 where an input is the demand for cooling, or for heating."""
    temperature_low: Tensor
    """(G,) C."""
    temperature_span: Tensor
    """(G,)."""
    temperature: Tensor
    """(G, I) 1 where an input is the temperature."""
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
    """(E, G, layers, H)."""
    cell: Tensor
    """(E, G, layers, H)."""


def make_groups(networks: Sequence[Dynamics | None], where: torch.device, exact: bool) -> tuple[Group, ...]:
    """Stack the buildings' networks by shape; None for a building without one."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for b, network in enumerate(networks):
        if network is not None:
            shape = (len(network.layers), len(network.head), len(network.inputs), network.lookback)
            shapes.setdefault(shape, []).append(b)
    return tuple(_group(members, [networks[b] for b in members], where, exact) for members in shapes.values())  # type: ignore[misc]


def _group(members: list[int], networks: list[Dynamics], where: torch.device, exact: bool) -> Group:
    def stack(values: Sequence[object]) -> Tensor:
        return torch.from_numpy(np.stack(values)).to(where, torch.float32)  # type: ignore[arg-type]

    def gates(weights: Floats) -> Floats:
        """From PyTorch's order (input, forget, cell, output)."""
        i, f, g, o = np.split(weights, 4)
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
    demands = np.array([limits(name) for name in DEMANDS])
    temperature = np.array(limits(TEMPERATURE))
    return Group(
        members=tuple(members),
        buildings=torch.tensor(members, device=where),
        into=tuple(stack([gates(n.layers[k][0]) for n in networks]) for k in depth),
        back=tuple(stack([gates(n.layers[k][1]) for n in networks]) for k in depth),
        bias=tuple(stack([gates(n.layers[k][2] + n.layers[k][3])[:, None] for n in networks]) for k in depth),
        head=stack([n.head[None] for n in networks]),
        head_bias=stack([np.full((1, 1), n.head_bias) for n in networks]),
        low=torch.tensor(demands[..., 0].T, device=where),
        span=torch.tensor(demands[..., 1].T, device=where),
        place=stack([np.array(one_hot(name)) for name in DEMANDS]).transpose(0, 1).contiguous(),
        temperature_low=torch.tensor(temperature[:, 0], device=where, dtype=torch.float32),
        temperature_span=torch.tensor(temperature[:, 1], device=where, dtype=torch.float32),
        temperature=stack([np.array(one_hot(TEMPERATURE))])[0],
        lookback=networks[0].lookback,
        alone=tuple(weights(network) for network in networks) if exact and where.type == "cpu" else (),
    )


def normalised_rows(networks: Sequence[Dynamics]) -> tuple[Floats, Floats]:
    """Of networks of one shape: (T, G, I) inputs as the data give them, normalised, demands and temperature 0; and
    (T, G) normalised temperatures of the data."""
    inputs, temperatures = [], []
    for network in networks:
        values = (network.series - network.low) / (network.high - network.low)
        index = network.inputs.index(TEMPERATURE)
        temperatures.append(values[:, index])
        known = [name != TEMPERATURE and name not in DEMANDS for name in network.inputs]
        inputs.append(values * known)
    return np.stack(inputs, axis=1), np.stack(temperatures, axis=1)


def blank(group: Group, envs: int) -> Memory:
    """What the networks remember at the start of an episode: nothing."""
    g, h, device = len(group.buildings), group.head.shape[-1], group.head.device
    state = torch.zeros(envs, g, len(group.into), h, device=device)
    window = torch.zeros(envs, g, group.lookback, group.into[0].shape[-1], device=device)
    return Memory(window, torch.zeros(envs, g, device=device), state, torch.zeros_like(state))


def predict(
    group: Group, memory: Memory, known: Tensor, data: Tensor, delivered: Tensor, full: Tensor
) -> tuple[Memory, Tensor]:
    """Read one more row and predict its temperature.

    Args:
        known: (E, G, I) normalised inputs of the row from the data, demands and temperature 0.
        data: (E, G) normalised temperature of the row in the data, which holds until the window is full.
        delivered: (E, G, 2) kWh that cooling and heating delivered in the row.
        full: (E,) bool: the window holds as many rows as the network reads, and the row before them.

    Returns:
        The memory after the row, and the temperature (E, G) in C.
    """
    demand = ((delivered - group.low) / group.span).to(torch.float32)
    row = known + torch.einsum("egd,gdi->egi", demand, group.place)
    row = row + memory.temperature.unsqueeze(-1) * group.temperature
    window = torch.cat([memory.window[:, :, 1:], row.unsqueeze(2)], dim=2)
    output, hidden, cell = (_read_alone if group.alone else _read)(group, window, memory.hidden, memory.cell)
    normal = torch.where(full.unsqueeze(-1), output, data.to(torch.float32))
    kept = full.view(-1, 1, 1, 1)
    memory = Memory(window, normal, torch.where(kept, hidden, memory.hidden), torch.where(kept, cell, memory.cell))
    return memory, normal * group.temperature_span + group.temperature_low


def _read_alone(group: Group, window: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_read`, network by network: with one environment equal to CityLearn to the bit.

    CityLearn runs its networks as in training, and PyTorch has another kernel for that, which rounds otherwise. Some
    networks make a hundred times as much of the rounding.
    """
    outputs, states = [], []
    with torch.enable_grad():
        for g, weights in enumerate(group.alone):
            start = [x[:, g].transpose(0, 1).contiguous() for x in (hidden, cell)]
            read, *state = torch.lstm(
                window[:, g].contiguous(), start, weights, True, len(group.into), 0.0, True, False, True
            )
            outputs.append(torch.nn.functional.linear(read[:, -1], group.head[g], group.head_bias[g, 0]))
            states.append([x.transpose(0, 1) for x in state])
    last_hidden, last_cell = (torch.stack(kind, dim=1) for kind in zip(*states))
    return torch.cat(outputs, dim=1), last_hidden, last_cell


def _read(group: Group, window: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The networks' output (E, G), and their hidden and cell state after the window."""
    envs, g, length, _ = window.shape
    x = window.permute(1, 3, 2, 0).reshape(g, -1, length * envs)
    hs, cs = hidden.permute(2, 1, 3, 0).contiguous(), cell.permute(2, 1, 3, 0).contiguous()
    width = hs.shape[2]
    last_h, last_c = [], []
    h = hs[0]
    for k, (into, back, bias) in enumerate(zip(group.into, group.back, group.bias)):
        gates = torch.baddbmm(bias, into, x).view(g, 4 * width, length, envs)
        h, c, outputs = hs[k], cs[k], []
        for step in range(length):
            z = torch.baddbmm(gates[:, :, step], back, h)
            i, f, o = z[:, : 3 * width].sigmoid_().split(width, dim=1)
            c = torch.addcmul(f * c, i, z[:, 3 * width :].tanh_())
            h = o * c.tanh()
            outputs.append(h)
        last_h.append(h)
        last_c.append(c)
        if k + 1 < len(group.into):
            x = torch.stack(outputs, dim=2).view(g, width, length * envs)
    output = (torch.bmm(group.head, h) + group.head_bias)[:, 0].t()
    return output, torch.stack(last_h).permute(3, 1, 0, 2), torch.stack(last_c).permute(3, 1, 0, 2)
