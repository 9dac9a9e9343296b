"""Stacked networks against PyTorch's own LSTM, one building at a time."""

import numpy as np
import torch

from iquitos_rl.cases.thermal import Dynamics
from iquitos_rl.envs.district import dynamics

INPUTS = ("outdoor_dry_bulb_temperature", "cooling_demand", "indoor_dry_bulb_temperature")
LOOKBACK, WIDTH, DEPTH = 4, 5, 2


def network(lstm, head):
    """An `LSTM` and its last layer as the data of a case."""
    weights = [p.detach().double().numpy() for p in lstm.parameters()]
    layers = tuple(tuple(weights[4 * k : 4 * k + 4]) for k in range(DEPTH))
    low, high, series = np.zeros(3), np.ones(3), np.zeros((9, 3))
    bias = head.bias.item()
    return Dynamics(INPUTS, low, high, LOOKBACK, layers, head.weight.detach().double().numpy()[0], bias, series)


def test_networks_read_a_window_as_pytorch_does():
    """More environments than a CPU computes at once, each with a state of its own."""
    torch.manual_seed(0)
    envs = dynamics.PART + 44
    own = [(torch.nn.LSTM(3, WIDTH, DEPTH, batch_first=True), torch.nn.Linear(WIDTH, 1)) for _ in range(2)]
    (group,) = dynamics.make_groups([network(*own[0]), None, network(*own[1])], torch.device("cpu"), exact=False)
    assert group.members == (0, 2)
    window = torch.rand(2, 3, LOOKBACK, envs)
    hidden, cell = torch.rand(2, DEPTH, 2, WIDTH, envs)
    with torch.no_grad():
        output, after_hidden, after_cell = dynamics.read(group, window, hidden, cell)
        for g, (lstm, head) in enumerate(own):
            state = tuple(x[:, g].transpose(1, 2).contiguous() for x in (hidden, cell))
            outputs, (last, last_cell) = lstm(window[g].permute(2, 1, 0).contiguous(), state)
            torch.testing.assert_close(output[:, g], head(outputs[:, -1])[:, 0], rtol=0, atol=1e-6)
            torch.testing.assert_close(after_hidden[:, g].transpose(1, 2), last, rtol=0, atol=1e-6)
            torch.testing.assert_close(after_cell[:, g].transpose(1, 2), last_cell, rtol=0, atol=1e-6)


def test_a_network_predicts_only_once_it_has_read_as_many_rows_as_it_looks_back():
    """Until then the temperature is the data's, and the network remembers nothing but the rows."""
    torch.manual_seed(0)
    lstm, head = torch.nn.LSTM(3, WIDTH, DEPTH, batch_first=True), torch.nn.Linear(WIDTH, 1)
    (group,) = dynamics.make_groups([network(lstm, head)], torch.device("cpu"), exact=False)
    memory = dynamics.blank(group, 2)
    known = torch.rand(LOOKBACK + 1, 2, 1, 3) * torch.tensor([1.0, 0.0, 0.0])
    data, delivered = torch.rand(LOOKBACK + 1, 2, 1), torch.rand(LOOKBACK + 1, 2, 1, 2)
    with torch.no_grad():
        for t in range(LOOKBACK + 1):
            full = torch.tensor([t == LOOKBACK, False])
            memory, temperature = dynamics.predict(group, memory, known[t], data[t], delivered[t], full)
            if t < LOOKBACK:
                torch.testing.assert_close(temperature, data[t])
        rows = known[1:, 0, 0].clone()
        rows[:, 1], rows[:, 2] = delivered[1:, 0, 0, 0], data[:-1, 0, 0]
        expected = head(lstm(rows[None])[0][:, -1])[0, 0]
    torch.testing.assert_close(temperature[0, 0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(temperature[1], data[-1, 1])
    assert not memory.hidden[1].any()
