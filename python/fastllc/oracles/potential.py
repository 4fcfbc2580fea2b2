"""Losses that are functions of a few weights, as a model, data and a loss to be sampled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Potential", "mean_potential", "nothing"]


class Potential(nn.Module):
    r"""Weights, and the loss of each sample as the model's output.

    Parameters
    ----------
    w : Tensor, [d]
        Where the weights are.
    energy : callable
        ``energy(w, x)``, a scalar, or one for each of the samples x, [batch, ...].

    Examples
    --------
    >>> model = Potential(torch.ones(2), lambda w, x: w.square().sum())
    >>> mean_potential(model(nothing()[0]), nothing()[1]).item()
    2.0
    """

    def __init__(self, w: Tensor, energy: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(w.float())
        self._energy = energy

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of each sample, [batch]."""
        return self._energy(self.w, x).expand(x.shape[0])


def mean_potential(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of the losses that a `Potential` returns; targets say nothing."""
    return outputs.mean()


def nothing() -> tuple[Tensor, Tensor]:
    """Return inputs and targets for losses that no sample enters."""
    return torch.zeros(2, 1), torch.zeros(2)
