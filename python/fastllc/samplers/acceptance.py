"""Whether the Metropolis-adjusted Langevin algorithm accepts steps of SGLD, and how probably."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastllc.kernels import MAX_PARAMS
from fastllc.noise import standard_normal

__all__ = ["Energy", "LogUniforms", "Point", "decide", "log_acceptance", "log_uniforms"]

# Blocks of the sums: torch cuts longer ones by its number of threads, and the last bits follow.
_BLOCK = 16384
# Steps whose uniforms are drawn at once.
_AHEAD = 256


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
        if mask is not None:
            terms = torch.where(mask, terms, 0.0)
        for block in torch.split(terms.flatten(1), _BLOCK, dim=1):
            log = log + block.sum(1)
    return log


def log_uniforms(keys: Sequence[int], first: int, count: int = 1) -> Tensor:
    """Return the logarithms of the uniforms that steps are tested by, [K, count], in double.

    Half the squared length of two normals is distributed as -log u. Those of step t are elements
    2 t and 2 t + 1 of `standard_normal` at the last parameter id, which no model has a tensor for.

    Parameters
    ----------
    keys : sequence of int
        Of the chains' noise.
    first, count : int
        Which steps.

    Examples
    --------
    >>> both = log_uniforms([1, 2], first=3, count=4)
    >>> torch.equal(both[1:, 2:3], log_uniforms([2], first=5)), bool((both < 0).all())
    (True, True)
    """
    normals = [
        standard_normal(
            (count, 2), seed=key, param=MAX_PARAMS - 1, first=2 * first, dtype=torch.float64
        )
        for key in keys
    ]
    return -0.5 * torch.stack(normals).square().sum(2)


class LogUniforms:
    """The same for one step after another, drawn ahead.

    Drawn for each step, those of 1000 chains would take 8 ms, and all else of a small step 2.

    Parameters
    ----------
    keys : sequence of int
        Of the chains' noise.

    Examples
    --------
    >>> torch.equal(LogUniforms([1, 2]).at(300), log_uniforms([1, 2], 300)[:, 0])
    True
    """

    def __init__(self, keys: Sequence[int]) -> None:
        self._keys = keys
        self._block = -1
        self._drawn = torch.empty(0)

    def at(self, step: int) -> Tensor:
        """Return those of a step, [K]."""
        block, offset = divmod(step, _AHEAD)
        if block != self._block:
            self._drawn = log_uniforms(self._keys, block * _AHEAD, _AHEAD)
            self._block = block
        return self._drawn[:, offset]


def decide(log: Tensor, log_uniform: Tensor, after: Point) -> tuple[Tensor, Tensor]:
    """Return the probabilities of acceptance and what Metropolis' test says, [K] each.

    Parameters
    ----------
    log : Tensor, shape [K]
        What `log_acceptance` returned; NaN, as it is where a weight is not finite, is a refusal.
    log_uniform : Tensor, shape [K]
        That of each chain.
    after : Point
        The proposals; one without a finite loss is refused.

    Examples
    --------
    >>> here = Point(torch.tensor([1.0, torch.nan]), [], [])
    >>> decide(torch.zeros(2), torch.tensor([-0.1, -0.1]), here)
    (tensor([1., 0.]), tensor([ True, False]))
    """
    sane = after.losses.isfinite() & ~log.isnan()
    log = torch.where(sane, log, -torch.inf)
    return log.clamp(max=0).exp(), log_uniform < log
