"""Minima that are orbits of a symmetry, through which the loss is not degenerate otherwise."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fastllc import checks
from fastllc.oracles.oracle import Oracle
from fastllc.oracles.potential import Potential, mean_potential, nothing
from fastllc.oracles.quadrature import legendre, mean

__all__ = ["rescaling", "ring"]


def ring(dimension: int) -> Oracle:
    r"""Make a loss that rotations leave as it is, with a sphere of minima.

    .. math:: L(w) = (\|w\|^2 - 1)^2

    at :math:`w^* = (1, 0, ..., 0)`. The orbit has s = d - 1 of d dimensions:
    :math:`\lambda = (d - s)/2 = 1/2`, m = 1.

    Parameters
    ----------
    dimension : int
        d >= 2.

    Returns
    -------
    Oracle
        With `exact` at any `nbeta` and `localization`, by quadrature.

    Raises
    ------
    TypeError, ValueError
        If `dimension` is no int >= 2.

    Examples
    --------
    >>> oracle = ring(3)
    >>> oracle.llc, round(oracle.exact(1000.0, 1.0), 3)
    (Fraction(1, 2), 0.5)
    """
    d = checks.integer("dimension", dimension, 2)
    start = torch.zeros(d)
    start[0] = 1
    return _of(f"ring in {d} dimensions", Potential(start, _ring), partial(_law_of_ring, d))


def rescaling(scale: float = 1.0) -> Oracle:
    r"""Make a linear network of two weights, whose product alone counts.

    .. math:: L(w) = (w_1 w_2 - 1)^2

    at :math:`w^* = (t, 1/t)`, on the orbit of :math:`(w_1, w_2) \to (c w_1, w_2 / c)`:
    :math:`\lambda = (2 - 1)/2`, m = 1, wherever on it.

    Parameters
    ----------
    scale : float, default 1
        t > 0.

    Returns
    -------
    Oracle
        With `exact` at any `nbeta` with localization, by quadrature; without it no posterior is
        proper, since the orbit has no end.

    Raises
    ------
    TypeError, ValueError
        If `scale` is not > 0.

    Examples
    --------
    >>> oracle = rescaling(2.0)
    >>> oracle.llc, round(oracle.exact(1000.0, 10.0), 3)
    (Fraction(1, 2), 0.499)
    """
    t = checks.positive("scale", scale)
    model = Potential(torch.tensor([t, 1 / t]), _product)
    return _of(f"product of two weights at {t:g} and {1 / t:g}", model, partial(_law_of_product, t))


def _of(name: str, model: Potential, law: partial[float]) -> Oracle:
    data = TensorDataset(*nothing())
    return Oracle(name, Fraction(1, 2), 1, model, data, mean_potential, law)


def _ring(w: Tensor, x: Tensor) -> Tensor:
    return (w.square().sum() - 1).square()


def _product(w: Tensor, x: Tensor) -> Tensor:
    return (w[0] * w[1] - 1).square()


def _law_of_ring(d: int, nbeta: float, localization: float) -> float:
    """Integrate over radius and angle; of all but the prior the angle is no part."""
    width = ((50 + 5 * d) / nbeta) ** 0.5
    low, high = max(0.0, 1 - width) ** 0.5, (1 + width) ** 0.5
    if localization:
        near = (12 + 3 * d**0.5) / localization**0.5
        low, high = max(low, 1 - near), min(high, 1 + near)
    r, radial = legendre(low, high)
    energy = nbeta * (r * r - 1) ** 2
    log_weights = np.log(radial) + (d - 1) * np.log(r) - energy
    if not localization:
        return mean(energy, log_weights)
    farthest = min(np.pi, near / low**0.5) if low else np.pi
    theta, angular = legendre(0.0, farthest)
    apart = r[:, None] ** 2 + 1 - 2 * r[:, None] * np.cos(theta)
    angles = np.log(angular) + (d - 2) * np.log(np.sin(theta)) - localization / 2 * apart
    return mean(np.broadcast_to(energy[:, None], angles.shape), log_weights[:, None] + angles)


def _law_of_product(t: float, nbeta: float, localization: float) -> float:
    """Integrate over w2, for which the posterior is normal, in closed form, then over w1.

    w1 = s sinh u: near zero w1 matters on its own scale, far away relative to itself.
    """
    if not localization:
        raise ValueError(
            "localization must be > 0 for a product of two weights: without it the posterior is "
            f"not proper, got {localization}"
        )
    s = 0.1 * nbeta**-0.5
    end = np.arcsinh((t + 10 * localization**-0.5) / s)
    step = min(2e-3, 0.2 / (t * localization**0.5))
    u = np.linspace(-end, end, 2 * int(np.ceil(end / step)) + 1)
    w = s * np.sinh(u)
    precision = 2 * nbeta * w * w + localization
    mode = (2 * nbeta * w + localization / t) / precision
    log_weights = (precision * mode * mode - np.log(precision) - localization * (w - t) ** 2) / 2
    energy = nbeta * ((w * mode - 1) ** 2 + w * w / precision)
    return mean(energy, log_weights + np.log(np.cosh(u)))
