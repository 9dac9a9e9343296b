"""Feature extractors: from rows of observations (B, D) to what a perceptron reads (B, F).

Actor and critics have one each. An extractor is any function from an `ObservationSpace` to a module; `by_part` is the
one that agents take by themselves where there are images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn

from iquitos_rl.envs.spaces import ObservationPart, ObservationSpace
from iquitos_rl.errors import UserError

Features = Callable[[ObservationSpace], nn.Module]
IMAGE_FEATURES = 128
CHANNELS = 16, 32, 32
SMALLEST = 4
"""An image is halved until it is so small in one direction."""


class CNN(nn.Module):
    """An image's row of bytes (B, height x width x channels) to features (B, F): convolutions of 3 x 3 pixels, each of
    which halves the image, then a layer. Channels may come first or last, or there may be none."""

    def __init__(self, shape: Sequence[int], features: int = IMAGE_FEATURES) -> None:
        super().__init__()
        self.shape = tuple(shape) if len(shape) == 3 else (*shape, 1)
        self.last = self.shape[2] <= self.shape[0]
        channels, *size = (self.shape[2], *self.shape[:2]) if self.last else self.shape
        layers: list[nn.Module] = []
        for i in range(8):
            if min(size) <= SMALLEST:
                break
            out = CHANNELS[min(i, len(CHANNELS) - 1)]
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()]
            channels, size = out, [(n + 1) // 2 for n in size]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size[0] * size[1], features), nn.ReLU())

    def forward(self, rows: Tensor) -> Tensor:
        images = rows.reshape(-1, *self.shape) / 255
        found: Tensor = self.net(images.movedim(-1, 1) if self.last else images)
        return found


class Perceptron(nn.Module):
    """Numbers (B, n) through layers of ReLU to features (B, width)."""

    def __init__(self, numbers: int, width: int = 64, layers: int = 1) -> None:
        super().__init__()
        sizes = [numbers] + [width] * layers
        self.net = nn.Sequential(*(x for a, b in pairwise(sizes) for x in (nn.Linear(a, b), nn.ReLU())))

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.net(rows)
        return found


class ByPart(nn.Module):
    """Each part of an observation through a module of its own, or as it is, and all results in a row."""

    def __init__(self, space: ObservationSpace, module_of: Callable[[ObservationPart], nn.Module | None]) -> None:
        super().__init__()
        self.places = [place for _, place in space.columns()]
        made = [module_of(part) for part in space.parts]
        self.nets = nn.ModuleList([nn.Identity() if module is None else module for module in made])

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([net(rows[:, place]) for net, place in zip(self.nets, self.places)], -1)


class Featured(nn.Module):
    """A network behind its feature extractor."""

    def __init__(self, features: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.features, self.net = features, net

    def forward(self, rows: Tensor, *more: Tensor) -> Tensor:
        found: Tensor = self.net(self.features(rows), *more)
        return found


def by_part(space: ObservationSpace, image: int = IMAGE_FEATURES, numbers: int | None = None) -> nn.Module:
    """Images through a `CNN` to so many features, other numbers through a `Perceptron`, or as they are."""

    def module_of(part: ObservationPart) -> nn.Module | None:
        if part.is_image:
            return CNN(part.shape, image)
        return None if numbers is None else Perceptron(part.width, numbers)

    return ByPart(space, module_of)


class Extractors:
    """Makes extractors for the networks of an agent, and says how many features they have.

    Args:
        given: the user's; None for `by_part` where there are images, and nothing where there are none.
        init: draws the seeds of torch's own initialisation, which reads the process-wide generator.
    """

    def __init__(self, given: Features | None, space: ObservationSpace, init: Generator) -> None:
        images = any(part.is_image for part in space.parts)
        self.make = given if given is not None else by_part if images else None
        self.space, self.init = space, init
        self.width = space.width

    def around(self, network: Callable[[int], nn.Module]) -> nn.Module:
        """A network of so many inputs behind an extractor of its own. Raises UserError: what the user's function makes
        is no extractor."""
        if self.make is None:
            return network(self.space.width)
        seed = int(torch.randint(2**62, (), generator=self.init, device="cpu"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            features = self.make(self.space)
        if not isinstance(features, nn.Module):
            raise UserError(f"features must make a torch.nn.Module, not a {type(features).__name__}")
        with torch.no_grad():
            shape: Any = features(torch.zeros(2, self.space.width)).shape
        if len(shape) != 2 or shape[0] != 2:
            raise UserError(f"features must map rows (2, {self.space.width}) to (2, F), not to {tuple(shape)}")
        return Featured(features, network(int(shape[1])))
