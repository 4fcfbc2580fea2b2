"""What whole estimates are of: a model at a minimum of its loss, with data and settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LINEAR", "Loss", "Problem", "linear_net", "seeded"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Problem:
    """A model at its minimum and everything an estimate is told.

    All run the same steps of SGLD and judge the second half of them. `nbeta` is n / log n and
    `init_loss` the loss over all data, both computed here.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    loss: Loss
    batch_size: int
    chains: int
    lr: float
    localization: float
    steps: int  # a chain
    devinterp_steps: int  # its cost is linear in them, which is shown too
    nbeta: float = field(init=False)
    init_loss: float = field(init=False)

    def __post_init__(self) -> None:
        self.model.eval().requires_grad_(True)
        self.nbeta = len(self.x) / math.log(len(self.x))
        with torch.no_grad():
            size = self.batch_size
            pieces = zip(torch.split(self.x, size), torch.split(self.y, size), strict=True)
            losses = [self.loss(self.model(x), y).item() for x, y in pieces]
        self.init_loss = sum(losses) / len(losses)  # all pieces have one size

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.model.parameters())

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.parameters:,} weights, batch {self.batch_size:,} of "
            f"{len(self.x):,}, lr {self.lr:g}, nbeta {self.nbeta:.4g}, "
            f"localization {self.localization:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("model", "x", "y", "loss"):
            del settings[name]
        return {**settings, "parameters": self.parameters, "num_samples": len(self.x)}

    def llc(self, losses: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Estimate the LLC of each chain from its losses, [chains, draws]."""
        means: NDArray[np.float64] = losses.mean(axis=1, dtype=np.float64)
        return self.nbeta * (means - self.init_loss)


def linear_net(width: int, samples: int, batch_size: int, devinterp_steps: int) -> Problem:
    """Put a deep linear network at the teacher's weights; the teacher's outputs have noise."""
    layers = [nn.Linear(width, width, bias=False) for _ in range(3)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=1 / math.sqrt(width))
    model = nn.Sequential(*layers)
    x = torch.randn(samples, width)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(samples, width)
    return Problem(
        f"linear {width}-{width}-{width}-{width}",
        model,
        x,
        y,
        F.mse_loss,
        batch_size=batch_size,
        chains=10,
        lr=1e-4,
        localization=1.0,
        steps=2000,
        devinterp_steps=devinterp_steps,
    )


def seeded(make: Callable[[], Problem]) -> Callable[[], Problem]:
    """Return a maker of the same problem each time, which leaves torch's generator alone."""

    def make_seeded() -> Problem:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make()

    return make_seeded


LINEAR: dict[str, Callable[[], Problem]] = {
    "linear-8": seeded(lambda: linear_net(8, 1000, 200, devinterp_steps=200)),
    "linear-50": seeded(lambda: linear_net(50, 5000, 500, devinterp_steps=100)),
}
