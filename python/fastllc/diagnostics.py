"""How far chains can be trusted: R-hat, effective sample size, Monte-Carlo error, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from numpy.typing import NDArray

__all__ = [
    "Summary",
    "decimals",
    "drift",
    "ess",
    "llc_of_chains",
    "rhat",
    "standard_error",
    "summarize",
]

_stats: Any = array_stats  # it ships no types

# Vehtari et al. 2021, section 4: below these R-hat and the error bars themselves can be relied on.
MAX_RHAT = 1.01
MIN_ESS = 400.0
MAX_DRIFT = 3.0

_NUM_WINDOWS = 10
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
        return float(_stats.rhat(draws))


def ess(draws: NDArray[np.floating], kind: str = "bulk") -> float:
    """Effective sample size of `draws`.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least four draws a chain.
    kind : {"bulk", "tail"}
        For the centre of the distribution, or for its 5 % and 95 % quantiles, whichever is less.

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
    """
    prob = (0.05, 0.95) if kind == "tail" else None
    return float(_stats.ess(draws, method=kind, prob=prob))


def standard_error(draws: NDArray[np.floating]) -> float:
    r"""Monte-Carlo standard error of the mean.

    The larger of :math:`s / \sqrt{\mathrm{ESS}}` and the error that the scatter of batch means
    shows, a batch being a chain or, below eight chains, a piece of one. Chains that have not mixed
    make both large.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least four draws a chain.

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
    """
    # Minibatch noise hides slow motion from the ESS: with 98 % of the variance white and 2 % of
    # correlation time 200 (2000 draws, 1 to 8 chains, simulated) the mean is more than two such
    # errors off in 29-37 % of cases, and in 13-15 % with the larger of the two.
    by_ess = float(_stats.mcse(draws, method="mean"))
    chains, length = draws.shape
    pieces = -(-_MIN_BATCHES // chains)
    if length < 2 * pieces:
        return by_ess
    batches = draws[:, length % pieces :].reshape(chains * pieces, -1).mean(axis=1)
    return max(by_ess, float(batches.std(ddof=1)) / math.sqrt(len(batches)))


def drift(draws: NDArray[np.floating]) -> float:
    """Mean of the last third minus mean of the first third, in units of its standard error.

    Parameters
    ----------
    draws : ndarray, shape [chain, draw]
        At least twelve draws a chain.

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
    error = np.hypot(standard_error(first), standard_error(last))
    return float(change / error) if error > 0 else float("nan")


@dataclass(frozen=True)
class Summary:
    """An estimate with what tells whether to believe it.

    Attributes
    ----------
    llc, sem, std : float
        Estimate, its Monte-Carlo standard error, and the standard deviation between chains.
    rhat, ess_bulk, ess_tail : float
        Of the loss over all draws.
    drift : float
        Change of the loss from the first to the last third of the draws, in standard errors.
    num_chains : int
        Chains used.
    diverged : tuple of int
        Chains left out.
    warnings : tuple of str
        What is wrong and what to change; empty if nothing is.

    Examples
    --------
    >>> print(Summary(5.0, 0.1, 0.2, 1.002, 900.0, 800.0, -0.5, 4, (), ()))
    LLC              5.00 +- 0.10  (Monte-Carlo standard error)
    between chains   0.20  (standard deviation of 4 chains)
    R-hat            1.002
    ESS              900 bulk, 800 tail
    drift            -0.5 standard errors
    diverged         none
    """

    llc: float
    sem: float
    std: float
    rhat: float
    ess_bulk: float
    ess_tail: float
    drift: float
    num_chains: int
    diverged: tuple[int, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        digits = decimals(self.sem)
        chains = f"{self.num_chains} chain" + ("s" if self.num_chains != 1 else "")
        llc = f"{self.llc:.{digits}f} +- {self.sem:.{digits}f}"
        diverged = ", ".join(f"chain {i}" for i in self.diverged) or "none"
        rows = [
            ("LLC", f"{llc}  (Monte-Carlo standard error)"),
            ("between chains", f"{self.std:.{digits}f}  (standard deviation of {chains})"),
            ("R-hat", f"{self.rhat:.3f}"),
            ("ESS", f"{self.ess_bulk:.0f} bulk, {self.ess_tail:.0f} tail"),
            ("drift", f"{self.drift:+.1f} standard errors"),
            ("diverged", diverged),
        ]
        lines = [f"{name:<17}{value}" for name, value in rows]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])


