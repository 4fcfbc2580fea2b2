"""What the benchmarks run: tensors of given shapes, and everybody's step over them."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastllc.bench.pure import UPDATES, Uncompiled, made
from fastllc.kernels import standard_normal
from fastllc.samplers.momentum import SGHMC, SGNHT
from fastllc.samplers.preconditioned import AdamSGLD, RMSpropSGLD
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.sgld import SGLD

__all__ = [
    "SMALL",
    "STEPS",
    "TINY",
    "Shapes",
    "Step",
    "Unavailable",
    "Workload",
    "devinterp_step",
    "gpt2_shapes",
    "one_shape",
]

Shapes = Sequence[tuple[int, ...]]
Step = Callable[[], object]
Build = Callable[["Workload"], Step]

SMALL: Shapes = [(100, 100)] * 10
TINY: Shapes = [(20, 40), (40,), (40, 20), (20,), (16, 20), (20,)]  # 2,000 elements

# Small steps: after thousands of them the weights are still numbers of ordinary size.
LR, NBETA, LOCALIZATION = 1e-6, 10.0, 1.0

_ROTATED = 1_000_000  # up to this size two sets of gradients take turns


class Unavailable(RuntimeError):
    """Raised where a rival cannot run; the text says why."""


class Workload:
    """Weights and gradients of the given shapes, random, none of them zero.

    Parameters
    ----------
    shapes : sequence of tuple of int
        One for each tensor.
    dtype : torch.dtype
        Of all of them.
    device : torch.device or str
        Where they are.

    Examples
    --------
    >>> load = Workload([(2, 3), (3,)])
    >>> load.elements, len(load.params), load.params[0].grad.shape
    (9, 2, torch.Size([2, 3]))
    """

    def __init__(
        self,
        shapes: Shapes,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.elements = sum(map(math.prod, shapes))
        self._device = device
        self.params = [
            self._normal(shape, i, 0).mul_(0.1).to(dtype) for i, shape in enumerate(shapes)
        ]
        sets = 2 if self.elements <= _ROTATED else 1
        self._gradients = [
            [self._normal(shape, i, 1 + turn).to(dtype) for i, shape in enumerate(shapes)]
            for turn in range(sets)
        ]
        self._turn = 0
        self.rotate()

    def rotate(self) -> None:
        """Hand out other gradient tensors, as each backward pass does, where there are any."""
        self._turn = (self._turn + 1) % len(self._gradients)
        for param, grad in zip(self.params, self._gradients[self._turn], strict=True):
            param.grad = grad

    @property
    def grads(self) -> list[Tensor]:
        """The present gradients."""
        return [p.grad for p in self.params if p.grad is not None]

    def _normal(self, shape: tuple[int, ...], param: int, step: int) -> Tensor:
        room = torch.empty(shape, device=self._device)
        return standard_normal(room, seed=1, param=param, step=step)


def one_shape(elements: int) -> Shapes:
    """Return the shape of one tensor.

    Examples
    --------
    >>> one_shape(3)
    [(3,)]
    """
    return [(elements,)]


def gpt2_shapes(elements: int) -> Shapes:
    """Return shapes of GPT-2 small's 148 parameters, narrowed to about that many elements.

    Two thirds of the elements are in the 12 blocks, as in the original.

    Examples
    --------
    >>> shapes = gpt2_shapes(20_000_000)
    >>> len(shapes), sum(map(math.prod, shapes))
    (148, 19999856)
    """
    d = max(1, math.isqrt(elements // 216))
    norm: list[tuple[int, ...]] = [(d,), (d,)]
    attention: list[tuple[int, ...]] = [(d, 3 * d), (3 * d,), (d, d), (d,)]
    mlp: list[tuple[int, ...]] = [(d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    shapes = [(1024, d), *12 * (norm + attention + norm + mlp), *norm]
    vocabulary = (elements - sum(map(math.prod, shapes))) // d
    return [(max(1, vocabulary), d), *shapes]


def _floor(load: Workload) -> Step:
    anchors = [p.clone() for p in load.params]
    return lambda: torch._foreach_addcmul_(load.params, load.grads, anchors, value=1e-6)


def _copy(load: Workload) -> Step:
    targets = [p.clone() for p in load.params]
    return lambda: torch._foreach_copy_(targets, load.params)


def _fill(load: Workload) -> Step:
    out = torch.empty(load.elements)
    return lambda: standard_normal(out, seed=1)


def _sgd(load: Workload) -> Step:
    return torch.optim.SGD(load.params, lr=LR, fused=True).step


def _ours(kind: Callable[..., Sampler] = SGLD, *, read: bool = False, **options: Any) -> Build:
    """Return what makes one of our samplers, and whether metrics are read after each step."""

    def build(load: Workload) -> Step:
        sampler = kind(
            load.params, lr=LR, nbeta=NBETA, localization=LOCALIZATION, seed=1, **options
        )

        def step() -> object:
            sampler.step()
            return sampler.get_metrics()

        return step if read else sampler.step

    return build


def _pure(name: str, *, metrics: bool = False) -> Build:
    def build(load: Workload) -> Step:
        settings = {"lr": LR, "nbeta": NBETA, "localization": LOCALIZATION}
        try:
            return made(name, load.params, lambda: load.grads, metrics=metrics, **settings)
        except Uncompiled as error:
            raise Unavailable(str(error)) from error

    return build


def devinterp_step(method: str = "sgld", version: str | None = None, **options: Any) -> Build:
    """Return what makes a step of devinterp's ``SGMCMC``, of one version or whichever there is."""

    def build(load: Workload) -> Step:
        try:
            from devinterp.optim import SGMCMC
        except ImportError as error:
            raise Unavailable("not installed") from error
        if version not in (None, found := importlib.metadata.version("devinterp")):
            raise Unavailable(f"version {found} is installed")
        make = getattr(SGMCMC, method)
        try:
            sampler = make(load.params, lr=LR, nbeta=NBETA, localization=LOCALIZATION, **options)
        except TypeError as error:
            raise Unavailable(f"version {found} has no {', '.join(options)}") from error
        step: Step = sampler.step
        return step

    return build


