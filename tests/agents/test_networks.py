import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iquitos_rl.agents.networks import TwinCritic, in_precision, mlp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mlp_computes_what_its_layers_say():
    net = mlp([3, 5, 4, 2], "tanh", generator()).double()
    x = torch.randn(7, 3, dtype=torch.float64, generator=generator(1))
    first, second, third = (layer for layer in net if isinstance(layer, nn.Linear))
    expected = third(torch.tanh(second(torch.tanh(first(x)))))
    torch.testing.assert_close(net(x), expected)
    assert sum(p.numel() for p in net.parameters()) == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2


def test_relu_mlp_has_the_gradient_of_a_copy_that_does_not_work_in_place():
    net = mlp([3, 8, 8, 1], generator=generator()).double()
    x = torch.randn(16, 3, dtype=torch.float64, generator=generator(1))
    first, second, third = (layer for layer in net if isinstance(layer, nn.Linear))
    grads = torch.autograd.grad(net(x).square().mean(), list(net.parameters()))
    expected = torch.autograd.grad(third(F.relu(second(F.relu(first(x))))).square().mean(), list(net.parameters()))
    for grad, other in zip(grads, expected):
        torch.testing.assert_close(grad, other)


def test_weights_are_uniform_in_the_bounds_of_nn_linear():
    def weights(net):
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    torch.manual_seed(0)
    net, reference = mlp([400, 300], generator=generator()), nn.Linear(400, 300)
    assert weights(net).abs().max() <= 1 / 20
    torch.testing.assert_close(weights(net).std(), weights(reference).std(), rtol=0.02, atol=0)
    critic = TwinCritic(300, 100, [300, 5], generator=generator())
    for parameter in (critic.obs_weight, critic.action_weight, critic.biases[0]):
        assert 0.9 / 20 < parameter.abs().max() <= 1 / 20, "the first layer's fan-in is observation plus action"
    assert 0.95 / 300**0.5 < critic.weights[0].abs().max() <= 1 / 300**0.5


def test_weights_depend_on_the_generator_only():
    before = torch.get_rng_state()
    nets = [(mlp([3, 4, 2], generator=generator(s)), TwinCritic(3, 2, [4, 4], True, generator(s))) for s in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    for one, same, other in zip(*nets):
        states = [list(net.state_dict().values()) for net in (one, same, other)]
        assert all(torch.equal(a, b) for a, b in zip(states[0], states[1]))
        assert not torch.equal(states[0][0], states[2][0])


@pytest.mark.parametrize("layer_norm", [False, True])
def test_twin_critic_is_two_separate_networks(layer_norm):
    g = generator()
    critic = TwinCritic(5, 3, [8, 6], layer_norm, g).double()
    for parameter in [*critic.norm_weights, *critic.norm_biases]:
        parameter.data.uniform_(0.5, 1.5, generator=g)
    obs, action = (torch.randn(9, n, dtype=torch.float64, generator=g) for n in (5, 3))

    def single(i):
        """Critic i written with torch's own layers."""
        layers = []
        weights = [torch.cat([critic.obs_weight[i], critic.action_weight[i]]), *(w[i] for w in critic.weights)]
        for k, (weight, bias) in enumerate(zip(weights, critic.biases)):
            linear = nn.Linear(*weight.shape, dtype=torch.float64)
            linear.weight.data, linear.bias.data = weight.detach().T.clone(), bias[i, 0].detach().clone()
            layers.append(linear)
            if k < len(weights) - 1:
                if layer_norm:
                    norm = nn.LayerNorm(weight.shape[1], dtype=torch.float64)
                    norm.weight.data = critic.norm_weights[k][i, 0].detach().clone()
                    norm.bias.data = critic.norm_biases[k][i, 0].detach().clone()
                    layers.append(norm)
                layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    q = critic(obs, action)
    assert q.shape == (2, 9)
    critic_grad = torch.autograd.grad(q.square().sum(), list(critic.parameters()))
    by_name = dict(zip([name for name, _ in critic.named_parameters()], critic_grad))
    for i in range(2):
        net = single(i)
        expected = net(torch.cat([obs, action], 1)).squeeze(1)
        torch.testing.assert_close(q[i], expected)
        expected.square().sum().backward()
        weight = torch.cat([by_name["obs_weight"][i], by_name["action_weight"][i]])
        torch.testing.assert_close(weight.T, net[0].weight.grad)
        torch.testing.assert_close(by_name["biases.1"][i, 0], net[3 if layer_norm else 2].bias.grad)


@pytest.mark.parametrize("net", ["perceptron", "critic"])
def test_bfloat16_products_keep_a_float32_output(net):
    """A value near 200 keeps its digits; a bfloat16 output could only be a whole number there."""
    if net == "perceptron":
        module = mlp([6, 32, 1], generator=generator())
        inputs, bias = (torch.randn(64, 6, generator=generator(1)),), module[-1].bias
    else:
        module = TwinCritic(4, 2, [32], generator=generator())
        inputs, bias = tuple(torch.randn(64, n, generator=generator(n)) for n in (4, 2)), module.biases[-1]
    bias.data.fill_(200.0)
    exact, output = module(*inputs), in_precision(module, "bf16")(*inputs)
    assert output.dtype == torch.float32
    error = (output - exact).abs().max()
    assert 0 < error < 0.02, "the hidden layer is rounded, the output is not"
    (gradient,) = torch.autograd.grad(output.sum(), bias)
    assert torch.equal(gradient, torch.full_like(bias, 64.0))
