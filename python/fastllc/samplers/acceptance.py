"""How probably the Metropolis-adjusted Langevin algorithm would accept steps of SGLD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Energy", "Point", "log_acceptance"]


class Point(NamedTuple):
    """Where K chains are.

    Attributes
    ----------
    losses : mean loss of each, [K]
    weights, grads : of each parameter that moves, [K, *shape], in double precision
    """

    losses: Tensor
    weights: list[Tensor]
    grads: list[Tensor]


class Energy(NamedTuple):
    """Settings of one parameter, [K] each, and what they refer to.

    Attributes
    ----------
    w0 : [K, *shape] or broadcasting to it; None: nothing pulls there
    mask : [*shape], True where a weight is sampled; None: everywhere
    """

    lr: Tensor
    localization: Tensor
    weight_decay: Tensor
    noise_level: Tensor
    w0: Tensor | None
    mask: Tensor | None


def log_acceptance(
    before: Point, after: Point, nbeta: Tensor, energies: Sequence[Energy]
) -> Tensor:
    r"""Return the logarithm of the acceptance ratio of each chain, [K]; above 0 where it exceeds 1.

    With :math:`D = \nabla U(w)` and :math:`\Delta = w' - w`

    .. math::
        U(w) - U(w') + \frac{1}{\sigma^2} \left(\frac{1}{2} \Delta \cdot (D + D')
        - \frac{\epsilon}{8} (\|D'\|^2 - \|D\|^2)\right).

    Parameters
    ----------
    before, after : Point
        A step of SGLD, both gradients of the same function.
    nbeta : Tensor, shape [K]
        The inverse temperature of all parameters.
    energies : sequence of Energy
        Of each parameter.

    Examples
    --------
    >>> one, w = torch.ones(1), torch.ones(1, 2)
    >>> here = Point(one, [w], [w])
    >>> log_acceptance(here, here, one, [Energy(one, one, one, one, None, None)])
    tensor([0.])
    """
    log = (before.losses - after.losses) * nbeta
    for (*numbers, w0, mask), w, g, w_after, g_after in zip(
        energies, before.weights, before.grads, after.weights, after.grads, strict=True
    ):
        shape = -1, *[1] * (w.ndim - 1)
        lr, gamma, decay, sigma = (number.view(shape) for number in numbers)
        # The prior is a quadratic: U(w) - U(w') = -delta . (its gradients' mean).
        pull, pull_after = (
            decay * x if w0 is None else gamma * (x - w0) + decay * x for x in (w, w_after)
        )
        drift = nbeta.view(shape) * g + pull
        drift_after = nbeta.view(shape) * g_after + pull_after
        delta = w_after - w
        terms = (
            -0.5 * delta * (pull + pull_after)
            + (
                0.5 * delta * (drift + drift_after)
                - lr / 8 * (drift_after.square() - drift.square())
            )
            / sigma**2
        )
        log = log + (terms if mask is None else torch.where(mask, terms, 0.0)).flatten(1).sum(1)
    return log
