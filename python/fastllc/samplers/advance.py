"""One step of a plan's members: by native code, on a device or here, or in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core, reference
from fastllc.kernels import DeviceSegments, Member, Segments, Setting, Sketch

__all__ = ["Outcome", "device_step", "native_step", "reference_step"]


class Outcome(NamedTuple):
    """What a step says of itself; one on a CUDA device leaves it there, as tensors.

    Attributes
    ----------
    moments : float64, shape [tensor, moment]; None if a device was not asked for them
    nonfinite : int64, shape [tensor]
    finite : bool
        Whether all weights are, as far as is known.
    thermostat : float
        After the step; on a device what it was told last.
    sketches : float64, shape [component, bucket]; None if none were made
    """

    moments: NDArray[np.float64] | Tensor | None
    nonfinite: NDArray[np.int64] | Tensor
    finite: bool
    thermostat: float
    sketches: NDArray[np.float64] | Tensor | None


def native_step(
    segments: Segments,
    settings: Sequence[Setting],
    key: int,
    step: int,
    thermostat: float,
    *,
    moments: bool,
    sketch: Sketch | None,
) -> Outcome:
    """Take a step of one chain with the gradients that are bound."""
    finite = segments.step(
        [[setting] for setting in settings],
        [key],
        [step],
        thermostats=[thermostat],
        moments=moments,
        sketch=sketch,
    )
    sums, tables = segments.sums, segments.sketches if sketch else None
    return Outcome(
        sums.moments[0],
        sums.nonfinite[0],
        finite,
        segments.thermostats[0],
        None if tables is None else tables[0],
    )


def device_step(
    segments: DeviceSegments,
    settings: Sequence[Setting],
    key: int,
    step: int,
    thermostat: float,
    *,
    moments: bool,
    sketch: Sketch | None,
) -> Outcome:
    """Launch a step of one chain with the gradients that are bound."""
    segments.step(
        [[setting] for setting in settings],
        [key],
        [step],
        thermostats=[thermostat],
        moments=moments,
        sketch=sketch,
    )
    sums, nonfinite, tables = segments.first
    return Outcome(sums, nonfinite, True, thermostat, tables)


@torch.no_grad()
def reference_step(
    rule: _core.Rule,
    members: Sequence[Member],
    grads: Sequence[Tensor],
    settings: Sequence[Setting],
    key: int,
    step: int,
    thermostat: float,
    sketch: Sketch | None,
) -> Outcome:
    """Take the same step in plain PyTorch, where there is no kernel."""
    done = [
        reference.advance(rule, m, grad, settings[m.group], key, step, thermostat, sketch=sketch)
        for m, grad in zip(members, grads, strict=True)
    ]
    for member, after in zip(members, done, strict=True):
        member.w.copy_(after.w)
        for name in ("momentum", "square_avg", "residual"):
            if (target := getattr(member, name)) is not None:
                target.copy_(getattr(after, name))
    if rule == _core.Rule.sgnht:
        thermostat += reference.thermostat_change(
            [
                (settings[m.group].lr, a.kinetic, a.updated)
                for m, a in zip(members, done, strict=True)
            ]
        )
    tables = [after.sketches.cpu() for after in done if after.sketches is not None]
    nonfinite = np.array([after.nonfinite for after in done])
    return Outcome(
        np.stack([after.moments.numpy() for after in done]),
        nonfinite,
        not nonfinite.any(),
        thermostat,
        torch.stack(tables).sum(0).numpy() if tables else None,
    )
