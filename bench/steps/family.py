"""Every sampler in every precision: plain, with metrics, and restricted to a hundredth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.rows import Entry, Row, relate
from fastllc.bench.timing import Call, interleave
from fastllc.bench.workloads import LOCALIZATION, LR, NBETA, Workload, one_shape
from fastllc.samplers.momentum import BAOAB, SGHMC, SGNHT
from fastllc.samplers.preconditioned import AdamSGLD, RMSpropSGLD
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.sgld import SGLD

__all__ = ["bytes_moved", "measure_family"]

SAMPLERS: list[type[Sampler]] = [SGLD, RMSpropSGLD, AdamSGLD, SGHMC, SGNHT, BAOAB]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def bytes_moved(kind: type[Sampler], dtype: torch.dtype) -> int:
    """Return the bytes a step must read and write for each weight.

    Weight in and out, gradient, anchor, state in and out, residual in and out.

    Examples
    --------
    >>> bytes_moved(SGLD, torch.float32), bytes_moved(RMSpropSGLD, torch.bfloat16)
    (16, 20)
    """
    residual = {torch.bfloat16: 2, torch.float16: 4}.get(dtype, 0)
    state = len(kind.state_names) * max(4, dtype.itemsize)
    return 4 * dtype.itemsize + 2 * state + 2 * residual


@torch.no_grad()
def measure_family(elements: int, rounds: int, targets: dict[str, str]) -> list[Row]:
    """Measure all samplers of one dtype in turn, dtype by dtype.

    Each plain step is related to the floor, torch's in-place ``addcmul_`` in float32 over as many
    bytes as the step must move; the others to the plain step.

    Examples
    --------
    >>> rows = measure_family(1000, 3, {})
    >>> len(rows)
    88
    """
    rows = []
    for dtype in DTYPES:
        rows += _measure_dtype(elements, rounds, dtype, targets if dtype == torch.float32 else {})
    return rows


def _measure_dtype(
    elements: int, rounds: int, dtype: torch.dtype, targets: dict[str, str]
) -> list[Row]:
    name = str(dtype).removeprefix("torch.")
    part = f"all samplers, {name}: {elements:,} elements in 1 tensor"
    load = Workload(one_shape(elements), dtype)
    mask = torch.zeros(elements, dtype=torch.bool)
    mask[: math.ceil(elements / 100)] = True
    scattered = mask[torch.randperm(elements, generator=torch.Generator().manual_seed(0))]
    options: dict[str, dict[str, Any]] = {
        "": {},
        ", metrics": {"save_metrics": True},
        ", 1 % in a row": {"mask": mask},
        ", 1 % at random": {"mask": scattered},
    }
    calls, rows, entries = {}, [], []
    for moved in sorted({bytes_moved(kind, dtype) for kind in SAMPLERS}):
        floor = f"torch addcmul_, {moved} bytes"
        calls[floor] = Call(_Floor(elements * moved // 16))
        rows.append(Row(part, floor, elements, 1))
    for kind in SAMPLERS:
        plain = kind.__name__
        for suffix, option in options.items():
            if suffix == ", 1 % at random" and kind is not SGLD:
                continue
            make: Callable[..., Sampler] = kind
            sampler = make(
                load.params, lr=LR, nbeta=NBETA, localization=LOCALIZATION, seed=1, **option
            )
            calls[plain + suffix] = Call(sampler.step)
            rows.append(Row(part, plain + suffix, elements, 1))
            against = plain if suffix else f"torch addcmul_, {bytes_moved(kind, dtype)} bytes"
            entries.append(Entry(plain + suffix, against, targets.get(suffix, "")))
    for label, seconds in interleave(calls, rounds).items():
        next(row for row in rows if row.name == label).seconds = seconds
    relate(rows, entries)
    return rows


class _Floor:
    """The floor for steps that move as many bytes as ``addcmul_`` over `n` float32 elements."""

    def __init__(self, n: int) -> None:
        self.w, self.grad, self.w0 = Workload(one_shape(n)).params[0], torch.ones(n), torch.ones(n)

    def __call__(self) -> Tensor:
        return self.w.addcmul_(self.grad, self.w0, value=1e-6)
