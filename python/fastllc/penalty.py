"""The localization penalty as a differentiable loss term."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.compiler import is_dynamo_compiling

from fastllc import kernels, memory
from fastllc.checks import check_number

__all__ = ["localization_penalty", "localization_penalty_and_grad"]

Result = TypeVar("Result")


def localization_penalty(
    params: Iterable[Tensor], anchors: Iterable[Tensor], strength: float
) -> Tensor:
    """Gaussian localization ``strength/2 * sum_i ||w_i - w0_i||^2``, in one pass over memory.

    It is minus the log of the prior that keeps a sampler near w0 (Lau et al., arXiv 2308.12108,
    section 4), for any loss that wants it there. Differentiable in `params`; the first gradient is
    one pass too.

    Parameters
    ----------
    params : iterable of Tensor
        Weights w, float32 or float64, of one dtype and device.
    anchors : iterable of Tensor
        w0, as many and of the same shapes; not differentiated.
    strength : float
        gamma >= 0.

    Returns
    -------
    Tensor
        The 0-d value, of the parameters' dtype.

    Raises
    ------
    TypeError, ValueError
        If the tensors do not belong together or `strength` is negative or not finite.

    Examples
    --------
    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> penalty = localization_penalty([w], [torch.zeros(2)], strength=2.0)
    >>> penalty.backward()
    >>> penalty.item(), w.grad
    (5.0, tensor([2., 4.]))
    """
    if is_dynamo_compiling():  # whose tensors have no memory
        return _untraced(localization_penalty, params, anchors, strength)
    weights, centers = _check(params, anchors, strength)
    value: Tensor = _Penalty.apply(  # type: ignore[no-untyped-call]
        strength, len(weights), *weights, *centers
    )
    return value


def localization_penalty_and_grad(
    params: Iterable[Tensor], anchors: Iterable[Tensor], strength: float
) -> tuple[Tensor, list[Tensor]]:
    """Return the penalty and its gradients ``strength * (w - w0)`` in one pass, outside autograd.

    Arguments and errors are those of `localization_penalty`.

    Returns
    -------
    value : Tensor
        0-d, of the parameters' dtype.
    grads : list of Tensor
        Of the parameters' shapes.

    Examples
    --------
    >>> localization_penalty_and_grad([torch.ones(2)], [torch.zeros(2)], 2.0)
    (tensor(2.), [tensor([2., 2.])])
    """
    if is_dynamo_compiling():
        return _untraced(localization_penalty_and_grad, params, anchors, strength)
    weights, centers = _check(params, anchors, strength)
    with torch.no_grad():
        return _evaluate(weights, centers, strength, [True] * len(weights))


@_disable_dynamo
def _untraced(function: Callable[..., Result], *arguments: Any) -> Result:
    return function(*arguments)


def _check(
    params: Iterable[Tensor], anchors: Iterable[Tensor], strength: float
) -> tuple[list[Tensor], list[Tensor]]:
    if not (math.isfinite(check_number("strength", strength)) and strength >= 0):
        raise ValueError(f"strength must be finite and >= 0, got {strength}")
    weights, centers = list(params), list(anchors)
    if not weights:
        raise ValueError("params must not be empty")
    if len(weights) != len(centers):
        raise ValueError(f"anchors must be as many as params ({len(weights)}), got {len(centers)}")
    for i, (w, w0) in enumerate(zip(weights, centers, strict=True)):
        memory.check_tensor(f"params[{i}]", w)
        if w.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"params[{i}] must be float32 or float64, got {memory.short(w.dtype)}")
        memory.check_like(f"anchors[{i}]", w0, w)
        if (w.dtype, w.device) != (weights[0].dtype, weights[0].device):
            raise ValueError(
                f"params[{i}] must be {weights[0].dtype} on {weights[0].device} like params[0], "
                f"got {w.dtype} on {w.device}"
            )
    return weights, centers


def _evaluate(
    params: list[Tensor], anchors: list[Tensor], scale: float, wanted: list[bool]
) -> tuple[Tensor, list[Tensor]]:
    """Value and, where wanted, gradients (others are left empty)."""
    if not kernels.has_kernel(params[0]):
        differences = [w - w0 for w, w0 in zip(params, anchors, strict=True)]
        total = torch.stack([d.square().sum() for d in differences]).sum()
        return 0.5 * scale * total, [scale * d for d in differences]
    grads = [
        torch.empty(w.shape if want else 0, dtype=w.dtype, device=w.device)
        for w, want in zip(params, wanted, strict=True)
    ]
    value = kernels.localization_penalty(
        [w.detach().contiguous() for w in params],
        [w0.detach().contiguous() for w0 in anchors],
        scale,
        [grad if want else None for grad, want in zip(grads, wanted, strict=True)],
    )
    return value.to(params[0].dtype), grads


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, strength: float, n: int, *tensors: Tensor) -> Tensor:
        ctx.strength, ctx.n = strength, n
        ctx.save_for_backward(*tensors)
        value, _ = _evaluate(list(tensors[:n]), list(tensors[n:]), strength, [False] * n)
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        n = ctx.n
        params, anchors = list(ctx.saved_tensors[:n]), list(ctx.saved_tensors[n:])
        wanted = list(ctx.needs_input_grad[2 : 2 + n])
        if torch.is_grad_enabled():  # create_graph=True: the kernel would end the graph silently
            scale = ctx.strength * grad_output
            grads = [scale * (w - w0) for w, w0 in zip(params, anchors, strict=True)]
        elif kernels.on_device(grad_output):  # to read the number would wait for the device
            _, grads = _evaluate(params, anchors, ctx.strength, wanted)
            for grad in grads:
                grad.mul_(grad_output)
        else:
            _, grads = _evaluate(params, anchors, ctx.strength * float(grad_output), wanted)
        masked = [grad if want else None for grad, want in zip(grads, wanted, strict=True)]
        return (None, None, *masked, *[None] * n)
