"""One setting of a pilot run, and whether it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastllc.convergence import standard_error

__all__ = ["MAX_BIAS", "MAX_CHANGE", "MAX_LOSS", "SPREAD", "Pilot", "judge"]

# Of the LLC: what longer steps may add, what the last quarter of a pilot chain may differ from the
# quarter before.
MAX_BIAS = 0.12
MAX_CHANGE = 0.05
# The configurational temperature from which on chains have spread. On deep linear networks flat
# traces of 12 to 50 % of the LLC were all below it, at 0.01 to 0.46.
SPREAD = 0.5
# What 2.5 times the localization may take off the LLC: of 24 deep linear networks it took 18 % at
# most, and 43 % of the one that came out a fifth too small.
MAX_LOSS = 0.25
# What steps 2.5 times as short may take off it: where they did by 21 %, the estimate was 30 % too
# large; by 10 % they do where their chain has not come as far.
_LESS = 0.15
_SURE = 3.0
# What chance may explain, at most: chains that run away have errors that explain anything.
_CHANCE = 0.25


@dataclass(frozen=True)
class Pilot:
    """What a short chain at one setting said.

    Attributes
    ----------
    lr, localization : float
        The setting.
    llc, sem : float
        From the second half of the chain, and its standard error.
    change : float
        Of the LLC, from the third quarter of the steps to the last, as a share of it.
    bias : float
        What the step size adds to the LLC, as a share of it: from the next longer steps, as if it
        grew in proportion.
    temperature : float
        Configurational temperature of the last quarter: <w - w0, grad U> / d, which is 1 once all
        directions, the flat ones too, have reached their law.
    burnin : int
        The step from which on the trace looks like its end.
    trouble : str
        Why not this setting; empty if it can be trusted.
    """

    lr: float
    localization: float
    llc: float
    sem: float
    change: float
    bias: float
    temperature: float
    burnin: int
    trouble: str


def judge(
    lrs: Sequence[float],
    localization: float,
    excess: NDArray[np.float64],
    temperatures: NDArray[np.float64],
) -> list[Pilot]:
    """Judge the settings of one localization, each by itself and by the next longer steps.

    Parameters
    ----------
    lrs : sequence of float
        Step sizes, rising.
    localization : float
        Of all of them.
    excess : ndarray, shape [lr, chain, step]
        nbeta times the loss above that at w*; NaN from where a chain diverged.
    temperatures : ndarray, shape [lr]
        Configurational temperatures.

    Returns
    -------
    list of Pilot
        One for each step size. The largest has nothing to be judged by, and cannot be chosen.
    """
    found = [_read(each) for each in excess]
    pilots = []
    for i, lr in enumerate(lrs):
        llc, sem, change, change_error = found[i]
        bias = bias_error = math.nan
        if i + 1 < len(lrs) and math.isfinite(found[i + 1][0]) and llc > 0:
            longer, longer_sem = found[i + 1][:2]
            scale = llc * (lrs[i + 1] / lr - 1)
            bias, bias_error = (longer - llc) / scale, math.hypot(longer_sem, sem) / scale
        pilots.append(
            Pilot(
                lr,
                localization,
                llc,
                sem,
                change,
                bias,
                float(temperatures[i]),
                _burnin(excess[i]),
                _trouble(llc, change, change_error, bias, bias_error, last=i + 1 == len(lrs))
                or (_less(found[i - 1], found[i]) if i and temperatures[i - 1] >= SPREAD else ""),
            )
        )
    return pilots


def _read(excess: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the LLC of the second half, its error, its change, and the error of that."""
    if not np.isfinite(excess).all():
        return (math.nan,) * 4
    quarter = excess.shape[1] // 4
    third, last = excess[:, -2 * quarter : -quarter], excess[:, -quarter:]
    both = excess[:, -2 * quarter :]
    llc = float(both.mean())
    change = float(last.mean() - third.mean()) / abs(llc)
    error = math.hypot(standard_error(third), standard_error(last)) / abs(llc)
    return llc, standard_error(both), change, error


def _trouble(
    llc: float, change: float, change_error: float, bias: float, bias_error: float, *, last: bool
) -> str:
    if not math.isfinite(llc):
        return "a chain diverged"
    if llc <= 0:
        return "the LLC is not positive"
    if last:
        return "there are no longer steps to judge it by"
    if abs(change) > max(MAX_CHANGE, min(_SURE * change_error, _CHANCE)):
        return f"the loss still {'rises' if change > 0 else 'falls'}, by {abs(change):.0%}"
    if not math.isfinite(bias):
        return "chains at longer steps diverged"
    if abs(bias) > max(MAX_BIAS, min(_SURE * bias_error, _CHANCE)):
        return f"the LLC depends on lr, by {bias:+.0%}"
    return ""


def _less(shorter: tuple[float, ...], own: tuple[float, ...]) -> str:
    """Say what shorter steps take off the LLC, if it is too much and their chain has spread."""
    less = 1 - shorter[0] / own[0]
    error = math.hypot(shorter[1], own[1]) / own[0]
    return f"shorter steps take {less:.0%} off the LLC" if less > max(_LESS, _SURE * error) else ""


def _burnin(excess: NDArray[np.float64]) -> int:
    """Return the first of 20 blocks from which on all are within the spread of the last ten."""
    length = excess.shape[1] // 20
    if length == 0 or not np.isfinite(excess).all():
        return int(excess.shape[1])
    blocks = excess.mean(axis=0)[-20 * length :].reshape(20, length).mean(axis=1)
    centre, spread = blocks[10:].mean(), blocks[10:].std(ddof=1)
    outside: list[int] = np.flatnonzero(np.abs(blocks - centre) > _SURE * spread).tolist()
    return (outside[-1] + 1) * length if outside else 0
