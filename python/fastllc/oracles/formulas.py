"""Learning coefficients of linear networks, from their sizes alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from fastllc import checks
from fastllc.oracles.oracle import Coefficient

__all__ = ["check_sizes", "deep_linear_coefficient", "reduced_rank_coefficient"]


def reduced_rank_coefficient(inputs: int, hidden: int, outputs: int, rank: int) -> Coefficient:
    r"""Learning coefficient of reduced rank regression, a linear network of one hidden layer.

    Of :math:`\|BA - B^*A^*\|^2` with A of shape [H, M], B of shape [N, H] and a true product of
    rank r. Where :math:`N + r \leq M + H`, :math:`M + r \leq N + H` and :math:`H + r \leq M + N`,

    .. math:: T = -(H+r)^2 - M^2 - N^2 + 2(H+r)M + 2(H+r)N + 2MN,

    :math:`\lambda = T/8`, m = 1 if :math:`M + H + N + r` is even, and :math:`\lambda = (T+1)/8`,
    m = 2 if it is odd. Else m = 1 and :math:`\lambda` is :math:`(HM - Hr + Nr)/2`,
    :math:`(HN - Hr + Mr)/2` or :math:`MN/2`, where the first, second or third of them fails.

    Parameters
    ----------
    inputs, hidden, outputs : int
        M, H and N, >= 1.
    rank : int
        r, from 0 to the least of them.

    Returns
    -------
    Coefficient

    Raises
    ------
    TypeError, ValueError
        If a size is no int or out of range.

    References
    ----------
    Aoyagi & Watanabe 2005, "Stochastic complexities of reduced rank regression in Bayesian
    estimation", Neural Networks 18.

    Examples
    --------
    >>> reduced_rank_coefficient(5, 3, 5, 2)
    Coefficient(llc=Fraction(19, 2), multiplicity=2)
    """
    sizes = {"inputs": inputs, "hidden": hidden, "outputs": outputs}
    m, h, n = (checks.integer(name, size, 1) for name, size in sizes.items())
    r = checks.integer("rank", rank, 0, min(m, h, n) + 1)
    if m + h < n + r:
        return Coefficient(Fraction(h * m - h * r + n * r, 2), 1)
    if n + h < m + r:
        return Coefficient(Fraction(h * n - h * r + m * r, 2), 1)
    if m + n < h + r:
        return Coefficient(Fraction(m * n, 2), 1)
    t = -((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * m + 2 * (h + r) * n + 2 * m * n
    odd = (m + h + n + r) % 2
    return Coefficient(Fraction(t + odd, 8), 1 + odd)


def deep_linear_coefficient(widths: Sequence[int], rank: int) -> Coefficient:
    r"""Learning coefficient of a deep linear network without biases, in exact arithmetic.

    Of :math:`\|W_L \cdots W_1 - P\|^2` with P of rank r and widths :math:`H_0, ..., H_L`. With
    :math:`M_s = H_s - r` in ascending order, let S be the first :math:`\ell + 1` of them that have
    :math:`\sum_S M_s < \ell \min_{\notin S} M_s`, or all; then, with :math:`Q = \sum_S M_s`,
    :math:`M = \lceil Q/\ell \rceil` and :math:`a = Q - (M - 1)\ell`,

    .. math:: \lambda = \frac{-r^2 + r(H_0 + H_L)}{2} + \frac{a(\ell - a)}{4\ell}
              - \frac{\ell(\ell-1)}{4}\left(\frac{Q}{\ell}\right)^2
              + \frac12 \sum_{i<j \in S} M_i M_j, \qquad m = a(\ell - a) + 1.

    It is the least local learning coefficient among all networks with this product, which those
    have where every product of neighbouring layers has rank r. With one hidden layer it is
    `reduced_rank_coefficient`.

    Parameters
    ----------
    widths : sequence of int
        :math:`H_0` (inputs) to :math:`H_L` (outputs), two or more, each >= 1.
    rank : int
        r, from 0 to the least of them.

    Returns
    -------
    Coefficient

    Raises
    ------
    TypeError, ValueError
        If a size is no int or out of range.

    References
    ----------
    Aoyagi 2024, "Consideration on the learning efficiency of multiple-layered neural networks with
    linear units", Neural Networks 172.

    Examples
    --------
    >>> deep_linear_coefficient([20, 15, 30, 12, 25], 6)
    Coefficient(llc=Fraction(144, 1), multiplicity=2)
    """
    r = check_sizes(widths, rank)
    ascending = sorted(h - r for h in widths)
    # Each S that is left has sum >= l * (what comes next), so that the next one has
    # sum >= l * max: the conditions of the paper, which one S alone fulfils.
    sums = list(accumulate(ascending))
    last = len(ascending) - 1
    ell = next(i for i in range(1, last + 1) if i == last or sums[i] < i * ascending[i + 1])
    chosen, q = ascending[: ell + 1], sums[ell]
    a = q - (-(-q // ell) - 1) * ell
    pairs = Fraction(q * q - sum(m * m for m in chosen), 2)
    llc = (
        Fraction(r * (widths[0] + widths[-1] - r), 2)
        + Fraction(a * (ell - a), 4 * ell)
        - Fraction((ell - 1) * q * q, 4 * ell)
        + pairs / 2
    )
    return Coefficient(llc, a * (ell - a) + 1)


def check_sizes(widths: Sequence[int], rank: int) -> int:
    """Return the rank; raise unless it is possible between two or more widths.

    Examples
    --------
    >>> check_sizes([5, 3, 5], 4)
    Traceback (most recent call last):
        ...
    ValueError: rank must be >= 0 and < 4, got 4
    """
    if len(widths) < 2:
        raise ValueError(f"widths must be two or more, got {list(widths)}")
    least = min(checks.integer(f"widths[{i}]", h, 1) for i, h in enumerate(widths))
    return checks.integer("rank", rank, 0, least + 1)
