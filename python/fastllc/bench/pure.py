"""One step of SGLD in pure PyTorch, as fast as we know how: eager, foreach, compiled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastllc.peers import NoiseBuffer

__all__ = ["DOTS", "UPDATES", "Uncompiled", "Update", "compiled", "made"]

Update = Callable[[list[Tensor], list[Tensor], list[Tensor], list[Tensor]], "Tensor | None"]

# What the metrics of a step are made of: squares and products of weight, gradient, distance from
# w0 and noise, summed over all elements.
DOTS = ("ww", "gg", "dd", "zz", "gd", "gz", "dz")


class Uncompiled(RuntimeError):
    """Raised where torch.compile does not work; the text says why."""


def _eager(pull: float, push: float, scale: float, *, metrics: bool) -> Update:
    def update(
        w: list[Tensor], grads: list[Tensor], w0: list[Tensor], noise: list[Tensor]
    ) -> Tensor | None:
        found = torch.zeros(len(DOTS), device=w[0].device) if metrics else None
        for p, g, anchor, z in zip(w, grads, w0, noise, strict=True):
            if found is not None:
                found += _dots(p, g, p - anchor, z)
            p.lerp_(anchor, pull)
            p.add_(g, alpha=push)
            p.add_(z, alpha=scale)
        return found

    return update


def _foreach(pull: float, push: float, scale: float, *, metrics: bool) -> Update:
    def update(
        w: list[Tensor], grads: list[Tensor], w0: list[Tensor], noise: list[Tensor]
    ) -> Tensor | None:
        found = None
        if metrics:
            moved = torch._foreach_sub(w, w0)
            parts = [_dots(*each) for each in zip(w, grads, moved, noise, strict=True)]
            found = torch.stack(parts).sum(0)
        torch._foreach_lerp_(w, w0, pull)
        torch._foreach_add_(w, grads, alpha=push)
        torch._foreach_add_(w, noise, alpha=scale)
        return found

    return update


def _fusible(pull: float, push: float, scale: float, *, metrics: bool) -> Update:
    """Return what inductor makes one loop of for each tensor, sums included."""

    def update(
        w: list[Tensor], grads: list[Tensor], w0: list[Tensor], noise: list[Tensor]
    ) -> Tensor | None:
        parts = []
        for p, g, anchor, z in zip(w, grads, w0, noise, strict=True):
            d = p - anchor
            if metrics:
                pairs = (p, p), (g, g), (d, d), (z, z), (g, d), (g, z), (d, z)
                parts.append(torch.stack([(a * b).sum() for a, b in pairs]))
            p.add_(g * push - d * pull + z * scale)
        return torch.stack(parts).sum(0) if metrics else None

    return update


def _dots(p: Tensor, g: Tensor, d: Tensor, z: Tensor) -> Tensor:
    """Return the sums `DOTS` of one tensor; ``dot`` makes no temporary."""
    p, g, d, z = (t.flatten() for t in (p, g, d, z))
    pairs = (p, p), (g, g), (d, d), (z, z), (g, d), (g, z), (d, z)
    return torch.stack([torch.dot(a, b) for a, b in pairs])


UPDATES: dict[str, Callable[..., Update]] = {
    "torch eager": _eager,
    "torch foreach": _foreach,
    "torch.compile": _fusible,
}


def made(
    name: str,
    w: list[Tensor],
    grads: Callable[[], list[Tensor]],
    *,
    lr: float,
    nbeta: float,
    localization: float,
    metrics: bool = False,
) -> Callable[[], Tensor | None]:
    """Return the step of :class:`fastllc.SGLD` without an optimizer around it.

    All noise comes from one call into one buffer. For ``torch.compile`` too: inductor's own normals
    are drawn one at a time on a CPU, and a step over 20 M weights takes 380 ms, not 80.

    Parameters
    ----------
    name : {"torch eager", "torch foreach", "torch.compile"}
        The way to write it.
    w : list of Tensor
        Weights, changed in place; `w0` is what they are now.
    grads : callable
        Returns their gradients of the moment.
    lr, nbeta, localization : float
        As for :class:`fastllc.SGLD`.
    metrics : bool, default False
        Return the sums `DOTS` over all elements, shape [7], of weights before the step.

    Raises
    ------
    Uncompiled
        If torch.compile does not work.

    Examples
    --------
    >>> w, grad = [torch.ones(3)], [torch.ones(3)]
    >>> step = made(
    ...     "torch foreach", w, lambda: grad, lr=0.1, nbeta=1.0, localization=0.0, metrics=True
    ... )
    >>> step()[:3].tolist()
    [3.0, 3.0, 0.0]
    """
    pull, push = lr / 2 * localization, -lr / 2 * nbeta
    update = UPDATES[name](pull, push, math.sqrt(lr), metrics=metrics)
    w0 = [p.clone() for p in w]
    generator = torch.Generator(w[0].device)
    generator.manual_seed(1)
    noise = NoiseBuffer(w, generator)
    if name == "torch.compile":
        update = compiled(update, w, grads(), w0, noise.draw())
    return lambda: update(w, grads(), w0, noise.draw())


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Return `function` compiled for `arguments`, by a first call with them.

    Raises
    ------
    Uncompiled
        If there is no compiler for torch.compile, or another reason why it does not work.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Callable[..., Any] = torch.compile(function, dynamic=False)
            found(*arguments)
    except Exception as error:  # dynamo, inductor and compilers have no common one
        raise Uncompiled(f"did not compile: {type(error).__name__}") from error
    return found
