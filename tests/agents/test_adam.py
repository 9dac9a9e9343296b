import copy

import pytest
import torch
from torch import nn

from iquitos_rl.agents.adam import Adam


def parameters():
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=g)) for shape in ((3, 4), (5,), ())]


@pytest.mark.parametrize("resumed", [0, 1, 3])
def test_steps_are_torchs_to_the_bit(resumed):
    """With steps that are left out because a number was not finite, and going on from a state of either."""
    own, torchs = parameters(), parameters()
    one, other = Adam(own, lr=0.01, eps=1e-5), torch.optim.Adam(torchs, lr=0.01, eps=1e-5, fused=True)
    g = torch.Generator().manual_seed(1)
    for step in range(6):
        if step == resumed:
            state = copy.deepcopy(other.state_dict())
            one = Adam(own, lr=1.0)
            one.load_state_dict(state)
        one.found_inf = other.found_inf = torch.tensor(float(step == 2))
        for p, q in zip(own, torchs):
            p.grad = torch.randn(p.shape, generator=g)
            q.grad = p.grad.clone()
        one.step()
        other.step()
        assert all(torch.equal(p, q) for p, q in zip(own, torchs))
    for p, q in zip(own, torchs):
        assert all(torch.equal(one.state[p][name], other.state[q][name]) for name in ("step", "exp_avg", "exp_avg_sq"))
