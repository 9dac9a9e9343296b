import pytest
import torch
from torch import nn

from iquitos_rl.agents import layers
from iquitos_rl.agents.networks import MLP, Critics


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(weight, bias):
    """torch's own layer of these."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight.data, layer.bias.data = weight.detach().clone(), bias.detach().flatten().clone()
    return layer


def given(net):
    """Weights, biases and norms in the order of `layers.backward`."""
    return list(net.weights), list(net.biases), list(net.norms) if isinstance(net, Critics) else ()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("sizes", [[3, 5, 40, 2], [40, 33, 1], [3, 36, 50]])
def test_mlp_is_torchs_torchsand_so_is_its_gradient(sizes, activation):
    net = MLP(sizes, activation, generator()).double()
    torchs = [linear(weight, bias) for weight, bias in zip(net.weights, net.biases)]
    between = nn.ReLU if activation == "relu" else nn.Tanh
    reference = nn.Sequential(*(part for layer in torchs for part in (layer, between())))[:-1]
    x = torch.randn(7, sizes[0], dtype=torch.float64, generator=generator(1)).requires_grad_()
    output, plain = net(x), layers.forward(x, *given(net), activation)[0]
    torch.testing.assert_close(output, reference(x))
    torch.testing.assert_close(plain, output)
    with torch.no_grad():
        torch.testing.assert_close(net(x), output)
    by_output = torch.randn(output.shape, dtype=torch.float64, generator=generator(2))
    by_hand = torch.autograd.grad(output, [*net.parameters(), x], by_output)
    by_autograd = torch.autograd.grad(plain, [*net.parameters(), x], by_output)
    expected = torch.autograd.grad(
        reference(x), [*(layer.weight for layer in torchs), *(layer.bias for layer in torchs), x], by_output
    )
    for one, two, three in zip(by_hand, by_autograd, expected, strict=True):
        torch.testing.assert_close(one.flatten(), three.flatten())
        torch.testing.assert_close(two.flatten(), three.flatten())
    assert all(g.shape == p.shape and g.is_contiguous() for g, p in zip(by_hand, net.parameters()))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("obs_dim", "action_dim"), [(3, 1), (40, 35)])
@pytest.mark.parametrize("apart", [False, True])
def test_gradients_of_the_critics_are_those_of_autograd(layer_norm, obs_dim, action_dim, apart, monkeypatch):
    monkeypatch.setattr(layers, "APART", 0 if apart else 1 << 18)
    g = generator()
    critic = Critics(obs_dim, action_dim, [8, 34], layer_norm, g).double()
    for parameter in critic.norms:
        parameter.data.uniform_(0.5, 1.5, generator=g)
    obs, action = (torch.randn(9, n, dtype=torch.float64, generator=g).requires_grad_() for n in (obs_dim, action_dim))
    by_q = torch.randn(2, 9, dtype=torch.float64, generator=g)
    plain = layers.forward(torch.cat([obs, action], -1), *given(critic))[0].squeeze(-1)
    wanted = [*critic.parameters(), obs, action]
    expected = torch.autograd.grad(plain, wanted, by_q)
    for one, other in zip(torch.autograd.grad(critic(obs, action), wanted, by_q), expected, strict=True):
        torch.testing.assert_close(one, other)
    (alone,) = torch.autograd.grad(critic(obs.detach(), action), [action], by_q)
    torch.testing.assert_close(alone, expected[-1])
    (alone,) = torch.autograd.grad(critic(obs, action.detach()), [obs], by_q)
    torch.testing.assert_close(alone, expected[-2])
    critic.requires_grad_(False)
    (alone,) = torch.autograd.grad(critic(obs.detach(), action), [action], by_q)
    torch.testing.assert_close(alone, expected[-1])


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("shares", [[4, 3, 2], [9, 0, 0], [8, 1, 0]])
def test_rows_that_a_critic_has_no_gradient_of_change_nothing(layer_norm, shares, monkeypatch):
    """As the least of several critics leaves them: every row's gradient is one critic's, and a critic may have none."""
    monkeypatch.setattr(layers, "APART", 0)
    g = generator()
    critic = Critics(5, 2, [8, 34], layer_norm, g, count=3).double().requires_grad_(False)
    obs, action = (torch.randn(9, n, dtype=torch.float64, generator=g) for n in (5, 2))
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(shares))[torch.randperm(9, generator=g)]
    by_q = torch.zeros(3, 9, dtype=torch.float64).scatter_(0, owner[None], torch.randn(1, 9, generator=g).double())
    action.requires_grad_()
    plain = layers.forward(torch.cat([obs, action], -1), *given(critic))[0].squeeze(-1)
    (expected,) = torch.autograd.grad(plain, action, by_q)
    torch.testing.assert_close(torch.autograd.grad(critic(obs, action), action, by_q)[0], expected)


def test_what_a_network_cannot_do_is_an_error_and_no_wrong_number():
    net, x = MLP([3, 4, 2], generator=generator()), torch.ones(5, 3)
    total = net(x).sum()
    torch.autograd.grad(total, list(net.parameters()), retain_graph=True)
    with pytest.raises(RuntimeError, match="can be taken once"):
        torch.autograd.grad(total, list(net.parameters()))
    gradient = torch.autograd.grad(net(x).square().sum(), net.weights[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="differentia"):
        torch.autograd.grad(gradient.sum(), net.weights[1])


def test_weights_are_uniform_in_the_bounds_of_nn_linear():
    def weights(net):
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    torch.manual_seed(0)
    net, reference = MLP([400, 300], generator=generator()), nn.Linear(400, 300)
    assert weights(net).abs().max() <= 1 / 20
    torch.testing.assert_close(weights(net).std(), weights(reference).std(), rtol=0.02, atol=0)
    critic = Critics(300, 100, [300, 5], generator=generator())
    for parameter in (critic.weights[0], critic.biases[0]):
        assert 0.9 / 20 < parameter.abs().max() <= 1 / 20, "the first layer's fan-in is observation plus action"
    assert 0.95 / 300**0.5 < critic.weights[1].abs().max() <= 1 / 300**0.5


def test_weights_depend_on_the_generator_only():
    before = torch.get_rng_state()
    nets = [(MLP([3, 4, 2], generator=generator(s)), Critics(3, 2, [4, 4], True, generator(s))) for s in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    for one, same, other in zip(*nets):
        states = [list(net.state_dict().values()) for net in (one, same, other)]
        assert all(torch.equal(a, b) for a, b in zip(states[0], states[1]))
        assert not torch.equal(states[0][0], states[2][0])


@pytest.mark.parametrize("layer_norm", [False, True])
def test_critics_are_separate_networks(layer_norm):
    g = generator()
    critic = Critics(5, 3, [8, 6], layer_norm, g, count=3).double()
    for parameter in critic.norms:
        parameter.data.uniform_(0.5, 1.5, generator=g)
    obs, action = (torch.randn(9, n, dtype=torch.float64, generator=g) for n in (5, 3))

    def single(i):
        """Critic i written with torch's own layers."""
        layers = []
        for k, (weight, bias) in enumerate(zip(critic.weights, critic.biases)):
            layers.append(linear(weight[i], bias[i]))
            if k < len(critic.weights) - 1:
                if layer_norm:
                    norm = nn.LayerNorm(weight.shape[1], dtype=torch.float64)
                    norm.weight.data = critic.norms[2 * k][i, 0].detach().clone()
                    norm.bias.data = critic.norms[2 * k + 1][i, 0].detach().clone()
                    layers.append(norm)
                layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    q = critic(obs, action)
    assert q.shape == (3, 9)
    for i in range(3):
        torch.testing.assert_close(q[i], single(i)(torch.cat([obs, action], 1)).squeeze(1))


