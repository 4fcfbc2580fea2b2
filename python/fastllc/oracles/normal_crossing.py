"""Normal crossings: products of powers of weights."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fastllc import checks
from fastllc.oracles.oracle import Oracle, generator_of
from fastllc.oracles.quadrature import Array, mean

__all__ = ["normal_crossing"]

DEEP = 40.0
"""The logarithm of how much closer to zero than the prior's reach weights are followed."""


def normal_crossing(
    powers: Sequence[int],
    at: Sequence[float] | None = None,
    *,
    n_samples: int = 1000,
    seed: int = 0,
) -> Oracle:
    r"""Make the regression of zero on a product of powers.

    .. math:: f(x) = x \prod_j w_j^{k_j}, \qquad L_n(w) = \prod_j w_j^{2 k_j},

    with inputs whose mean square is 1. The local order decides: among the weights that are zero at
    :math:`w^*`, :math:`\lambda = \min_j 1/(2 k_j)`, and m is how many attain it.

    Parameters
    ----------
    powers : sequence of int
        :math:`k_j \geq 0`, one for each weight.
    at : sequence of float, optional
        :math:`w^*`, where the product is zero; the origin if it is not given.
    n_samples : int, default 1000
        n >= 1.
    seed : int, default 0
        Of the inputs, in [0, 2**63).

    Returns
    -------
    Oracle
        With `exact` at any `nbeta`; for more than one weight with localization alone, since
        without it no posterior is proper. Away from the origin localization must hold chains
        there, or else they find what is more singular, in `exact` as in any sampler.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, section 2. Lau et al. 2023,
    arXiv 2308.12108, appendix.

    Examples
    --------
    A multiplicity of 2 keeps the truth far below its limit:

    >>> oracle = normal_crossing([1, 1])
    >>> oracle.llc, oracle.multiplicity, round(oracle.exact(145.0, 1.0), 4)
    (Fraction(1, 2), 2, 0.3614)
    >>> normal_crossing([2, 3], at=[1.0, 0.0]).llc
    Fraction(1, 6)
    """
    k = [checks.integer(f"powers[{i}]", power, 0) for i, power in enumerate(powers)]
    w = [0.0] * len(k) if at is None else [checks.finite(f"at[{i}]", x) for i, x in enumerate(at)]
    if len(w) != len(k):
        raise ValueError(f"at must be {len(k)} numbers, one for each power, got {len(w)}")
    local = [power for power, x in zip(k, w, strict=True) if power and x == 0]
    if not local:
        raise ValueError(f"at must be where the product is zero, got {w} with powers {k}")
    n_samples = checks.integer("n_samples", n_samples, 1)
    x = torch.randn(n_samples, generator=generator_of(seed), dtype=torch.float64)
    x = (x / x.square().mean().sqrt()).float()
    return Oracle(
        name=f"normal crossing of powers {k} at {w}",
        llc=Fraction(1, 2 * max(local)),
        multiplicity=local.count(max(local)),
        model=Monomial(k, w),
        data=TensorDataset(x, torch.zeros(n_samples)),
        loss_fn=nn.functional.mse_loss,
        law=partial(_law, k, w),
    )


class Monomial(nn.Module):
    r"""The linear function with the slope :math:`\prod_j w_j^{k_j}`.

    Parameters
    ----------
    powers : sequence of int
        :math:`k_j`.
    at : sequence of float
        Where the weights are.

    Examples
    --------
    >>> Monomial([1, 2], [3.0, 2.0])(torch.ones(1)).item()
    12.0
    """

    def __init__(self, powers: Sequence[int], at: Sequence[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(at))
        self._powers = list(powers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the slope times x, [batch]."""
        factors = (self.w[i] ** k for i, k in enumerate(self._powers) if k)
        return x * reduce(torch.mul, factors)


def _law(powers: Sequence[int], at: Sequence[float], nbeta: float, localization: float) -> float:
    r"""Return nbeta E[L] by a sum over the logarithm of L.

    :math:`t = \log L = \sum_j 2 k_j \log|w_j|` is a sum of independent terms under the prior, whose
    densities are convolved on one grid. In t all is smooth, and at both ends it falls off
    exponentially at least, so that plain sums converge exponentially in the step.
    """
    used = [(k, w) for k, w in zip(powers, at, strict=True) if k]
    if not localization:
        if len(used) > 1:
            raise ValueError(
                "localization must be > 0 for normal crossings of more than one weight: without "
                f"it the posterior is not proper, got {localization}"
            )
        return 1 / (2 * used[0][0])
    spread = localization**-0.5
    step = min([0.25, *(1.6 * k * spread / abs(w) for k, w in used if w)])
    density, first = np.ones(1), 0.0
    for k, w in used:
        high = abs(w) + 10 * spread
        low = max(abs(w) - 30 * spread, high * np.exp(-DEEP))
        count = int(np.ceil(2 * k * np.log(high / low) / step))
        t = 2 * k * np.log(high) - step * np.arange(count, -1, -1)
        density = np.convolve(density, _density(t / (2 * k), w, localization))
        first += float(t[0])
    t = first + step * np.arange(len(density))
    energy = nbeta * np.exp(t)
    with np.errstate(divide="ignore"):
        return mean(energy, np.log(density) - energy)


def _density(u: Array, at: float, localization: float) -> Array:
    """Return the prior density of log|w| up to a factor."""
    w = np.exp(u)
    near, far = np.exp(-localization / 2 * (w - at) ** 2), np.exp(-localization / 2 * (w + at) ** 2)
    density: Array = w * (near + far)
    return density
