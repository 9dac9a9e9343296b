"""The distribution of discrete actions, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical

from iquitos_rl.agents import categorical

CHOICES = [(3,), (2, 2, 2), (2, 3, 4), (1, 5)]


@pytest.mark.parametrize("choices", CHOICES)
def test_log_probabilities_entropy_and_mode(choices: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(50, sum(choices), generator=g, dtype=torch.float64) * 3
    each = [Categorical(logits=part) for part in logits.split(choices, -1)]
    action = torch.stack([torch.randint(n, (50,), generator=g) for n in choices], -1)
    expected = sum(one.log_prob(action[:, i]) for i, one in enumerate(each))
    torch.testing.assert_close(categorical.log_prob(action.double(), logits, choices), expected)
    torch.testing.assert_close(categorical.entropy(logits, choices), sum(one.entropy() for one in each).mean())
    best = torch.stack([one.probs.argmax(-1) for one in each], -1)
    assert torch.equal(categorical.mode(logits, choices).long(), best)


@pytest.mark.parametrize("choices", CHOICES)
def test_draws_are_as_frequent_as_they_are_likely(choices: tuple[int, ...]) -> None:
    logits = torch.linspace(-1, 2, sum(choices)).repeat(40_000, 1)
    drawn = categorical.sample(logits, choices, torch.Generator().manual_seed(1)).long()
    for i, part in enumerate(logits[0].split(choices)):
        found = torch.bincount(drawn[:, i], minlength=len(part)) / len(drawn)
        torch.testing.assert_close(found, part.softmax(-1), atol=0.012, rtol=0)
