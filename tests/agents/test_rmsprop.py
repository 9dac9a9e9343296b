"""RMSprop by TensorFlow's rule, against the rule written out."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import nn

from iquitos_rl.agents.rmsprop import RMSpropTF


def test_three_steps_written_out() -> None:
    p = nn.Parameter(torch.tensor([0.5, -2.0], dtype=torch.float64))
    unused = nn.Parameter(torch.ones(1))
    optimizer = RMSpropTF([p, unused], lr=0.1, alpha=0.9, eps=1e-3)
    value, average = p.tolist(), [1.0, 1.0]
    for grad in ([1.0, -3.0], [0.0, 0.01], [10.0, 2.0]):
        p.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        average = [0.9 * s + 0.1 * g * g for s, g in zip(average, grad)]
        value = [v - 0.1 * g / math.sqrt(s + 1e-3) for v, g, s in zip(value, grad, average)]
        torch.testing.assert_close(p.detach(), torch.tensor(value, dtype=torch.float64))
    assert unused.item() == 1.0


def test_the_first_step_is_short_where_pytorchs_is_ten_times_the_step_size() -> None:
    steps = []
    for optimizer_type in (RMSpropTF, torch.optim.RMSprop):
        p = nn.Parameter(torch.zeros(1))
        p.grad = torch.full((1,), 1e-2)
        optimizer_type([p], lr=1.0, alpha=0.99, eps=1e-5).step()
        steps.append(abs(p.item()))
    assert steps[0] < 0.011
    assert steps[1] > 9.9


def test_state_is_saved_and_restored() -> None:
    ours, theirs = (nn.Parameter(torch.ones(3)) for _ in range(2))
    a, b = RMSpropTF([ours], lr=0.1), RMSpropTF([theirs], lr=0.3)
    for optimizer, p in ((a, ours), (b, theirs)):
        p.grad = torch.arange(3.0)
        if optimizer is a:
            optimizer.step()
    b.load_state_dict(deepcopy(a.state_dict()))
    with torch.no_grad():
        theirs.copy_(ours)
    a.step()
    b.step()
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
