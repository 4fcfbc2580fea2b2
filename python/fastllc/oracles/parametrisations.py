"""The same functions in two parametrisations, of different learning coefficients."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fastllc.oracles.homogeneous import law_of_powers
from fastllc.oracles.oracle import Oracle

__all__ = ["polynomial_pair"]


def polynomial_pair() -> tuple[Oracle, Oracle]:
    r"""Make two models of the functions :math:`a x + b x^2`, with different weights for them.

    .. math:: f(x) = w_1 x + w_2 x^2, \qquad g(x) = w_1^3 x + w_2 x^2,

    at the function zero. A model is more than its functions: :math:`\lambda` is 1 for the first, a
    regular model, and 1/6 + 1/2 for the second, both with m = 1. Inputs are 101 points from -1 to
    1, symmetric, so that :math:`L_n` is a sum of powers.

    Returns
    -------
    (Oracle, Oracle)
        With `exact` at any `nbeta` and `localization`, by quadrature.

    Examples
    --------
    >>> [oracle.llc for oracle in polynomial_pair()]
    [Fraction(1, 1), Fraction(2, 3)]
    """
    return _parabola(1), _parabola(3)


class Parabola(nn.Module):
    r"""The function :math:`w_1^k x + w_2 x^2`, at zero.

    Parameters
    ----------
    power : int
        k >= 1.

    Examples
    --------
    >>> Parabola(3)(torch.ones(1))
    tensor([0.], grad_fn=<AddBackward0>)
    """

    def __init__(self, power: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self._power = power

    def forward(self, x: Tensor) -> Tensor:
        """Return the values at x, [batch]."""
        return self.w[0] ** self._power * x + self.w[1] * x * x


def _parabola(power: int) -> Oracle:
    x = torch.linspace(-1, 1, 101)
    means = [x.double().pow(2).mean().item(), x.double().pow(4).mean().item()]
    return Oracle(
        name=f"parabola whose slope is a weight to the power of {power}",
        llc=Fraction(1, 2 * power) + Fraction(1, 2),
        multiplicity=1,
        model=Parabola(power),
        data=TensorDataset(x, torch.zeros_like(x)),
        loss_fn=nn.functional.mse_loss,
        law=partial(law_of_powers, [power, 1], means),
    )
