"""Whether the step size is right: the acceptance probability that a step would have had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastllc.samplers.proposals import check_proposals, log_ratio, moving, point
from fastllc.samplers.sgld import SGLD

__all__ = ["check_judged", "mala_acceptance"]


def mala_acceptance(sampler: SGLD, closure: Callable[[], Any]) -> tuple[Any, float]:
    r"""Take one step of `SGLD`, and return how probably MALA would have accepted it.

    The Metropolis-adjusted Langevin algorithm, `MALA`, makes the same proposals q and accepts them
    with the probability

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
    chosen = moving(sampler.param_groups)
    before = point(sampler.state, chosen, result).copied()
    sampler.step()
    with torch.enable_grad():
        again = closure()
    log = log_ratio(sampler.state, chosen, before, point(sampler.state, chosen, again))
    return result, log.clamp(max=0).exp().item()


def check_judged(sampler: torch.optim.Optimizer) -> None:
    """Raise unless steps are the Gaussian proposals of one energy; see `mala_acceptance`."""
    if not isinstance(sampler, SGLD):
        raise TypeError(f"mala_acceptance needs an SGLD sampler, got {type(sampler).__name__}")
    check_proposals(sampler.param_groups)
