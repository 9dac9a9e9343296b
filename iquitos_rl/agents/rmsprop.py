"""RMSprop as A2C's published results used it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class RMSpropTF(Optimizer):
    """RMSprop after TensorFlow's rule: the average of squared gradients starts at one, and eps is inside the root.

    PyTorch starts the average at zero and adds eps outside the root, so its first steps are ten times longer
    (1 / sqrt(1 - alpha)) for whatever gradient, and A2C's many small steps are known to diverge with it. Update rule:
    s = alpha s + (1 - alpha) g^2; p = p - lr g / sqrt(s + eps).
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, alpha: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["square_average"] = torch.ones_like(p)
        self.found_inf: Tensor | None = None
        """() float32, as in PyTorch's fused optimisers: while it is 1, a step changes nothing."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient. `closure` is not used."""
        for group in self.param_groups:
            pairs: list[tuple[Tensor, Tensor]] = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if not pairs:
                continue
            params, grads = [p for p, _ in pairs], [grad for _, grad in pairs]
            averages = [self.state[p]["square_average"] for p in params]
            decay = group["alpha"]
            if self.found_inf is not None:
                skip = self.found_inf > 0
                grads, decay = [grad.masked_fill(skip, 0.0) for grad in grads], torch.where(skip, 1.0, decay)
            torch._foreach_mul_(averages, decay)
            torch._foreach_addcmul_(averages, grads, grads, value=1.0 - group["alpha"])
            roots = torch._foreach_add(averages, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(params, grads, roots, value=-group["lr"])
