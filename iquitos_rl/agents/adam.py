"""Adam as SAC, PPO and A2C take its steps: PyTorch's fused kernel, and no more around it than it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980), to the bit `torch.optim.Adam(fused=True)`.

    That one finds out anew in every step what it has to do, which takes as long as the step itself for networks of
    these sizes. Here every parameter has a gradient in every step, and the moments exist from the beginning.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": eps})
        for group in self.param_groups:
            for p in group["params"]:
                zeros = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                self.state[p] = {"step": torch.zeros((), device=p.device), **zeros}
        self.found_inf: Tensor | None = None
        """() float32, as in PyTorch's fused optimisers: while it is 1, a step changes nothing."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `Optimizer.load_state_dict`, which leaves the number of steps on the device it was loaded to."""
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            state["step"] = state["step"].to(p.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter. `closure` is not used."""
        for group in self.param_groups:
            params = group["params"]
            states = [self.state[p] for p in params]
            steps = [state["step"] for state in states]
            averages, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
            beta1, beta2 = group["betas"]
            torch._foreach_add_(steps, 1)
            if self.found_inf is not None:  # a list, for a single tensor would be read back to become a number
                torch._foreach_sub_(steps, [self.found_inf] * len(steps))
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
