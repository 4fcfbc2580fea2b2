"""Small models whose learning coefficients are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "DummyNaNModel",
    "LinePlusDot",
    "Polynomial",
    "ReducedRankRegressor",
    "nn",
    "torch",
]


class Polynomial(nn.Module):
    """f(x) = x times the product of the weights to these powers, which start at 0."""

    def __init__(self, powers: Sequence[float] = (1, 1)) -> None:
        super().__init__()
        self.powers = torch.tensor(powers)
        self.weights = nn.Parameter(torch.zeros(len(powers)))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return x * torch.prod(self.weights**self.powers)


class LinePlusDot(nn.Module):
    """f(x) = x (w1 - 1) |w|^4: zero on a plane and at the origin."""

    def __init__(self, dim: int = 2) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return x * (self.weights[0] - 1) * self.weights.square().sum() ** 2


class ReducedRankRegressor(nn.Module):
    """A linear map from m to n dimensions through h."""

    def __init__(self, m: int, h: int, n: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(m, h, bias=False)
        self.fc2 = nn.Linear(h, n, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the two maps of x."""
        outputs: Tensor = self.fc2(self.fc1(x))
        return outputs


class DummyNaNModel(nn.Module):
    """A linear model whose weights become infinite at the 101st call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.counter = 0
        with torch.no_grad():
            self.linear.weight.fill_(1.0)
            self.linear.bias.fill_(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear map of x."""
        self.counter += 1
        if self.counter > 100:
            with torch.no_grad():
                self.linear.weight.fill_(torch.inf)
        outputs: Tensor = self.linear(x)
        return outputs
