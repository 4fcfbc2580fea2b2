"""The ways to estimate: a sampler, its settings for a published class, and on how many networks.

The published step size epsilon is that of SGLD. The other samplers get the one with which a step
goes as far, and nothing is tuned on the outcome:

- momentum forgets after 1 / friction steps, and a chain that forgets moves as SGLD does with
  epsilon = lr / friction (SGHMC) or 2 lr / friction (BAOAB and SGNHT, whose lr is a squared time
  step);
- a preconditioner 1 / (sqrt(v) + delta) is largest, 1 / delta, where gradients vanish: with
  lr = delta epsilon no weight steps further than the published one. It adapts in the first half of
  the burn-in and is frozen after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import fastllc
from bench.accuracy.estimates import Estimate, by_devinterp1, by_fastllc
from fastllc.oracles import DeepLinear, PublishedClass

__all__ = ["LARGE", "WAYS", "Settings", "Way"]

Settings = dict[str, Any]

FRICTION = 0.1  # the default of SGHMC and BAOAB
DIFFUSION = 0.01  # the default of SGNHT
DELTA = 0.1  # the default of RMSpropSGLD and AdamSGLD


@dataclass(frozen=True)
class Way:
    """One row of the table for each class.

    Attributes
    ----------
    name : str
        Of the row, and in ``--only``.
    settings : callable
        From a published class to the settings of the estimate.
    networks : mapping of str to int
        How many networks of which class, with seeds from 0.
    aligned : bool
        Whether all layers have the rank of the product; see `fastllc.oracles.draw_class`.
    estimate : callable
        From a network, settings and a seed to an estimate.
    """

    name: str
    settings: Callable[[PublishedClass], Settings]
    networks: Mapping[str, int]
    aligned: bool = True
    estimate: Callable[[DeepLinear, Settings, int], Estimate] = by_fastllc


def published(drawn: PublishedClass) -> Settings:
    """SGLD as published: one chain, its last tenth."""
    return drawn.settings


def automatic(drawn: PublishedClass) -> Settings:
    """Leave to `fastllc.calibrate` all but the published temperature and size of minibatches."""
    return {"settings": "auto", **{k: drawn.settings[k] for k in ("nbeta", "batch_size")}}


def sghmc(drawn: PublishedClass) -> Settings:
    sampler = partial(fastllc.SGHMC, friction=FRICTION)
    return {**drawn.settings, "sampler": sampler, "lr": FRICTION * drawn.lr}


def baoab(drawn: PublishedClass) -> Settings:
    sampler = partial(fastllc.BAOAB, friction=FRICTION)
    return {**drawn.settings, "sampler": sampler, "lr": FRICTION * drawn.lr / 2}


def sgnht(drawn: PublishedClass) -> Settings:
    sampler = partial(fastllc.SGNHT, diffusion_factor=DIFFUSION)
    return {**drawn.settings, "sampler": sampler, "lr": DIFFUSION * drawn.lr / 2}


def rmsprop(drawn: PublishedClass) -> Settings:
    return _preconditioned(fastllc.RMSpropSGLD, drawn)


def adam(drawn: PublishedClass) -> Settings:
    return _preconditioned(fastllc.AdamSGLD, drawn)


def _preconditioned(sampler: Callable[..., Any], drawn: PublishedClass) -> Settings:
    settings = drawn.settings
    frozen = partial(sampler, eps=DELTA, adapt_steps=settings["num_burnin_steps"] // 2)
    return {**settings, "sampler": frozen, "lr": DELTA * drawn.lr}


BOTH = {"1K": 20, "10K": 20}
LARGE = {"100K": 3}

WAYS = {
    way.name: way
    for way in (
        Way("SGLD", published, {**BOTH, **LARGE}),
        Way("automatic settings", automatic, BOTH),
        Way("RMSpropSGLD", rmsprop, BOTH),
        Way("SGHMC", sghmc, BOTH),
        Way("SGNHT", sgnht, BOTH),
        Way("BAOAB", baoab, BOTH),
        Way("AdamSGLD", adam, BOTH),
        Way("SGLD, ranks as published", published, BOTH, aligned=False),
        Way("devinterp 1.3.2 SGLD", published, {"1K": 5}, estimate=by_devinterp1),
    )
}
