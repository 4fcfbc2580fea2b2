"""Whether the Metropolis-adjusted Langevin algorithm accepts steps of SGLD, and how probably."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from fastllc.kernels import MAX_PARAMS
from fastllc.noise import standard_normal

__all__ = ["Energy", "LogUniforms", "Point", "decide", "log_acceptance", "log_uniforms"]

# Elements at once: what is made of them stays in the caches, a third of the time of a step of 1 M
# weights. torch cuts sums of more by its number of threads, and the last bits follow.
_BLOCK = 16384
# Steps whose uniforms are drawn at once.
_AHEAD = 256


class Point(NamedTuple):
    """Where K chains are.

    Attributes
    ----------
    losses : mean loss of each, [K]
    weights, grads : of each parameter that moves, [K, *shape]
    """

    losses: Tensor
    weights: list[Tensor]
    grads: list[Tensor]

    def copied(self) -> Point:
        """Return the same in memory of its own.

        Examples
        --------
        >>> w = torch.zeros(1, 2)
        >>> here = Point(torch.zeros(1), [w], [w]).copied()
        >>> w += 1
        >>> here.weights
        [tensor([[0., 0.]])]
        """
        weights, grads = ([t.clone() for t in each] for each in (self.weights, self.grads))
        return Point(self.losses.clone(), weights, grads)


class Energy(NamedTuple):
    """Settings of one parameter, [K] each, and what they refer to.

    Attributes
    ----------
    w0 : [K, *shape] or [1, *shape]; None: nothing pulls there
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

    In double precision.

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
    tensor([0.], dtype=torch.float64)
    """
    log = (before.losses.double() - after.losses.double()) * nbeta
    for energy, *tensors in zip(
        energies, before.weights, before.grads, after.weights, after.grads, strict=True
    ):
        mask = None if energy.mask is None else energy.mask[None]
        for blocks in zip(*map(_blocks, (*tensors, energy.w0, mask)), strict=False):
            log = log + _terms(energy, nbeta, *blocks)
    return log


def _blocks(tensor: Tensor | None) -> Iterable[Tensor | None]:
    """Cut [K, *shape] into blocks [K, n]."""
    return repeat(None) if tensor is None else torch.split(tensor[:, None].flatten(1), _BLOCK, 1)


def _terms(
    energy: Energy,
    nbeta: Tensor,
    w: Tensor,
    grad: Tensor,
    w_after: Tensor,
    grad_after: Tensor,
    w0: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """Return what a block adds to the logarithm beside the losses, [K]."""
    lr, gamma, decay, sigma, beta = (number[:, None] for number in (*energy[:4], nbeta))
    w, w_after = w.double(), w_after.double()
    # The prior is a quadratic: U(w) - U(w') = -delta . (its gradients' mean).
    pull, pull_after = (
        decay * x if w0 is None else gamma * (x - w0) + decay * x for x in (w, w_after)
    )
    drift, drift_after = beta * grad.double() + pull, beta * grad_after.double() + pull_after
    delta = w_after - w
    way = 0.5 * delta - lr / 8 * (drift_after - drift)
    terms = (drift + drift_after) * way / sigma**2 - 0.5 * delta * (pull + pull_after)
    return (terms if mask is None else torch.where(mask, terms, 0.0)).sum(1)


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