def decimals(error: float) -> int:
    """Decimals at which two significant digits of `error` show.

    Examples
    --------
    >>> decimals(0.123), decimals(12.0)
    (2, 0)
    """
    if not (np.isfinite(error) and error > 0):
        return 3
    return int(max(0, 1 - np.floor(np.log10(error))))


def llc_of_chains(samples: xr.Dataset) -> NDArray[np.float64]:
    r"""Estimate of each chain, :math:`n\beta (\bar L_{chain} - L_n(w^*))`; NaN for a diverged one.

    Parameters
    ----------
    samples : xarray.Dataset
        ``LLCEstimator.samples_``.

    Returns
    -------
    ndarray, shape [chain]
        Dimensionless.
    """
    excess = samples["loss"].values.mean(axis=1, dtype=np.float64) - float(samples["init_loss"])
    return np.asarray(samples.attrs["nbeta"] * excess, dtype=np.float64)


def summarize(samples: xr.Dataset) -> Summary:
    """Estimate, diagnostics and warnings from the samples alone, fresh or loaded from a file.

    Parameters
    ----------
    samples : xarray.Dataset
        ``LLCEstimator.samples_``.

    Returns
    -------
    Summary
        Over the chains that stayed finite.
    """
    alive = samples["diverged_at"].values < 0
    draws = samples["loss"].values[alive].astype(np.float64)
    nbeta = float(samples.attrs["nbeta"])
    per_chain = llc_of_chains(samples)[alive]
    numbers = {
        "llc": float(per_chain.mean()),
        "sem": nbeta * standard_error(draws),
        "std": float(per_chain.std(ddof=1)) if len(per_chain) > 1 else float("nan"),
        "rhat": rhat(draws),
        "ess_bulk": ess(draws),
        "ess_tail": ess(draws, "tail"),
        "drift": drift(draws),
    }
    diverged = tuple(int(i) for i in np.flatnonzero(~alive))
    found = _warnings(samples, alive, numbers, diverged)
    return Summary(**numbers, num_chains=int(alive.sum()), diverged=diverged, warnings=tuple(found))


def _warnings(
    samples: xr.Dataset,
    alive: NDArray[np.bool_],
    numbers: dict[str, float],
    diverged: tuple[int, ...],
) -> list[str]:
    found = []
    if diverged:
        names = ", ".join(str(i) for i in diverged)
        found.append(
            f"diverged and left out: chain {names}. The others are close to the edge too: lower lr."
        )
    if alive.sum() == 1:
        found.append("one chain cannot show whether chains agree: run at least 4.")
    if not np.isfinite(numbers["sem"]):
        found.append("too few draws for an error bar: raise num_draws.")
    if numbers["rhat"] > MAX_RHAT:
        found.append(
            f"R-hat {numbers['rhat']:.3f} is above {MAX_RHAT}: the chains do not agree yet. Raise "
            "num_burnin_steps and num_draws, or raise localization."
        )
    if numbers["ess_bulk"] < MIN_ESS or numbers["ess_tail"] < MIN_ESS:
        least = min(numbers["ess_bulk"], numbers["ess_tail"])
        found.append(
            f"ESS {least:.0f} is below {MIN_ESS:.0f}: the error bar is itself uncertain. Raise "
            "num_draws, num_steps_bw_draws or num_chains."
        )
    if abs(numbers["drift"]) > MAX_DRIFT:
        way = "rises" if numbers["drift"] > 0 else "falls"
        found.append(
            f"the loss still {way} along the draws, by {abs(numbers['drift']):.1f} standard "
            "errors: raise num_burnin_steps."
        )
    if numbers["llc"] < 0:
        found.append(
            "the LLC is negative: the chains found lower losses than the model's own. Train "
            "further, raise localization, or lower lr."
        )
    elif _dips(samples, alive):
        found.append(
            "the loss dips below the initial loss on the way: the model is not at a minimum. Train "
            "further, or raise localization."
        )
    return found


def _dips(samples: xr.Dataset, alive: NDArray[np.bool_]) -> bool:
    """Whether the loss, averaged over chains and a window of steps, falls below the initial."""
    trace = samples["loss_trace"].values[alive].astype(np.float64)
    init_loss = float(samples["init_loss"])
    windows = np.array_split(trace, _NUM_WINDOWS, axis=1)
    # A NaN error, of a window of fewer than four steps, compares as no dip.
    return any(w.size > 0 and w.mean() + 3 * standard_error(w) < init_loss for w in windows)
