"""How good the estimates of one way are: a row of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.runs import Run

__all__ = ["Scores", "kendall", "scores"]


@dataclass(frozen=True)
class Scores:
    """Statistics of the runs of one class and way.

    Errors are (estimate - truth) / truth, of the runs that did not fail; shares are of all runs,
    and a failed one is neither within 10 % nor covered.

    Attributes
    ----------
    networks, failed : int
        All runs, and those without a finite estimate.
    mean_error, median_error : float
        Of the absolute errors.
    bias : float
        Mean error.
    regular, regular_error : int, float
        Of the runs that did not fail, those whose truth is regular to 5 %: half the rank of the
        Jacobian is so much of it. Their number, and their mean absolute error.
    within : float
        Share of absolute errors of at most 10 %.
    kendall : float
        Rank correlation of estimates and truths.
    coverage : float
        Share of 95 % intervals that hold the truth, where it is the exact one.
    seconds : float
        Mean processor time of an estimate.
    ess_per_second : float
        Median effective sample size of a second.
    """

    networks: int
    failed: int
    mean_error: float
    median_error: float
    bias: float
    regular: int
    regular_error: float
    within: float
    kendall: float
    coverage: float
    seconds: float
    ess_per_second: float


def scores(runs: Sequence[Run]) -> Scores:
    """Judge one or more runs."""
    fine = [run for run in runs if math.isfinite(run.estimate.llc)]
    found = np.array([run.estimate.llc for run in fine])
    truth = np.array([run.truth for run in fine])
    errors = (found - truth) / truth
    regular = truth * 0.95 <= np.array([run.jacobian_rank for run in fine]) / 2
    exact = [run for run in runs if run.attained]
    covered = [run.estimate.low <= run.truth <= run.estimate.high for run in exact]
    rates = np.array([run.estimate.ess / run.estimate.seconds for run in fine])
    return Scores(
        networks=len(runs),
        failed=len(runs) - len(fine),
        mean_error=float(np.abs(errors).mean()) if fine else math.nan,
        median_error=float(np.median(np.abs(errors))) if fine else math.nan,
        bias=float(errors.mean()) if fine else math.nan,
        regular=int(regular.sum()),
        regular_error=float(np.abs(errors[regular]).mean()) if regular.any() else math.nan,
        within=float((np.abs(errors) <= 0.1).sum() / len(runs)),
        kendall=kendall(found, truth),
        coverage=float(np.mean(covered)) if exact else math.nan,
        seconds=float(np.mean([run.estimate.seconds for run in runs])),
        ess_per_second=float(np.median(rates)) if fine else math.nan,
    )


def kendall(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    r"""Kendall's rank correlation :math:`\tau_b`, which allows for ties.

    Examples
    --------
    >>> kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    0.3333333333333333
    """
    above = np.triu_indices(len(x), 1)
    dx, dy = (np.sign(v[:, None] - v[None])[above] for v in (x, y))
    scale = math.sqrt(float((dx**2).sum() * (dy**2).sum()))
    return float((dx * dy).sum() / scale) if scale else math.nan
