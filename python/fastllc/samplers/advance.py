"""One step of a plan's members, by native code or in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core, reference
from fastllc.kernels import Member, Segments, Setting, Sketch

__all__ = ["Outcome", "native_step", "reference_step"]


class Outcome(NamedTuple):
    """What a step says of itself.

    Attributes
    ----------
    moments : float64, shape [tensor, moment]
    nonfinite : int64, shape [tensor]
    finite : bool
        Whether all weights are.
    thermostat : float
        After the step.
    sketches : float64, shape [component, bucket]; None if none were made
    """

    moments: NDArray[np.float64]
    nonfinite: NDArray[np.int64]
    finite: bool
    thermostat: float
    sketches: NDArray[np.float64] | None


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
