import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from iquitos_rl.agents import squashed_gaussian
from iquitos_rl.agents.squashed_gaussian import LOG_STD_MAX, LOG_STD_MIN, log_tanh_slope, mode, sample, split


def network_output(rows, actions, scale=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    output, noise = torch.randn(rows, 2 * actions, generator=g), torch.randn(rows, actions, generator=g)
    return (scale * output).to(dtype), noise.to(dtype)


def test_slope_is_the_float64_jacobian_up_to_20():
    u = torch.linspace(-20, 20, 4001, dtype=torch.float64, requires_grad=True)
    # tanh rounds to 1 near u = 19 and its own derivative to 0; on the side where sigmoid is small nothing is lost.
    (jacobian,) = torch.autograd.grad((2 * torch.sigmoid(-2 * u.abs())).sum(), u)
    torch.testing.assert_close(log_tanh_slope(u), jacobian.abs().log().nan_to_num(neginf=0.0), rtol=0, atol=1e-8)
    inner = u.detach()[u.detach().abs() <= 5].requires_grad_()
    (jacobian,) = torch.autograd.grad(inner.tanh().sum(), inner)
    torch.testing.assert_close(log_tanh_slope(inner), jacobian.log(), rtol=0, atol=1e-9)


def test_float32_keeps_the_slope_and_its_gradient_where_tanh_is_1():
    u = torch.linspace(-20, 20, 401, requires_grad=True)
    slope = log_tanh_slope(u)
    torch.testing.assert_close(slope.double(), log_tanh_slope(u.double()), rtol=2e-6, atol=2e-6)
    (gradient,) = torch.autograd.grad(slope.sum(), u)
    torch.testing.assert_close(gradient, -2 * u.detach().tanh(), rtol=0, atol=1e-5)


def test_log_prob_is_that_of_the_transformed_normal():
    output, noise = network_output(50, 3, scale=0.3)
    action, log_prob = sample(output, noise)
    mean, log_std = split(output)
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * noise))
    torch.testing.assert_close(log_prob, reference.log_prob(action).sum(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("output", [[0.0, 0.0], [1.5, 0.5], [-3.0, 1.0]])
def test_density_over_actions_integrates_to_one(output):
    output = torch.tensor(output, dtype=torch.float64)
    mean, log_std = split(output)
    u = torch.linspace(-25, 25, 200_001, dtype=torch.float64)
    action, log_prob = sample(output.expand(len(u), 2), ((u - mean) / log_std.exp())[:, None])
    assert torch.trapezoid(log_prob.exp(), action.squeeze(1)).item() == pytest.approx(1, abs=1e-4)


def test_log_std_stays_in_its_range():
    raw = torch.tensor([-1e4, 0.0, 1e4], dtype=torch.float64)
    _, log_std = split(torch.stack([torch.zeros(3, dtype=torch.float64), raw], 1))
    assert log_std.squeeze(1).tolist() == [LOG_STD_MIN, (LOG_STD_MIN + LOG_STD_MAX) / 2, LOG_STD_MAX]


def test_dead_actions_are_as_if_they_did_not_exist():
    output, noise = network_output(40, 4, scale=3)
    output[:, 1] = 1e3  # a dead action's output may be anything
    output.requires_grad_()
    mask = torch.tensor([True, False, True, False]).expand(40, 4)
    action, log_prob = sample(output, noise, mask)
    live_output = output[:, [0, 2, 4, 6]]
    live_action, live_log_prob = sample(live_output, noise[:, [0, 2]])
    assert (action[:, [1, 3]] == 0).all()
    torch.testing.assert_close(action[:, [0, 2]], live_action)
    torch.testing.assert_close(log_prob, live_log_prob)
    (gradient,) = torch.autograd.grad((action.sum(1) + log_prob).sum(), output)
    assert (gradient[:, [1, 3, 5, 7]] == 0).all()
    assert (gradient[:, [0, 2, 4, 6]] != 0).all()


def test_all_actions_dead_has_log_prob_zero():
    output, noise = network_output(3, 2)
    action, log_prob = sample(output, noise, torch.zeros(3, 2, dtype=torch.bool))
    assert not action.any()
    assert not log_prob.any()


def test_mode_is_the_squashed_mean():
    output, noise = network_output(5, 2)
    torch.testing.assert_close(mode(output), sample(output, torch.zeros_like(noise))[0])
    mask = torch.tensor([True, False])
    assert torch.equal(mode(output, mask), torch.tanh(output[:, :2]) * mask)


def test_gradient_by_reparametrisation_is_that_of_the_density():
    """d/d(mean, std) of log pi(a(noise)) by autograd, against finite differences in float64."""
    output, noise = network_output(1, 2)

    def log_prob(x):
        return sample(x, noise)[1].sum()

    gradient = torch.autograd.functional.jacobian(log_prob, output).flatten()
    for i in range(output.numel()):
        step = torch.zeros_like(output)
        step.view(-1)[i] = 1e-5
        difference = (log_prob(output + step) - log_prob(output - step)) / 2e-5
        assert gradient[i].item() == pytest.approx(difference.item(), rel=1e-6, abs=1e-8)


def test_entropy_of_an_almost_uniform_policy():
    """The largest entropy of an action in [-1, 1] is log 2; the estimate from many samples must stay below it."""
    g = torch.Generator().manual_seed(0)
    log_std = -0.13  # near the widest spread over (-1, 1)
    raw = math.atanh((log_std - LOG_STD_MIN) / ((LOG_STD_MAX - LOG_STD_MIN) / 2) - 1)
    output = torch.tensor([0.0, raw]).expand(200_000, 2)
    _, log_prob = squashed_gaussian.sample(output, torch.randn(200_000, 1, generator=g))
    assert 0.67 < -log_prob.mean().item() < math.log(2)
