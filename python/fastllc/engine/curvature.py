"""The largest curvature of the loss at w*, which bounds the steps of every sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fastllc.engine.checkpoints import trainable
from fastllc.engine.data import Data, open_data
from fastllc.engine.interrupts import heard_between
from fastllc.engine.objective import Evaluate, LossFn, Objective
from fastllc.engine.rng import seeded_rng
from fastllc.engine.snapshot import preserved

__all__ = ["largest_curvature"]

_SAMPLES = 1024
_ITERATIONS = 20


def largest_curvature(
    model: nn.Module,
    data: Data,
    loss_fn: LossFn | None = None,
    *,
    evaluate: Evaluate | None = None,
    mask: Mapping[str, Tensor] | None = None,
) -> float:
    r"""Largest absolute eigenvalue of the Hessian of the mean loss, by power iteration.

    Products with the Hessian are differences of gradients on both sides of w*,

    .. math:: H v \approx \frac{\nabla L(w^* + \delta v) - \nabla L(w^* - \delta v)}{2\delta},

    which any model has; of the first 1024 samples, or the first batch of a loader. Twenty products
    from a random vector find nine tenths of it where the next eigenvalues are close.

    Parameters
    ----------
    model, data, loss_fn, evaluate, mask
        As in `fastllc.sample`.

    Returns
    -------
    float
        >= 0, loss per squared weight.

    Examples
    --------
    >>> data = torch.zeros(4, 1), torch.zeros(4)
    >>> model = nn.Linear(1, 1)
    >>> curvature = largest_curvature(model, data, lambda outputs, y: 1.5 * outputs[:, 0] ** 2)
    >>> abs(curvature - 3.0) < 0.01
    True
    """
    params = trainable(model)
    device = next(iter(params.values())).device
    objective = Objective(model, loss_fn, evaluate)
    batches = open_data(data, None, device)
    masks = [None if mask is None else mask.get(name) for name in params]
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        preserved(model) as load,
        seeded_rng(0, device, batches.generators),
        heard_between() as check,
    ):
        load({})
        batch = next(iter(batches.full_pass(_SAMPLES)))
        leaves = list(params.values())
        start = [p.detach().clone() for p in leaves]
        length = _norm(start)
        delta = 1e-3 * (length or 1.0)
        v = [torch.randn(p.shape).to(p) for p in leaves]
        curvature = 0.0
        for _ in range(_ITERATIONS):
            check()
            v = [x if m is None else x * m for x, m in zip(v, masks, strict=True)]
            size = _norm(v)
            if not size > 0:
                return 0.0
            v = [x / size for x in v]
            ahead, behind = (
                _gradient(objective, batch, leaves, start, v, sign * delta) for sign in (1, -1)
            )
            v = [(a - b) / (2 * delta) for a, b in zip(ahead, behind, strict=True)]
            curvature = _norm([x if m is None else x * m for x, m in zip(v, masks, strict=True)])
        return curvature


def _gradient(
    objective: Objective,
    batch: object,
    leaves: Sequence[Tensor],
    start: Sequence[Tensor],
    v: Sequence[Tensor],
    distance: float,
) -> list[Tensor]:
    """Return the gradient beside the start."""
    with torch.no_grad():
        for p, w, x in zip(leaves, start, v, strict=True):
            p.copy_(w + distance * x)
    loss = objective(batch)
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.detach().double().square().sum() for t in tensors]).sum().sqrt())
