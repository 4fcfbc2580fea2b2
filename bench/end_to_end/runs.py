"""One estimate of one implementation: what every file of an implementation returns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastllc.bench.machine import peak_resident
from fastllc.bench.problem import Problem

__all__ = ["FloatArray", "Run", "shuffled", "timed"]

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Run:
    """What one estimate took and gave.

    `llc` has one estimate for each chain, from the second half of its steps. `seconds` is the whole
    call without compilation; `peak` the bytes of resident memory it added at its highest, None
    where the system does not tell.
    """

    seconds: float
    peak: int | None
    llc: list[float]
    compile_seconds: float = 0.0


def timed(estimate: Callable[[], FloatArray], compile_seconds: float = 0.0) -> Run:
    """Time `estimate`, which returns the LLC of each chain."""
    seconds = 0.0
    llc: FloatArray = np.empty(0)

    def run() -> None:
        nonlocal seconds, llc
        start = perf_counter()
        llc = estimate()
        seconds = perf_counter() - start

    gc.collect()
    try:
        peak = peak_resident(run)
    except (OSError, AttributeError):  # no Linux, no glibc
        peak = None
        run()
    return Run(seconds, peak, llc.tolist(), compile_seconds)


def shuffled(problem: Problem, seed: int) -> Iterator[NDArray[np.int32]]:
    """Yield the samples of each step, [chains, batch]: every chain's own order in every epoch."""
    rng = np.random.default_rng(seed)
    order = np.tile(np.arange(len(problem.x), dtype=np.int32), (problem.chains, 1))
    while True:
        rng.permuted(order, axis=1, out=order)
        steps = order.reshape(problem.chains, -1, problem.batch_size)
        yield from steps.swapaxes(0, 1).copy()
