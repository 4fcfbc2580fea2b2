"""Statistics of draws along chains: R-hat, effective sample size, Monte-Carlo errors, drift."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["drift", "ess", "interval", "rhat", "standard_error"]

_MIN_BATCHES = 8


def rhat(draws: NDArray[np.floating]) -> float:
    """Rank-normalised split R-hat of `draws`.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        A single chain is compared with itself: its two halves stand in for two chains.

    Returns
    -------
    float
        1 for chains that agree; NaN for constant or too few draws.

    References
    ----------
    Vehtari et al. 2021, "Rank-normalization, folding, and localization", Bayesian Analysis 16,
    section 4.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> rhat(draws) < 1.01
    True
    >>> rhat(draws + np.arange(4)[:, None]) > 1.5
    True
    """
    if draws.shape[0] == 1:
        half = draws.shape[1] // 2
        draws = np.stack([draws[0, :half], draws[0, -half:]]) if half else draws
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(_stats().rhat(draws))


def ess(draws: NDArray[np.floating], kind: str = "bulk", *, shared: bool = False) -> float:
    """Effective sample size of `draws`.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least four draws a chain.
    kind : {"bulk", "tail"}
        For the centre of the distribution, or for its 5 % and 95 % quantiles, whichever is less.
    shared : bool, default False
        Whether the chains share minibatches. Then they are no independent series, and the size is
        at most that of their average at each draw.

    Returns
    -------
    float
        The number of independent draws worth as much; NaN for too few draws.

    References
    ----------
    Vehtari et al. 2021, section 4.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3000 < ess(draws) < 5000)
    True
    >>> bool(800 < ess(draws, shared=True) < 1200)
    True
    """
    prob = (0.05, 0.95) if kind == "tail" else None
    size = float(_stats().ess(draws, method=kind, prob=prob))
    return min(size, ess(_average(draws), kind)) if shared else size


def standard_error(draws: NDArray[np.floating], *, shared: bool = False) -> float:
    r"""Monte-Carlo standard error of the mean.

    The larger of :math:`s / \sqrt{\mathrm{ESS}}` and the error that the scatter of batch means
    shows, a batch being a chain or, below eight chains, a piece of one. Chains that have not mixed
    make both large.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least four draws a chain.
    shared : bool, default False
        Whether the chains share minibatches. What all of them have in common then shows only along
        their average at each draw: that one series has an error too, and the larger one counts.

    Returns
    -------
    float
        In the units of `draws`; NaN for too few draws.

    References
    ----------
    Vehtari et al. 2021, section 4; Flegal & Jones 2010, "Batch means and spectral variance
    estimators in Markov chain Monte Carlo", Annals of Statistics 38.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(8, 10_000))
    >>> bool(0.002 < standard_error(draws) < 0.006)
    True

    One series in eight copies is worth no more than itself.

    >>> copies = np.repeat(draws[:1], 8, axis=0)
    >>> bool(0.007 < standard_error(copies, shared=True) < 0.015)
    True
    """
    if shared:
        return max(standard_error(draws), standard_error(_average(draws)))
    # Minibatch noise hides slow motion from the ESS: with 98 % of the variance white and 2 % of
    # correlation time 200 (2000 draws, 1 to 8 chains, simulated) the mean is more than two such
    # errors off in 29-37 % of cases, and in 13-15 % with the larger of the two.
    by_ess = float(_stats().mcse(draws, method="mean"))
    batches = _batches(draws, -(-_MIN_BATCHES // len(draws)))
    if not batches.size:
        return by_ess
    return max(by_ess, float(batches.std(ddof=1)) / math.sqrt(len(batches)))


def interval(
    draws: NDArray[np.floating], level: float = 0.95, *, shared: bool = False
) -> tuple[float, float]:
    r"""Confidence interval of the mean, from the scatter of batch means.

    .. math:: \bar x \pm t_{m - 1}\, s_m / \sqrt m

    with m batches, which are the chains or, of fewer than four, five or more equal pieces of
    them, the standard deviation :math:`s_m` of their means, and the quantile of Student's t. Whole
    chains are independent however slowly they move; pieces have to be long against the time in
    which a chain forgets.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least two draws a piece.
    level : float
        Probability in (0, 1) that the interval holds the mean of the law.
    shared : bool, default False
        Whether the chains share minibatches. Pieces are then those of their average at each draw.

    Returns
    -------
    (float, float)
        Its ends, in the units of `draws`; NaN for too few draws.

    References
    ----------
    Flegal & Jones 2010, "Batch means and spectral variance estimators in Markov chain Monte Carlo",
    Annals of Statistics 38; Vats, Flegal & Jones 2019, "Multivariate output analysis for Markov
    chain Monte Carlo", Biometrika 106.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(8, 10_000))
    >>> low, high = interval(draws)
    >>> bool(-0.01 < low < 0 < high < 0.01)
    True
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]

    series = _average(draws) if shared else draws
    # Halves of four chains, of which an ESS that minibatch noise raises saw 50 draws each, held the
    # mean in 93.3 % of 2000 estimates.
    batches = _batches(series, 1 if len(series) >= 4 else -(-5 // len(series)))
    if not batches.size:
        return float("nan"), float("nan")
    count = len(batches)
    half = float(stdtrit(count - 1, (1 + level) / 2) * batches.std(ddof=1) / math.sqrt(count))
    centre = float(draws.mean(dtype=np.float64))
    return centre - half, centre + half


def drift(draws: NDArray[np.floating], *, shared: bool = False) -> float:
    """Mean of the last third minus mean of the first third, in units of its standard error.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least twelve draws a chain.
    shared : bool, default False
        Whether the chains share minibatches; see `standard_error`.

    Returns
    -------
    float
        Standard normal for stationary chains, negative if the values fall; NaN for too few draws.

    References
    ----------
    Geweke 1992, "Evaluating the accuracy of sampling-based approaches to the calculation of
    posterior moments", Bayesian Statistics 4.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 300))
    >>> abs(drift(draws)) < 3 < drift(draws + np.linspace(0, 1, 300))
    True
    """
    third = draws.shape[1] // 3
    if third < 4:
        return float("nan")
    first, last = draws[:, :third], draws[:, -third:]
    change = last.mean(dtype=np.float64) - first.mean(dtype=np.float64)
    error = np.hypot(standard_error(first, shared=shared), standard_error(last, shared=shared))
    return float(change / error) if error > 0 else float("nan")


def _batches(draws: NDArray[np.floating], pieces: int) -> NDArray[np.floating]:
    """Means of so many equal pieces of every chain, [batch]; none of draws that are too few."""
    chains, length = draws.shape
    if length < 2 * pieces:
        return np.empty(0)
    return np.asarray(draws[:, length % pieces :].reshape(chains * pieces, -1).mean(axis=1))


def _average(draws: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(draws.mean(axis=0, keepdims=True))


@cache
def _stats() -> Any:  # it ships no types
    # Imported where it is needed: half a second, that samplers can do without.
    from arviz_stats.base.array import array_stats

    return array_stats
