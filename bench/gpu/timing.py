"""How steps on a GPU are timed: CUDA events, in turn, with a cold cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from fastllc.bench.timing import Row

__all__ = ["Step", "interleave", "of_copy", "rows_of"]

Step = Callable[[], object]

_FLUSHED = 256 * 2**20  # bytes, several times the second cache of any GPU


def interleave(
    steps: dict[str, Step], rounds: int, repeats: int = 1, prepare: Step = lambda: None
) -> dict[str, list[float]]:
    """Time steps in turn, A B C A B C, `repeats` in a row; return seconds a step of each round.

    The caches are cold before each row of steps; the first round is not kept.
    """
    cold = torch.empty(_FLUSHED, dtype=torch.uint8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + rounds):
        for name, step in steps.items():
            prepare()
            step()  # finds gradients that have changed
            cold.zero_()
            start, stop = (
                torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                for _ in range(2)
            )
            torch.cuda.synchronize()
            start.record()
            for _ in range(repeats):
                step()
            stop.record()
            stop.synchronize()
            times[name].append(start.elapsed_time(stop) / 1e3 / repeats)
    return {name: seconds[1:] for name, seconds in times.items()}


def of_copy(row: Row, copy: Row, ratio: float, target: str) -> None:
    """Say which share of the copy's bandwidth a step reaches that moves `ratio` times its bytes."""
    shares = 100 * ratio * np.divide(copy.seconds, row.seconds)
    low, row.value, high = map(float, np.percentile(shares, [25, 50, 75]))
    row.quartiles, row.unit, row.target = [low, high], "% of copy bandwidth", target


def rows_of(
    part: str, elements: int, tensors: int, times: Mapping[str, Sequence[float]]
) -> list[Row]:
    """Make a row of each step."""
    return [Row(part, name, elements, tensors, list(found)) for name, found in times.items()]
