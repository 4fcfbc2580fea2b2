"""Whether the step size is right: the acceptance probability that a step would have had."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastllc.kernels import real_dtype
from fastllc.reference.precision import read
from fastllc.samplers.acceptance import Energy, Point, log_acceptance
from fastllc.samplers.sgld import SGLD

__all__ = ["check_judged", "mala_acceptance"]

# Group, index in it, parameter.
_Moving = list[tuple[dict[str, Any], int, Tensor]]


def mala_acceptance(sampler: SGLD, closure: Callable[[], Any]) -> tuple[Any, float]:
    r"""Take one step of `SGLD`, and return how probably MALA would have accepted it.

    The Metropolis-adjusted Langevin algorithm makes the same proposals q and accepts them with the
    probability

    .. math::
        \min\left(1, \frac{e^{-U(w')}\, q(w | w')}{e^{-U(w)}\, q(w' | w)}\right), \qquad
        U(w) = n\beta L(w) + \frac{\gamma}{2}\|w - w_0\|^2 + \frac{\lambda}{2}\|w\|^2,

    so that its samples have no bias from the step size. `SGLD` accepts everything: where this is
    far below 1, lr is too large (MALA itself does best near 0.57, Roberts & Rosenthal 1998). It
    costs a second gradient, so ask for it now and then. With :math:`D = \nabla U(w)` and
    :math:`\Delta = w' - w` the logarithm is

    .. math::
        U(w) - U(w') + \frac{1}{\sigma^2} \left(\frac{1}{2} \Delta \cdot (D + D')
        - \frac{\epsilon}{8} (\|D'\|^2 - \|D\|^2)\right),

    summed over the elements that are sampled, each group with its own settings.

    Parameters
    ----------
    sampler : SGLD
        With one ``nbeta`` for all groups, positive ``noise_level`` and no ``bounding_box_size``;
        low-precision weights with ``rounding="exact"``.
    closure : callable
        Computes the mean loss and the gradients, as for `step`. It is called before and after the
        step and must give the same function of the weights: the same batch, the same dropout.

    Returns
    -------
    loss
        What the first call of the closure returned.
    probability : float
        In [0, 1]; NaN if a loss is. It is as exact as the closure's two losses, times nbeta.

    Raises
    ------
    TypeError
        If the sampler is not an `SGLD`, or the closure returns no number.
    ValueError
        If a setting is none of those above. No step has been taken then.
    RuntimeError
        If the closure leaves no gradient for a parameter that had one before the step.

    References
    ----------
    Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their discrete
    approximations, Bernoulli 2.
    Roberts & Rosenthal (1998), Optimal scaling of discrete approximations to Langevin diffusions,
    JRSS B 60.

    Examples
    --------
    >>> import torch
    >>> from fastllc import SGLD
    >>> w = torch.ones(4, requires_grad=True)
    >>> sampler = SGLD([w], lr=1e-3, nbeta=10.0, seed=0)
    >>> def closure():
    ...     sampler.zero_grad()
    ...     loss = 0.5 * w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> loss, probability = mala_acceptance(sampler, closure)
    >>> probability > 0.99
    True
    """
    check_judged(sampler)
    with torch.enable_grad():
        result = closure()
    moving = [
        (group, at, p)
        for group in sampler.param_groups
        for at, p in enumerate(group["params"])
        if p.grad is not None
    ]
    before = _point(sampler, moving, result)
    sampler.step()
    with torch.enable_grad():
        again = closure()
    return result, _probability(sampler, moving, before, _point(sampler, moving, again))


def check_judged(sampler: torch.optim.Optimizer) -> None:
    """Raise unless steps are the Gaussian proposals of one energy; see `mala_acceptance`."""
    if not isinstance(sampler, SGLD):
        raise TypeError(f"mala_acceptance needs an SGLD sampler, got {type(sampler).__name__}")
    nbeta = float(sampler.param_groups[0]["nbeta"])
    for group in sampler.param_groups:
        if float(group["nbeta"]) != nbeta:
            raise ValueError(
                f"nbeta must be the same in all groups, got {nbeta} and {group['nbeta']}"
            )
        if not float(group["noise_level"]) > 0:
            raise ValueError(f"noise_level must be > 0, got {group['noise_level']}")
        if group["bounding_box_size"] is not None:
            raise ValueError(f"bounding_box_size must be None, got {group['bounding_box_size']}")
        low = any(real_dtype(p.dtype) != p.dtype for p in group["params"])
        if low and group["rounding"] != "exact":
            raise ValueError(f"rounding must be 'exact', got {group['rounding']!r}")


@torch.no_grad()
def _point(sampler: SGLD, moving: _Moving, loss: Any) -> Point:
    """Return copies of where the chain is."""
    try:
        number = float(loss)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"closure must return the loss, a number, got {loss!r}") from None
    weights, grads = [], []
    for group, at, p in moving:
        if p.grad is None:
            raise RuntimeError(
                f"closure left no gradient for params[{group['first_param'] + at}] after the step"
            )
        weights.append(read(p, sampler.state[p].get("residual")).double().clone()[None])
        grads.append(p.grad.double().clone()[None])
    device = sampler.param_groups[0]["params"][0].device
    losses = torch.tensor([number], dtype=torch.float64, device=device)
    return Point(losses, weights, grads)


@torch.no_grad()
def _probability(sampler: SGLD, moving: _Moving, before: Point, after: Point) -> float:

    def number(group: dict[str, Any], name: str) -> Tensor:
        return torch.tensor([float(group[name])], dtype=torch.float64, device=device)

    device = sampler.param_groups[0]["params"][0].device
    energies = [
        Energy(
            number(group, "lr"),
            number(group, "localization"),
            number(group, "weight_decay"),
            number(group, "noise_level"),
            sampler.state[p]["w0"].double() if float(group["localization"]) > 0 else None,
            group["mask"][at] if group["mask"] else None,
        )
        for group, at, p in moving
    ]
    nbeta = number(sampler.param_groups[0], "nbeta")
    log = log_acceptance(before, after, nbeta, energies).item()
    return math.exp(min(0.0, log)) if not math.isnan(log) else math.nan
