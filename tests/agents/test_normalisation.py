"""Running statistics against numpy over the whole stream."""

from __future__ import annotations

import numpy as np
import torch

from iquitos_rl.agents.normalisation import CLIP, ObservationNormaliser, RewardScaler


def stream(batches: int = 40, rows: int = 3) -> torch.Tensor:
    """Columns of very different scale; the last sits on an offset that float32 squares would drown."""
    rng = np.random.default_rng(0)
    samples = rng.normal([0.0, 5.0, -1e4, 1e6], [1.0, 1e-2, 300.0, 4.0], (batches, rows, 4))
    return torch.tensor(samples, dtype=torch.float32)


def test_statistics_are_those_of_the_whole_stream() -> None:
    normaliser, samples = ObservationNormaliser(4), stream()
    for batch in samples:
        normaliser.update(batch)
    everything = samples.double().flatten(0, 1).numpy()
    np.testing.assert_allclose(normaliser.mean.numpy(), everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normaliser.std().numpy(), everything.std(0), rtol=1e-9)


def test_each_column_by_its_own_statistics() -> None:
    normaliser, samples = ObservationNormaliser(4), stream().flatten(0, 1)
    normaliser.update(samples)
    normalised = normaliser(samples)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(0, correction=0), torch.ones(4), atol=1e-5, rtol=0)


def test_use_changes_no_statistics() -> None:
    normaliser = ObservationNormaliser(4)
    normaliser.update(stream()[0])
    before = {name: x.clone() for name, x in normaliser.state_dict().items()}
    normaliser(stream()[1])
    for name, x in normaliser.state_dict().items():
        torch.testing.assert_close(x, before[name], atol=0, rtol=0)


def test_a_column_that_never_varied_is_centred_and_not_magnified() -> None:
    normaliser = ObservationNormaliser(2)
    for _ in range(50):
        normaliser.update(torch.tensor([[0.1, 3.0], [0.1, -3.0]]))
    assert normaliser(torch.tensor([[0.1, 0.0]])).abs().max() < 1e-6
    assert abs(float(normaliser(torch.tensor([[0.6, 0.0]]))[0, 0]) - 0.5) < 1e-6


def test_before_any_statistics_only_the_clip_acts() -> None:
    assert ObservationNormaliser(2)(torch.tensor([0.3, 99.0])).tolist() == [np.float32(0.3), CLIP]


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    rng, gamma = np.random.default_rng(1), 0.97
    rewards, ended = rng.normal(2.0, 1.0, (60, 3)).astype(np.float32), rng.random((60, 3)) < 0.1
    running, returns = np.zeros(3), []
    for reward, end in zip(rewards, ended):
        running = running * gamma + reward
        returns.append(running.copy())
        running[end] = 0.0

    scaler = RewardScaler(3, gamma)
    for part in (slice(0, 20), slice(20, 21), slice(21, 60)):  # the sum carries over from rollout to rollout
        scaler.update(torch.tensor(rewards[part]), torch.tensor(ended[part]))
    np.testing.assert_allclose(scaler.moments.std(), np.std(returns), rtol=1e-9)
    np.testing.assert_allclose(scaler(torch.tensor(rewards)), rewards / np.std(returns), rtol=1e-6)
    assert np.std(returns) > 2 * rewards.std()  # the reward's own deviation would be another number altogether


def test_scaled_rewards_are_clipped_and_keep_their_sign() -> None:
    scaler = RewardScaler(1, 0.0)
    scaler.update(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1, dtype=torch.bool))
    assert scaler(torch.tensor([0.5, -99.0, 99.0])).tolist() == [0.5, -CLIP, CLIP]
