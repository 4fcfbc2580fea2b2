"""The parts of the table of steps on a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.gpu.shares import of_copy, rows_of
from bench.rows import Entry, Row, relate
from fastllc.bench.timing import Call, by_events, interleave
from fastllc.bench.workloads import (
    LOCALIZATION,
    LR,
    NBETA,
    STEPS,
    TINY,
    Shapes,
    Step,
    Unavailable,
    Workload,
    one_shape,
)
from fastllc.samplers.sgld import SGLD

__all__ = ["PARTS", "gpt2", "pythia"]

COPY, OURS = "device copy", "fastllc"


def gpt2() -> Shapes:
    """Return the shapes of GPT-2 small's 148 parameters."""
    d = 768
    norm: list[tuple[int, ...]] = [(d,), (d,)]
    attention: list[tuple[int, ...]] = [(d, 3 * d), (3 * d,), (d, d), (d,)]
    mlp: list[tuple[int, ...]] = [(d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *12 * (norm + attention + norm + mlp), *norm]


def pythia() -> Shapes:
    """Return the shapes of Pythia 1.4B's 292 parameters."""
    d = 2048
    norm: list[tuple[int, ...]] = [(d,), (d,)]
    attention: list[tuple[int, ...]] = [(3 * d, d), (3 * d,), (d, d), (d,)]
    mlp: list[tuple[int, ...]] = [(4 * d, d), (4 * d,), (d, 4 * d), (d,)]
    return [(50304, d), *24 * (norm + norm + attention + mlp), *norm, (50304, d)]


def _copy(load: Workload) -> Step:
    source = torch.empty(load.elements, dtype=load.params[0].dtype, device="cuda").zero_()
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _ours(load: Workload, **options: Any) -> Step:
    return SGLD(load.params, lr=LR, nbeta=NBETA, localization=LOCALIZATION, seed=1, **options).step


BUILDS: dict[str, Callable[[Workload], Step]] = {
    **STEPS,
    COPY: _copy,
    "fastllc, rounded at random": partial(_ours, rounding="stochastic"),
}


def _measure(
    title: str, shapes: Shapes, rounds: int, names: list[str], dtype: torch.dtype = torch.float32
) -> list[Row]:
    """Measure steps by name in turn over one workload; those that are not there have a note."""
    load = Workload(shapes, dtype, "cuda")
    part = f"{title}: {load.elements:,} elements in {len(shapes)} tensors"
    built = {name: _build(name, load) for name in names}
    steps = {name: step for name, step in built.items() if not isinstance(step, str)}
    calls = {name: Call(step, load.rotate) for name, step in steps.items()}
    times = interleave(calls, rounds, by_events("cuda"))
    rows = rows_of(part, load.elements, len(shapes), times)
    missing = [
        Row(part, name, load.elements, len(shapes), note=reason)
        for name, reason in built.items()
        if isinstance(reason, str)
    ]
    del load, steps, calls, built
    gc.collect()
    torch.cuda.empty_cache()
    return [*rows, *missing]


def _build(name: str, load: Workload) -> Step | str:
    """Return a step, or why there is none."""
    try:
        return BUILDS[name](load)
    except Unavailable as error:
        return str(error)


def _roof(title: str, shapes: Shapes, target: str, rounds: int) -> list[Row]:
    """Measure a step in single precision against the copy, with metrics too."""
    rows = _measure(title, shapes, rounds, [COPY, OURS, "fastllc, metrics"])
    relate(rows, [Entry("fastllc, metrics", OURS, "<= 1.05")])
    of_copy(rows[1], rows[0], 2, target)  # reads w, gradient and anchor, writes w; a copy half
    return rows


def one(quick: bool) -> list[Row]:
    """Measure the largest tensor against the copy."""
    return _roof("fp32", one_shape(10**6 if quick else 2**30), ">= 90", 3 if quick else 20)


def many(quick: bool) -> list[Row]:
    """Measure the shapes of two language models against the copy."""
    if quick:
        return _roof("fp32", gpt2(), ">= 80", 3)
    return [
        *_roof("fp32, GPT-2 small", gpt2(), ">= 80", 30),
        *_roof("fp32, Pythia 1.4B", pythia(), ">= 88", 15),
    ]


def low(quick: bool) -> list[Row]:
    """Measure bfloat16 weights and gradients against the copy."""
    shapes = one_shape(10**6 if quick else 2**30)
    names = [COPY, OURS, "fastllc, rounded at random"]
    rows = _measure("bf16", shapes, 3 if quick else 20, names, torch.bfloat16)
    # Bytes an element: w 2 + 2, gradient 2, anchor 2, and the residual 2 + 2; a copy 2 + 2.
    of_copy(rows[1], rows[0], 3, ">= 75")
    of_copy(rows[2], rows[0], 2, ">= 60")
    return rows


def rivals(quick: bool) -> list[Row]:
    """Measure GPT-2's shapes against others."""
    names = [
        OURS,
        "fastllc, metrics read",
        "torch foreach",
        "torch.compile",
        "devinterp 2.0.1",
        "devinterp 2.0.1, metrics",
    ]
    if quick:
        names.remove("torch.compile")
    rows = _measure("rivals, GPT-2 small", gpt2(), 3 if quick else 15, names)
    relate(
        rows,
        [
            Entry("torch foreach", OURS),
            *([] if quick else [Entry("torch.compile", OURS, ">= 1.5")]),
            Entry("devinterp 2.0.1", OURS, ">= 5"),
            Entry("devinterp 2.0.1, metrics", "fastllc, metrics read", ">= 20"),
        ],
    )
    return rows


def tiny(quick: bool) -> list[Row]:
    """Measure 2,000 elements, step by step and inside a graph."""
    load = Workload(TINY, device="cuda")
    eager = _ours(load)
    captured = _ours(load)
    captured()
    graph, held = torch.cuda.CUDAGraph(), 100
    with torch.cuda.graph(graph):
        for _ in range(held):
            captured()
    part = f"tiny: {load.elements:,} elements in {len(TINY)} tensors"
    rounds = 3 if quick else 20
    names = "fastllc, eager", "fastllc, inside a graph"
    clock = by_events("cuda")
    found = interleave({names[0]: Call(eager, load.rotate, 200)}, rounds, clock)
    replayed = interleave({names[1]: Call(graph.replay, repeats=5)}, rounds, clock)
    found |= {name: [t / held for t in times] for name, times in replayed.items()}
    rows = rows_of(part, load.elements, len(TINY), found)
    for row, target in zip(rows, ("<= 25", "<= 6"), strict=True):
        row.unit, row.value, row.target = "us", float(np.median(row.seconds)) * 1e6, target
    return rows


PARTS = {"one": one, "many": many, "low": low, "tiny": tiny, "rivals": rivals}
