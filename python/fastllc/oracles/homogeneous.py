"""Sums of powers and other quasi-homogeneous losses, with the minimum at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fastllc import checks
from fastllc.oracles.oracle import Oracle
from fastllc.oracles.potential import Potential, mean_potential, nothing
from fastllc.oracles.quadrature import Array, legendre, mean

__all__ = ["law_of_powers", "quasi_homogeneous", "separable"]

FAR = 50.0
"""The logarithm of the density that is as good as none, relative to the largest."""


def separable(powers: Sequence[int]) -> Oracle:
    r"""Make the loss of a sum of even powers, each in a weight of its own.

    .. math:: L(w) = \sum_i w_i^{2 k_i}, \qquad \lambda = \sum_i \frac{1}{2 k_i}, \qquad m = 1,

    at :math:`w^* = 0`. Without localization :math:`\lambda` is exact at every temperature.

    Parameters
    ----------
    powers : sequence of int
        :math:`k_i \geq 1`, one for each weight.

    Returns
    -------
    Oracle
        With `exact` at any `nbeta` and `localization`, by quadrature.

    Raises
    ------
    TypeError, ValueError
        If a power is no int or out of range.

    References
    ----------
    Watanabe 2009, Algebraic Geometry and Statistical Learning Theory, section 2.

    Examples
    --------
    >>> oracle = separable([1, 2])
    >>> oracle.llc, round(oracle.exact(100.0), 6), round(oracle.exact(100.0, 1.0), 3)
    (Fraction(3, 4), 0.75, 0.739)
    """
    k = [checks.integer(f"powers[{i}]", power, 1) for i, power in enumerate(powers)]
    if not k:
        raise ValueError("powers must be one or more, got none")
    return Oracle(
        name=f"sum of even powers of {len(k)} weights",
        llc=sum((Fraction(1, 2 * power) for power in k), Fraction()),
        multiplicity=1,
        model=Potential(torch.zeros(len(k)), partial(_powers, torch.tensor(k, dtype=torch.float))),
        data=TensorDataset(*nothing()),
        loss_fn=mean_potential,
        law=partial(law_of_powers, k, [1.0] * len(k)),
    )


def quasi_homogeneous(terms: Mapping[tuple[int, ...], float]) -> Oracle:
    r"""Make a polynomial loss that scales, though not by the same power in each weight.

    With weights :math:`\alpha_i` for which :math:`L(t^{\alpha_1} w_1, ..., t^{\alpha_d} w_d) =
    t\,L(w)`, and a minimum at zero alone,

    .. math:: \lambda = \sum_i \alpha_i, \qquad m = 1.

    Without localization this is exact at every temperature.

    Parameters
    ----------
    terms : mapping of tuple of int to float
        The coefficient > 0 of each monomial by its exponents, which are even. Of each weight there
        is a term that is a power of it alone, :math:`w_i^{1/\alpha_i}`.

    Returns
    -------
    Oracle
        With `exact` at any `nbeta`, and any `localization` of up to three weights, by quadrature.

    Raises
    ------
    TypeError, ValueError
        If the terms are not such.

    Examples
    --------
    :math:`x^2 + y^4`, and :math:`x^4 + x^2 y^4 + y^8`.

    >>> quasi_homogeneous({(2, 0): 1.0, (0, 4): 1.0}).llc
    Fraction(3, 4)
    >>> quasi_homogeneous({(4, 0): 1.0, (2, 4): 1.0, (0, 8): 1.0}).llc
    Fraction(3, 8)
    """
    alphas = _scaling(terms)
    count, llc = len(alphas), sum(alphas, Fraction())
    return Oracle(
        name=f"quasi-homogeneous polynomial of {count} weights",
        llc=llc,
        multiplicity=1,
        model=Potential(torch.zeros(count), partial(_polynomial, terms)),
        data=TensorDataset(*nothing()),
        loss_fn=mean_potential,
        law=partial(_law_of_polynomial, terms, alphas),
    )


def law_of_powers(
    powers: Sequence[int], coefficients: Sequence[float], nbeta: float, localization: float
) -> float:
    """Return nbeta E[L] for L = sum of c_i w_i^(2 k_i), localized at zero, by quadrature.

    Examples
    --------
    >>> round(law_of_powers([1], [0.5], 10.0, 10.0), 9)
    0.25
    """
    total = 0.0
    for k, c in zip(powers, coefficients, strict=True):
        w, weights = legendre(0.0, _reach(2 * k, c, nbeta, localization))
        energy = nbeta * c * w ** (2 * k)
        total += mean(energy, np.log(weights) - energy - localization / 2 * w * w)
    return total


def _reach(exponent: int, coefficient: float, nbeta: float, localization: float) -> float:
    reach = (FAR / (nbeta * coefficient)) ** (1 / exponent)
    return float(min(reach, (2 * FAR / localization) ** 0.5) if localization else reach)


def _law_of_polynomial(
    terms: Mapping[tuple[int, ...], float],
    alphas: Sequence[Fraction],
    nbeta: float,
    localization: float,
) -> float:
    if not localization:
        return float(sum(alphas))
    if len(alphas) > 3:
        raise ValueError(f"localization must be 0 for more than 3 weights, got {localization}")
    log_weights: Array = np.zeros(())
    axes = []
    for i, alpha in enumerate(alphas):
        alone = tuple(int(1 / alpha) * (i == j) for j in range(len(alphas)))
        w, weights = legendre(0.0, _reach(sum(alone), terms[alone], nbeta, localization))
        log_weights = log_weights[..., None] + np.log(weights) - localization / 2 * w * w
        axes.append(w)
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    energy = np.zeros_like(log_weights)
    for exponents, c in terms.items():
        factors = (w**e for w, e in zip(grid, exponents, strict=True))
        energy += nbeta * c * reduce(np.multiply, factors)
    return mean(energy, log_weights - energy)


def _scaling(terms: Mapping[tuple[int, ...], float]) -> list[Fraction]:
    if not terms:
        raise ValueError("terms must be one or more, got none")
    count = len(next(iter(terms)))
    alone: dict[int, int] = {}
    for exponents, coefficient in terms.items():
        checks.positive(f"terms[{exponents}]", coefficient)
        if len(exponents) != count or any(e < 0 or e % 2 for e in exponents) or not any(exponents):
            raise ValueError(
                f"terms must have {count} even exponents >= 0, not all of them 0, got {exponents}"
            )
        used = [i for i, e in enumerate(exponents) if e]
        if len(used) == 1:
            alone.setdefault(used[0], exponents[used[0]])
    if len(alone) < count:
        raise ValueError("terms must have a power alone of each weight, got none of some")
    alphas = [Fraction(1, alone[i]) for i in range(count)]
    for exponents in terms:
        if (degree := sum(e * a for e, a in zip(exponents, alphas, strict=True))) != 1:
            raise ValueError(
                f"terms must all scale like the powers alone, got {exponents} of degree {degree}"
            )
    return alphas


def _powers(k: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return w.square().pow(k).sum()


def _polynomial(terms: Mapping[tuple[int, ...], float], w: Tensor, x: Tensor) -> Tensor:
    total = w.new_zeros(())
    for exponents, coefficient in terms.items():
        factors = (w[i] ** e for i, e in enumerate(exponents) if e)
        total = total + coefficient * reduce(torch.mul, factors)
    return total
