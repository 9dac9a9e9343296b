"""SAC for one choice among A: Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings" (arXiv 1910.07207).

What a draw stands for with continuous actions is here an exact mean over all choices, so the losses need no noise. The
actor maps observations to logits (B, A), the critics to the values of all choices (N, B, A). Everything else is SAC's:
twin critics, learned temperature, replay, targets (`sac.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from iquitos_rl.agents.sac import Networks

Loss = tuple[Tensor, dict[str, Tensor]]


def td_target(nets: Networks, batch: Mapping[str, Tensor]) -> Tensor:
    """y (B,) = reward + discount * sum_a pi(a|s') (min_i Q'_i(s', a) - alpha log pi(a|s'))."""
    next_obs = nets.see(batch["next_observation"])
    log_prob = nets.actor(next_obs).log_softmax(-1)
    value = nets.target_critic(next_obs).amin(0) - nets.log_alpha.exp() * log_prob
    return torch.addcmul(batch["reward"], batch["discount"], (log_prob.exp() * value).sum(-1))


def critic_loss(nets: Networks, columns: Tensor | None, batch: Mapping[str, Tensor], noise: Tensor) -> Loss:
    """Half the squared error to the target of the choices made, batch mean, summed over the critics."""
    with torch.no_grad():
        target = td_target(nets, batch)
    values = nets.critic(nets.see(batch["observation"]))
    index = batch["action"].long().expand(len(values), -1, -1)
    q = values.gather(-1, index).squeeze(-1)
    loss = 0.5 / len(target) * (q - target).square().sum()
    return loss, {"critic_loss": loss, "q": q.mean()}


def policy_loss(
    nets: Networks, columns: Tensor | None, share: float, batch: Mapping[str, Tensor], noise: Tensor
) -> Loss:
    """The losses of actor, mean of sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a)), and temperature, which holds
    the entropy at this share of that of a uniform choice."""
    obs = nets.see(batch["observation"])
    log_prob = nets.actor(obs).log_softmax(-1)
    prob = log_prob.exp()
    with torch.no_grad():
        q = nets.critic(obs).amin(0)
    of_actor = (prob * (nets.log_alpha.exp().detach() * log_prob - q)).sum(-1).mean()
    entropy = -(prob * log_prob).sum(-1).mean()
    of_alpha = nets.log_alpha * (entropy - share * log(log_prob.shape[-1])).detach()
    metrics = {"actor_loss": of_actor, "entropy": entropy, "alpha_loss": of_alpha, "alpha": nets.log_alpha.exp()}
    return of_actor + of_alpha, metrics
