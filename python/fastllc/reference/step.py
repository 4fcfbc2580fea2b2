"""One step of one tensor, whatever the rule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from fastllc._core import Rule
from fastllc.kernels import Member, Setting, Sketch, real_dtype
from fastllc.reference.noise import random_words, standard_normal
from fastllc.reference.precision import read, write, write_at_random
from fastllc.reference.rules import MOMENTUM, Moved, follow, spread
from fastllc.reference.sketch import sketch as sketch_of

__all__ = ["Advance", "advance", "thermostat_change"]


class Advance(NamedTuple):
    """What a step makes of a tensor; nothing has been written.

    Attributes
    ----------
    w, momentum, square_avg, residual : as `Member` has them, or None
    moments : float64, shape [13], in the order of ``_core.MOMENTS``
    kinetic : sum of the squares of the momentum
    updated, nonfinite : number of elements
    sketches : float64, shape [5, dim], in the order of ``_core.COMPONENTS``; or None
    """

    w: Tensor
    momentum: Tensor | None
    square_avg: Tensor | None
    residual: Tensor | None
    moments: Tensor
    kinetic: float
    updated: int
    nonfinite: int
    sketches: Tensor | None


class _Address(TypedDict):
    seed: int
    step: int
    param: int
    first: int


def advance(
    rule: Rule,
    member: Member,
    grad: Tensor,
    setting: Setting,
    key: int,
    step: int,
    thermostat: float = 0.0,
    noise: Tensor | None = None,
    sketch: Sketch | None = None,
) -> Advance:
    """Return what one step makes of a tensor, with the given standard normals or its own.

    Examples
    --------
    >>> w = torch.zeros(1)
    >>> advance(Rule.sgld, Member(w, id=0), torch.ones(1), Setting(0.1, noise_level=0.0), 0, 0).w
    tensor([-0.0500])
    """
    dtype, real = member.w.dtype, real_dtype(member.w.dtype)
    w, g = read(member.w, member.residual), grad.to(real)
    w0 = None if member.w0 is None else member.w0.to(real)
    d = torch.zeros_like(w) if w0 is None else w - w0
    address = _Address(seed=key, step=step, param=member.id, first=member.first)

    def normal(stream: str) -> Tensor:
        z = standard_normal(w.numel(), **address, stream=stream, dtype=real, device=w.device)
        return z.view(w.shape)

    if noise is None:
        noise = (
            normal("proposal")
            if setting.noise_level > 0 and setting.lr > 0
            else torch.zeros_like(w)
        )
    z = noise
    age = step - member.born
    momentum, square_avg = member.momentum, member.square_avg
    if age == 0 and momentum is not None:
        scale = spread(rule, setting)
        momentum = normal("momentum") * scale if scale else torch.zeros_like(momentum)
    if age == 0 and square_avg is not None:
        square_avg = torch.full_like(square_avg, setting.start)

    after = follow(rule, setting, age, thermostat, w, g, d, z, momentum, square_avg)
    following, momentum_after, square_avg_after = after[:3]

    if w0 is not None and math.isfinite(setting.bounding_box_size):
        low, high = w0 - setting.bounding_box_size, w0 + setting.bounding_box_size
        if rule in MOMENTUM and momentum_after is not None:
            outside = (following < low) | (following > high)
            momentum_after = torch.where(outside, -momentum_after, momentum_after)
        following = torch.where(following < low, low, following)
        following = torch.where(following > high, high, following)

    on = torch.ones_like(w, dtype=torch.bool) if member.mask is None else member.mask
    following = torch.where(on, following, w)
    if momentum is not None and momentum_after is not None:
        momentum_after = torch.where(on, momentum_after, momentum)
    if square_avg is not None and square_avg_after is not None:
        square_avg_after = torch.where(on, square_avg_after, square_avg)
    residual = None
    if dtype == real:
        stored = following
    elif member.residual is not None:
        stored, residual = write(following, dtype)
    else:
        words = random_words(w.numel(), **address, device=w.device).view(w.shape)
        stored = write_at_random(following, dtype, words)
    stored = torch.where(on, stored, member.w)
    return Advance(
        stored,
        momentum_after,
        square_avg_after,
        residual,
        _moments(on, w, g, d, *after[3:]),
        0.0 if momentum_after is None else float((momentum_after[on].double() ** 2).sum()),
        int(on.sum()),
        int((~stored[on].isfinite()).sum()),
        None if sketch is None else _sketches(rule, member, setting, sketch, on, g, after),
    )


def thermostat_change(parts: Iterable[tuple[float, float, int]]) -> float:
    """Return what a step adds to a chain's thermostat, from (lr, kinetic, updated) of its tensors.

    Examples
    --------
    >>> round(thermostat_change([(0.1, 3.0, 10)]), 6)
    0.2
    """
    moving = [part for part in parts if part[0] > 0]
    n = sum(updated for _, _, updated in moving)
    if n == 0:
        return 0.0
    energy = sum(kinetic / lr for lr, kinetic, _ in moving) / n
    return sum(lr * updated for lr, _, updated in moving) / n * (energy - 1)


def _sketches(
    rule: Rule,
    member: Member,
    setting: Setting,
    sketch: Sketch,
    on: Tensor,
    g: Tensor,
    after: Moved,
) -> Tensor:
    """Return the sketches of the components with their coefficients."""
    scale = setting.lr if rule in (Rule.sgnht, Rule.baoab) else 0.5 * setting.lr
    heat = setting.lr * {
        Rule.sghmc: setting.friction,
        Rule.sgnht: 2 * setting.friction,
        Rule.baoab: (2 - setting.friction) * setting.friction,
    }.get(rule, 1.0)
    components = [
        (scale * setting.nbeta, after.a),
        (scale * setting.nbeta, g),
        (scale * setting.localization, after.p),
        (scale * setting.weight_decay, after.c),
        (math.sqrt(heat) * setting.noise_level, after.n),
    ]
    return torch.stack(
        [
            sketch_of(
                torch.where(on, x * factor, 0) if factor else torch.zeros_like(x),
                sketch.dim,
                seed=sketch.seed,
                param=member.id,
                first=member.first,
            )
            for factor, x in components
        ]
    )


def _moments(
    on: Tensor, w: Tensor, g: Tensor, d: Tensor, a: Tensor, p: Tensor, c: Tensor, n: Tensor
) -> Tensor:
    w, g, d, a, p, c, n = (x[on].double() for x in (w, g, d, a, p, c, n))
    pairs = [(a, a), (p, p), (n, n), (a, p), (a, n), (p, n), (w, w)]
    pairs += [(g, g), (d, d), (g, d), (a, c), (c, n), (c, c)]
    return torch.stack([torch.dot(x, y) for x, y in pairs]).cpu()