@pytest.mark.parametrize("net", ["perceptron", "critic"])
def test_bfloat16_products_keep_a_float32_output(net):
    """A value near 200 keeps its digits; a bfloat16 output could only be a whole number there."""

    def make(amp):
        if net == "perceptron":
            return MLP([6, 32, 1], generator=generator(), amp=amp)
        return Critics(4, 2, [32], generator=generator(), amp=amp)

    inputs = [torch.randn(64, n, generator=generator(n)) for n in ((6,) if net == "perceptron" else (4, 2))]
    exact, rounded = make("off"), make("bf16")
    for module in (exact, rounded):
        module.biases[-1].data.fill_(200.0)
    exact, output = exact(*inputs), rounded(*inputs)
    assert output.dtype == torch.float32
    error = (output - exact).abs().max()
    assert 0 < error < 0.02, "the hidden layer is rounded, the output is not"
    parameters = list(rounded.parameters())
    gradient = torch.autograd.grad(output.sum(), parameters)
    plain = layers.forward(torch.cat(inputs, -1), *given(rounded), amp="bf16")[0]
    expected = torch.autograd.grad(plain.sum(), parameters)
    for one, other in zip(gradient, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
    assert torch.equal(gradient[3], torch.full_like(rounded.biases[-1], 64.0))
