"""The distribution of discrete actions: for each of K numbers an independent choice by the softmax of its logits.

Logits of all choices stand in one row (N, C), those of the first number first; C is the sum of `choices`. An action
(N, K) holds the number of each choice, from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

Choices = Sequence[int]


def log_probs(logits: Tensor, choices: Choices) -> Iterator[Tensor]:
    """Log-probabilities (N, k, c) of every choice, in groups of k numbers with c choices each: one where all numbers
    have as many, else one for each number."""
    if len(set(choices)) == 1:
        yield logits.view(len(logits), len(choices), choices[0]).log_softmax(-1)
        return
    for part in logits.split(list(choices), dim=-1):
        yield part.log_softmax(-1).unsqueeze(1)


def sample(logits: Tensor, choices: Choices, generator: Generator) -> Tensor:
    """Draw actions (N, K). A choice wins where its log-probability less the log of exponential noise is highest."""
    noise = torch.empty_like(logits).exponential_(generator=generator).log_()
    return mode(logits - noise, choices)


def mode(logits: Tensor, choices: Choices) -> Tensor:
    """The most likely actions (N, K)."""
    return torch.cat([group.argmax(-1) for group in log_probs(logits, choices)], -1).to(logits.dtype)


def log_prob(action: Tensor, logits: Tensor, choices: Choices) -> Tensor:
    """Log-probability (N,) of actions (N, K)."""
    groups = list(log_probs(logits, choices))
    index = action.long().split([group.shape[1] for group in groups], -1)
    found = [group.gather(-1, i.unsqueeze(-1)).squeeze(-1) for group, i in zip(groups, index)]
    return torch.cat(found, -1).sum(-1)


def entropy(logits: Tensor, choices: Choices) -> Tensor:
    """Mean over the batch of the entropy of an action, a scalar, in nats."""
    each = [-(group.exp() * group).sum((-1, -2)) for group in log_probs(logits, choices)]
    return torch.stack(each).sum(0).mean()
