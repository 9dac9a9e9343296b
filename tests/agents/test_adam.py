"""`Adam` is PyTorch's, to the bit."""

import copy

import torch

from iquitos_rl.agents.adam import Adam


def parameters():
    g = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=g)) for shape in ((7, 5), (1, 5), ())]


def steps(optimizer, params, count, seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g)
        optimizer.step()


def test_takes_the_steps_of_torchs_fused_adam():
    ours, theirs = parameters(), parameters()
    steps(Adam(ours, lr=1e-3, eps=1e-5), ours, 50, 1)
    steps(torch.optim.Adam(theirs, lr=1e-3, eps=1e-5, fused=True), theirs, 50, 1)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs))


def test_changes_nothing_after_a_number_that_is_not_finite():
    params = parameters()
    optimizer = Adam(params, lr=1e-3)
    optimizer.found_inf = torch.zeros(())
    steps(optimizer, params, 3, 1)
    before, state = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict())
    optimizer.found_inf.fill_(1.0)
    steps(optimizer, params, 2, 2)
    assert all(torch.equal(p, q) for p, q in zip(params, before))
    for one, other in zip(optimizer.state_dict()["state"].values(), state["state"].values()):
        assert all(torch.equal(one[name], other[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_goes_on_bit_for_bit_from_its_state():
    whole, half = parameters(), parameters()
    first = Adam(half, lr=1e-3)
    for seed in (1, 2):
        steps(first, half, 5, seed)
        if seed == 1:
            second = Adam(half, lr=1.0)
            second.load_state_dict(copy.deepcopy(first.state_dict()))
            first = second
    optimizer = Adam(whole, lr=1e-3)
    for seed in (1, 2):
        steps(optimizer, whole, 5, seed)
    assert all(torch.equal(p, q) for p, q in zip(whole, half))


def test_a_loaded_state_is_where_the_parameters_are():
    """A checkpoint is read into main memory."""
    params = parameters()
    optimizer = Adam(params, lr=1e-3)
    steps(optimizer, params, 3, 1)
    elsewhere = Adam([torch.nn.Parameter(p.to("meta")) for p in params], lr=1e-3)
    elsewhere.load_state_dict(optimizer.state_dict())
    for state in elsewhere.state.values():
        assert {tensor.device.type for tensor in state.values()} == {"meta"}
