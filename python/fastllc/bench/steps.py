"""One step of SGLD by everybody, in turn."""

from __future__ import annotations

from time import perf_counter

import torch

from fastllc.bench.comparison import COMPILED, DEVINTERP, FLOOR, OURS, Comparison
from fastllc.bench.pure import UPDATES
from fastllc.bench.timing import Call, by_events, by_host, interleave, repeats
from fastllc.bench.workloads import (
    STEPS,
    TINY,
    Build,
    Shapes,
    Unavailable,
    Workload,
    devinterp_step,
)

__all__ = ["SIZES", "compare_steps"]

# The layers of MLPs. Of few tensors: to compile a step with metrics over 148 takes 65 s.
SIZES: dict[str, Shapes] = {
    "small": TINY,
    "medium": [(128, 784), (128,), (10, 128), (10,)],
    "large": [(3072, 784), (3072,), (3072, 3072), (3072,), (10, 3072), (10,)],
}


@torch.no_grad()
def compare_steps(
    size: str, shapes: Shapes, rounds: int, device: torch.device | str, *, metrics: bool
) -> Comparison:
    """Measure everybody's step in turn over the same weights and gradients.

    Parameters
    ----------
    size : str
        What to call it.
    shapes : sequence of tuple of int
        Of the tensors.
    rounds : int
        How often; one more before them is not kept.
    device : torch.device or str
        Where the tensors are. On a CUDA device the time is that between two events.
    metrics : bool
        Whether norms and dot products of what the step is made of are asked for at each step.

    Examples
    --------
    >>> found = compare_steps("tiny", [(8,)], 3, "cpu", metrics=False)
    >>> len(found.seconds["fastllc"])
    3
    """
    load = Workload(shapes, device=device)
    tensors = f"{len(shapes)} tensor{'s' * (len(shapes) > 1)}"
    case = f"{size}: {load.elements:,} weights in {tensors}{', metrics' * metrics}"
    suffix = ", metrics" * metrics
    builds: dict[str, Build] = {
        OURS: STEPS["fastllc, metrics read" if metrics else "fastllc"],
        **{name: STEPS[name + suffix] for name in UPDATES},
        DEVINTERP: devinterp_step(save_metrics=True) if metrics else devinterp_step(),
        FLOOR: STEPS["torch addcmul_, the floor"],
    }
    found = Comparison("step", case)
    calls = {}
    for name, build in builds.items():
        start = perf_counter()
        try:
            calls[name] = Call(build(load), load.rotate, repeats(load.elements))
        except Unavailable as error:
            found.missing[name] = str(error)
        if name == COMPILED:
            found.compile_seconds[name] = perf_counter() - start
    clock = by_events(device) if torch.device(device).type == "cuda" else by_host
    found.seconds = interleave(calls, rounds, clock)
    return found
