"""The distribution against torch's own, the initialisation against its definition."""

from __future__ import annotations

import math

import torch

from iquitos_rl.agents.actor_critic import ActorCritic, entropy, log_prob, sample
from iquitos_rl.agents.policy_file import PolicySpec

SPEC = PolicySpec(
    obs_dim=5,
    action_dim=3,
    action_low=[-1.0] * 3,
    action_high=[1.0] * 3,
    action_mask_columns=[-1, 4, 0],
    environment={},
)


def policy(seed: int = 0, normalise_obs: bool = False) -> ActorCritic:
    generator = torch.Generator().manual_seed(seed)
    return ActorCritic(SPEC, (32, 16), "tanh", log_std=-0.5, normalise_obs=normalise_obs, generator=generator)


def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    mean, action = torch.randn(2, 50, 3, generator=rng, dtype=torch.float64)
    return mean, action, torch.tensor([-1.0, 0.3, 0.9], dtype=torch.float64), torch.rand(50, 3, generator=rng) < 0.5


def test_density_and_entropy_are_those_of_a_gaussian() -> None:
    mean, action, log_std, _ = draw()
    reference = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(log_prob(action, mean, log_std, None), reference.log_prob(action))
    torch.testing.assert_close(entropy(log_std, None), reference.entropy().mean())


def test_dead_actions_add_neither_density_nor_entropy_nor_gradient() -> None:
    mean, action, log_std, live = draw()
    each = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(log_prob(action, mean, log_std, live), (each.log_prob(action) * live).sum(-1))
    torch.testing.assert_close(entropy(log_std, live), (each.entropy() * live).sum(-1).mean())

    mean.requires_grad_()
    log_prob(action * 1e200, mean, log_std, torch.zeros_like(live)).sum().backward()
    assert mean.grad is not None
    assert mean.grad.abs().max() == 0.0


def test_samples_have_mean_and_deviation_and_are_not_clipped() -> None:
    mean, log_std = torch.tensor([0.9, -3.0]).expand(20_000, 2), torch.tensor([0.0, -1.0])
    actions = sample(mean, log_std, None, torch.Generator().manual_seed(0))
    torch.testing.assert_close(actions.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(actions.std(0), log_std.exp(), atol=0.03, rtol=0)
    assert actions.max() > 1.0


def test_dead_samples_are_zero() -> None:
    live = torch.tensor([[True, False, True]])
    action = sample(torch.ones(1, 3), torch.zeros(3), live, torch.Generator().manual_seed(0))
    assert (action != 0).equal(live)


def test_mask_is_read_from_the_raw_observation() -> None:
    net = policy(normalise_obs=True)
    assert net.normaliser is not None
    net.normaliser.update(torch.randn(100, 5) + 10.0)
    obs = torch.full((1, 5), 2.0)  # live by its sign; normalised it is about -8
    assert net.normalise(obs).max() < 0.0
    assert net.act(obs, None).ne(0.0).all()
    assert net.act(-obs, None).ne(0.0).tolist() == [[True, False, False]]


def test_orthogonal_weights_of_the_right_gain() -> None:
    net = policy()
    for perceptron, last_gain in ((net.actor, 0.01), (net.critic, 1.0)):
        gains = [math.sqrt(2)] * 2 + [last_gain]
        for weight, bias, gain in zip(perceptron.weights, perceptron.biases, gains, strict=True):
            w = weight.detach()
            product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
            torch.testing.assert_close(product, gain**2 * torch.eye(len(product)), atol=1e-5, rtol=0)
            assert bias.abs().max() == 0.0
    assert net.log_std.tolist() == [-0.5] * 3


def test_actor_and_critic_share_no_weight() -> None:
    net = policy()
    assert not {id(p) for p in net.actor.parameters()} & {id(p) for p in net.critic.parameters()}


def test_weights_come_from_the_given_generator_alone() -> None:
    state = torch.get_rng_state()
    first = policy(seed=3)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    second, other = policy(seed=3), policy(seed=4)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters()))
    assert not first.actor.weights[0].equal(other.actor.weights[0])
    torch.set_rng_state(state)