_devinterp = partial(devinterp_step, version="2.0.1")
_SKETCH: dict[str, Any] = {"save_metrics": True, "sketch_dim": 1024}

# What can be measured, by the name it has in the table. Each takes the parameters as they are and
# works on them in place, so all that share a workload touch the same weights and gradients.
STEPS: dict[str, Build] = {
    "torch addcmul_, the floor": _floor,
    "torch copy_": _copy,
    "our normal fill": _fill,
    "torch fused SGD, no noise": _sgd,
    "fastllc": _ours(),
    "fastllc, metrics": _ours(save_metrics=True),
    "fastllc, metrics read": _ours(save_metrics=True, read=True),
    **{name: _pure(name) for name in UPDATES},
    **{f"{name}, metrics": _pure(name, metrics=True) for name in UPDATES},
    "devinterp 2.0.1": _devinterp(),
    "devinterp 2.0.1, metrics": _devinterp(save_metrics=True),
    "RMSpropSGLD": _ours(RMSpropSGLD),
    "RMSpropSGLD, metrics": _ours(RMSpropSGLD, save_metrics=True),
    "RMSpropSGLD, metrics read": _ours(RMSpropSGLD, save_metrics=True, read=True),
    "RMSpropSGLD, metrics and sketch": _ours(RMSpropSGLD, **_SKETCH),
    "devinterp rmsprop": _devinterp("rmsprop_sgld"),
    "devinterp rmsprop, metrics": _devinterp("rmsprop_sgld", save_metrics=True),
    "devinterp rmsprop, with sketch": _devinterp("rmsprop_sgld", **_SKETCH),
    "AdamSGLD": _ours(AdamSGLD),
    "SGHMC": _ours(SGHMC),
    "SGNHT": _ours(SGNHT),
}
