"""Advantage actor-critic, the synchronous form of A3C (Mnih et al. 2016, arXiv 1602.01783), for continuous actions.

One gradient step on each short rollout, which is then thrown away: PPO without a ratio to clip. Settings after the
published results: short rollouts, plain advantages, RMSprop by TensorFlow's rule (`rmsprop.py`).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from iquitos_rl.agents.actor_critic import ActorCritic
from iquitos_rl.agents.collector import Batch
from iquitos_rl.agents.compiled import Loss
from iquitos_rl.agents.configs import A2CConfig as A2CConfig
from iquitos_rl.agents.on_policy import OnPolicy, evaluate
from iquitos_rl.agents.rmsprop import RMSpropTF


def policy_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """The policy gradient theorem's surrogate from (n,) each. The advantage is taken as it is: over the few transitions
    of a batch its deviation is mostly noise, and dividing by it would make every batch weigh the same."""
    return -(log_prob * advantage).mean()


def value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error of (n,) values."""
    return 0.5 * (value - returns).square().mean()


def loss(policy: ActorCritic, value_coef: float, entropy_coef: float, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch of n transitions, a scalar, and its parts by name."""
    log_prob, value, entropy = evaluate(policy, batch)
    of_policy, of_value = policy_loss(log_prob, batch.advantage), value_loss(value, batch.returns)
    total = of_policy + value_coef * of_value - entropy_coef * entropy
    return total, {"policy_loss": of_policy, "value_loss": of_value, "entropy": entropy}


class A2C(OnPolicy):
    """An A2C agent; see `OnPolicy`."""

    name, config_type = "a2c", A2CConfig
    shareable = True
    config: A2CConfig

    def build(self, actor: nn.Module | None, critic: nn.Module | None) -> None:
        """See `Agent.build`."""
        super().build(actor, critic)
        self.log_every = self.config.log_every

    def loss(self) -> Loss:
        """See `OnPolicy.loss`."""
        return partial(loss, self.policy, self.config.value_coef, self.config.entropy_coef)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> RMSpropTF:
        """See `OnPolicy.make_optimizer`."""
        return RMSpropTF(parameters, lr=self.config.learning_rate)

    def update(self, batch: Batch) -> None:
        """One gradient step on a rollout's transitions."""
        self.clipped_gradient(batch)
        self.optimizer.step()
        self.updates += 1
