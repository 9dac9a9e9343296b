"""PyTorch's Adam with less around its fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)`, to the bit, for parameters that all have a gradient in every step.

    That one finds out in every step what it has to do, which takes longer than the step itself for small networks.
    Here it does so in the first step only.
    """

    found_inf: Tensor | None = None
    """() float32, as in PyTorch's fused optimisers: while it is 1, a step changes nothing."""

    def __init__(self, params: Any, lr: float, eps: float = 1e-8) -> None:
        super().__init__(params, lr=lr, eps=eps, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter. `closure` is not used."""
        (group,) = self.param_groups
        params = group["params"]
        if not self.state:
            super().step()
            return
        states = [self.state[p] for p in params]
        averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            params,
            [p.grad for p in params],
            averages,
            squares,
            [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            found_inf=self.found_inf,
        )
        if self.found_inf is not None:  # a list, for a single tensor would be read back to become a number
            torch._foreach_sub_(steps, [self.found_inf] * len(steps))
