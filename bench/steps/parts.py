"""The parts of the table: what is measured beside what, and against which target."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bench.rows import Entry, Row, measure, relate
from bench.steps.family import measure_family
from fastllc.bench.machine import peak_resident
from fastllc.bench.timing import Call, interleave, quartiles, repeats
from fastllc.bench.workloads import (
    SMALL,
    STEPS,
    TINY,
    Shapes,
    Unavailable,
    Workload,
    gpt2_shapes,
    one_shape,
)
from fastllc.info import build_info
from fastllc.samplers.sgld import SGLD

__all__ = ["FLOOR", "FULL", "OURS", "PARTS", "QUICK", "SIMD", "Scale"]


class Scale(NamedTuple):
    """How large and how long."""

    elements: int  # of a large case
    rounds: int  # of a fast one
    full: bool  # with torch.compile, and held against the targets


FULL, QUICK = Scale(20_000_000, 45, True), Scale(200_000, 5, False)

FLOOR = "torch addcmul_, the floor"
OURS = "fastllc"
SIMD = str(build_info()["simd"])


class Plan(NamedTuple):
    """Entries that are measured in turn over one workload."""

    title: str
    shapes: Callable[[int], Shapes]
    entries: list[Entry]
    share: int = 1  # of the rounds: 1/share

    def run(self, scale: Scale) -> list[Row]:
        entries = self.entries
        if not scale.full:
            entries = [e._replace(target="") for e in entries if e.name != "torch.compile"]
        shapes = self.shapes(scale.elements)
        return measure(self.title, shapes, scale.rounds // self.share, entries)


def _roofs(target: str) -> list[Entry]:
    return [
        Entry(FLOOR),
        Entry("torch copy_", FLOOR),
        Entry("torch fused SGD, no noise", FLOOR),
        Entry("our normal fill", FLOOR),
        Entry(OURS, FLOOR, target),
        Entry("fastllc, metrics", OURS, "<= 1.10"),
    ]


def _rivals(ours: Entry, faster: str, faster_metrics: str) -> list[Entry]:
    return [
        ours,
        Entry("torch foreach", OURS),
        Entry("torch.compile", OURS),
        Entry("devinterp 2.0.1", OURS, faster),
        Entry("fastllc, metrics read", OURS),
        Entry("devinterp 2.0.1, metrics", "fastllc, metrics read", faster_metrics),
    ]


_RMSPROP = [
    Entry("RMSpropSGLD"),
    Entry("RMSpropSGLD, metrics", "RMSpropSGLD", "<= 1.10"),
    Entry("RMSpropSGLD, metrics and sketch", "RMSpropSGLD", "<= 2"),
    Entry("devinterp rmsprop", "RMSpropSGLD", ">= 10"),
    Entry("devinterp rmsprop, with sketch", "RMSpropSGLD, metrics and sketch", ">= 25"),
]

_OF_FLOOR = {"avx512": "<= 1.6", "avx2": "<= 2.6"}.get(SIMD, "")

PLANS = {
    "roofs": Plan(f"roofs, {SIMD}", one_shape, _roofs(_OF_FLOOR)),
    "roofs-many": Plan(f"roofs, {SIMD}", gpt2_shapes, _roofs("")),
    "one": Plan("rivals", one_shape, _rivals(Entry(OURS), ">= 10", ">= 100"), share=4),
    "many": Plan("rivals", gpt2_shapes, _rivals(Entry(OURS), ">= 7", ">= 30"), share=4),
    "small": Plan("in cache", lambda _: SMALL, _roofs("")[:-1] + _rivals(Entry(OURS), "", "")[1:]),
    "rmsprop-one": Plan("RMSprop", one_shape, _RMSPROP, share=4),
    "rmsprop-many": Plan(
        "RMSprop",
        gpt2_shapes,
        [
            Entry("RMSpropSGLD"),
            Entry("RMSpropSGLD, metrics read"),
            Entry("devinterp rmsprop, metrics", "RMSpropSGLD, metrics read", ">= 30"),
        ],
        share=4,
    ),
    "tiny-family": Plan(
        "step() of the others from Python",
        lambda _: TINY,
        [
            Entry(name, "us", "<= 25")
            for name in (OURS, "RMSpropSGLD", "AdamSGLD", "SGHMC", "SGNHT")
        ],
    ),
    "tiny": Plan(
        "step() from Python", lambda _: TINY, _rivals(Entry(OURS, "us", "<= 20"), ">= 10", "")
    ),
}


def _loop(scale: Scale) -> list[Row]:
    """Measure a step after forward and backward, against one with cold caches and idle threads."""
    torch.manual_seed(0)
    width = 1600 if scale.full else 32
    model = nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    inputs, targets = torch.randn(64, 784), torch.randint(10, (64,))
    sampler = SGLD(model.parameters(), lr=1e-8, nbeta=10.0, localization=1.0, seed=1)
    params = list(model.parameters())
    caches = np.ones(2**24)  # 128 MiB; numpy, since torch would wake its threads

    def backward() -> None:
        sampler.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs), targets))

    backward()
    calls = {
        "step alone, caches cold": Call(sampler.step, lambda: np.add(caches, 1.0, out=caches)),
        "step in the loop": Call(sampler.step, backward),
        "step alone, caches warm": Call(sampler.step, repeats=3),
    }
    elements = sum(p.numel() for p in params)
    part = f"training loop of an MLP with {elements:,} parameters"
    times = interleave(calls, scale.rounds)
    rows = [Row(part, name, elements, len(params), seconds) for name, seconds in times.items()]
    cold, loop, warm = calls
    relate(rows, [Entry(loop, cold, "<= 1.2" if scale.full else ""), Entry(warm, cold)])
    return rows


@torch.no_grad()
def _growth(scale: Scale) -> list[Row]:
    sizes = [10**power for power in range(3, 9) if 10**power <= 5 * scale.elements]
    rows, calls, entries = [], {}, []
    for n in sizes:
        load = Workload([(n,)])
        for name in (FLOOR, OURS):
            label = f"{name}, {n:,}"
            calls[label] = Call(STEPS[name](load), load.rotate, repeats(n))
            rows.append(Row("growth, 1 tensor", label, n, 1))
        entries.append(Entry(label, f"{FLOOR}, {n:,}"))
    for label, seconds in interleave(calls, scale.rounds // 4).items():
        next(row for row in rows if row.name == label).seconds = seconds
    relate(rows, entries)
    # Linear: an element costs the same in the largest step as in one of a hundredth of its size.
    by_size = {row.elements: row for row in rows if row.name.startswith(OURS)}
    large, small = by_size[sizes[-1]], by_size[sizes[-1] // 100]
    ratios = np.divide(large.seconds, small.seconds) * small.elements / large.elements
    low, middle, high = quartiles(ratios)
    rows.append(
        Row(
            "growth, 1 tensor",
            f"time an element, {large.elements:,}",
            unit=f"x {OURS}, {small.elements:,}",
            value=middle,
            quartiles=[low, high],
            target="<= 1.25" if scale.full else "",
        )
    )
    return rows


def _memory(scale: Scale) -> list[Row]:
    part = f"peak memory beyond w, grad and one anchor: {scale.elements:,} elements in 1 tensor"
    rows = [
        Row(part, name, scale.elements, 1, unit="MiB")
        for name in (OURS, "torch foreach", "devinterp 2.0.1")
    ]
    rows[0].target = "<= 1" if scale.full else ""
    warm, load = Workload([(1_000_000,)]), Workload([(scale.elements,)])
    for row in rows:
        _fill_in_peak(row, warm, load)
    return rows


@torch.no_grad()
def _fill_in_peak(row: Row, warm: Workload, load: Workload) -> None:
    """Fill in the peak resident memory while a sampler is made and steps, less one copy of w."""

    def three_steps() -> None:
        step = STEPS[row.name](load)
        for _ in range(3):
            step()

    try:
        STEPS[row.name](warm)()  # starts threads, loads code
        row.value = (peak_resident(three_steps) - 4 * load.elements) / 2**20
    except Unavailable as error:
        row.note = str(error)
    except (OSError, AttributeError) as error:
        row.note = f"needs Linux and glibc: {error}"


def _family(scale: Scale) -> list[Row]:
    targets = {"": "<= 1.6", ", metrics": "<= 1.10", ", 1 % in a row": "<= 0.75"}
    targets[", 1 % at random"] = "<= 0.75"
    full = scale.full and SIMD == "avx512"
    return measure_family(scale.elements, max(3, scale.rounds // 4), targets if full else {})


PARTS: dict[str, Callable[[Scale], list[Row]]] = {
    **{name: plan.run for name, plan in PLANS.items()},
    "family": _family,
    "loop": _loop,
    "memory": _memory,
    "growth": _growth,
}
