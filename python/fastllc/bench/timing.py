"""How the benchmarks measure: calls in turn, so that what disturbs the machine hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from time import perf_counter
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Call", "Clock", "by_events", "by_host", "clocked", "interleave", "quartiles", "repeats"]


class Call(NamedTuple):
    """What to time: `repeats` calls in a row, each after an untimed `prepare`."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    repeats: int = 1


Clock = Callable[[Call], float]  # mean seconds a call


def by_host(call: Call) -> float:
    """Time a call that returns when its work is done.

    The first of several in a row is not kept: it finds the caches as another one left them.

    Examples
    --------
    >>> by_host(Call(lambda: sum(range(10)), repeats=5)) > 0
    True
    """
    seconds = []
    for _ in range(call.repeats + (call.repeats > 1)):
        call.prepare()
        start = perf_counter()
        call.run()
        seconds.append(perf_counter() - start)
    return sum(seconds[-call.repeats :]) / call.repeats


def by_events(device: torch.device | str) -> Clock:
    """Return a clock for calls that leave work to a CUDA device: the time between two events.

    The calls follow one another without waiting, after one that is not timed, which finds the
    gradients that `prepare` has changed. The device's caches are cold before the first.

    Parameters
    ----------
    device : torch.device or str
        Where the work is done; 256 MiB are kept there.
    """
    # Several times the second cache of any GPU.
    cold = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)

    def seconds(call: Call) -> float:
        call.prepare()
        call.run()
        cold.zero_()
        start, stop = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        torch.cuda.synchronize()
        start.record()
        for _ in range(call.repeats):
            call.run()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3 / call.repeats

    return seconds


def interleave(
    calls: dict[str, Call], rounds: int, clock: Clock = by_host
) -> dict[str, list[float]]:
    """Time calls in turn, A B C A B C.

    Parameters
    ----------
    calls : dict of str to Call
        What to time, by name.
    rounds : int
        How often; one more before them is not kept.
    clock : callable
        `by_host`, or what `by_events` returns.

    Returns
    -------
    dict
        Mean seconds a call in each round.

    Examples
    --------
    >>> times = interleave({"sum": Call(lambda: sum(range(10)), repeats=5)}, rounds=3)
    >>> len(times["sum"])
    3
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(1 + rounds):
        for name, call in calls.items():
            times[name].append(clock(call))
    return {name: seconds[1:] for name, seconds in times.items()}


@contextmanager
def clocked(kind: type, name: str) -> Iterator[list[float]]:
    """Yield the seconds of each call of a method meanwhile.

    Examples
    --------
    >>> from fractions import Fraction
    >>> with clocked(Fraction, "limit_denominator") as seconds:
    ...     Fraction("0.3334").limit_denominator(10)
    Fraction(1, 3)
    >>> len(seconds)
    1
    """
    method, seconds = getattr(kind, name), list[float]()

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        start = perf_counter()
        found = method(*args, **kwargs)
        seconds.append(perf_counter() - start)
        return found

    with patch.object(kind, name, run):
        yield seconds


def repeats(elements: int) -> int:
    """Return how many calls in a row to time for a step over so many elements.

    Examples
    --------
    >>> repeats(2_000), repeats(100_000), repeats(20_000_000)
    (50, 10, 1)
    """
    return max(1, min(50, 1_000_000 // elements))


def quartiles(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile.

    Examples
    --------
    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)
