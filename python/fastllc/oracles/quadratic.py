"""Quadratic losses, for which the law of a chain is known with all its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fastllc import checks
from fastllc.engine.data import DEFAULT_BATCH_SIZE
from fastllc.oracles.epochs import mean_over_epoch, minibatch_means
from fastllc.oracles.oracle import Oracle, generator_of
from fastllc.oracles.potential import Potential, mean_potential
from fastllc.oracles.quadrature import Array

__all__ = ["Quadratic", "quadratic"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Quadratic(Oracle):
    r"""A quadratic loss, with the law of `SGLD` and `SGHMC` on it at any settings.

    Attributes
    ----------
    curvatures : ndarray, [d]
        :math:`h_i`.
    variances : ndarray, [d]
        :math:`\sigma_i^2`, mean squares of the centred data.

    Examples
    --------
    >>> quadratic([1.0, 2.0]).variances
    array([0., 0.])
    """

    curvatures: Array
    variances: Array

    def exact(
        self,
        nbeta: float,
        localization: float = 0.0,
        *,
        lr: float | Sequence[float] | None = None,
        friction: float = 1.0,
        batch_size: int | None = None,
        replacement: bool = False,
    ) -> float:
        r"""Return what chains converge to, with the bias of their steps and of minibatches.

        Without `lr`, as steps become small, with :math:`a_i = n\beta h_i + \gamma`,

        .. math:: \lambda(n\beta, \gamma) = \frac12 \sum_i \frac{n\beta h_i}{a_i}.

        With it, per weight, the step of `SGHMC`, which with friction 1 is that of `SGLD`,

        .. math:: m \leftarrow (1 - \alpha)\,m - \tfrac\epsilon2 (a w - n\beta h\,\xi)
                  + \sqrt{\alpha\epsilon}\,z, \qquad w \leftarrow w + m,

        is linear, with the mean :math:`\xi` of the minibatch's data; of the means of one epoch of n
        samples in minibatches of B each has variance :math:`\frac{\sigma^2(n - B)}{B(n - 1)}`,
        two have covariance :math:`-\frac{\sigma^2}{n-1}`. The value is the mean of
        :math:`\sum_i n\beta h_i \mathbb E[\frac12 w_i^2 - w_i \xi_i]` over the steps of an epoch:
        the second term is what a step's own minibatch owes to those before it, since the loss is
        recorded on it. With all data at every step it is
        :math:`\frac12 \sum n\beta h_i / (a_i (1 - \epsilon a_i / (4(2 - \alpha))))`.

        Parameters
        ----------
        nbeta : float
            :math:`n\beta` > 0.
        localization : float, default 0
            :math:`\gamma` >= 0.
        lr : float or sequence of float, optional
            :math:`\epsilon` > 0 of all weights, or of each: under a frozen diagonal preconditioner
            G those of `SGLD` are :math:`\epsilon G_{ii}`.
        friction : float, default 1
            :math:`\alpha` in (0, 1], of `SGHMC`.
        batch_size : int, optional
            B, as in `Sampling`: None means 256, or all of fewer samples.
        replacement : bool, default False
            As in `Sampling`: minibatches are then independent, with variance
            :math:`\sigma^2 / B` of their means.

        Returns
        -------
        float
            Of draws at every step.

        Raises
        ------
        TypeError, ValueError
            If an argument is out of range; if chains are unstable, which they are unless
            :math:`\epsilon a_i < 4(2 - \alpha)`.

        Examples
        --------
        >>> oracle = quadratic([1.0, 0.5, 0.1, 0.02])
        >>> round(oracle.exact(100.0, 5.0), 3), round(oracle.exact(100.0, 5.0, lr=0.01), 3)
        (1.407, 1.664)
        """
        nbeta = checks.positive("nbeta", nbeta)
        gamma = checks.non_negative("localization", localization)
        friction = checks.positive("friction", friction)
        if friction > 1:
            raise ValueError(f"friction must be > 0 and <= 1, got {friction}")
        checks.boolean("replacement", replacement)
        n = len(self.data)
        size = min(DEFAULT_BATCH_SIZE, n)
        if batch_size is not None:
            size = checks.integer("batch_size", batch_size, 1, n + 1)
        # What is flat adds nothing, wherever chains go on it.
        steep = self.curvatures > 0
        pull = nbeta * self.curvatures[steep]
        a = pull + gamma
        if lr is None:
            return float((pull / a).sum() / 2)
        eps = _step_sizes(lr, len(steep))[steep]
        if np.any(eps * a >= 4 * (2 - friction)):
            limit = 4 * (2 - friction) / a.max()
            raise ValueError(
                f"lr must be < 4 (2 - friction) / (nbeta h + localization), which is {limit:.3g} "
                f"for the largest h, got {lr}"
            )
        variance, covariance, steps = minibatch_means(n, size, replacement=replacement)
        spread = self.variances[steep]
        w2, w_xi = mean_over_epoch(
            pull, a, eps, friction, variance * spread, covariance * spread, steps
        )
        return float((pull * (w2 / 2 - w_xi)).sum())


def quadratic(
    curvatures: Sequence[float], *, noise: float = 0.0, n_samples: int = 1000, seed: int = 0
) -> Quadratic:
    r"""Make a quadratic loss, of data with or without noise.

    .. math:: L_n(w) = \frac1n \sum_s \frac12 \sum_i h_i (w_i - x_{si})^2,

    with :math:`x_{si}` normal of standard deviation `noise`, then centred, so that :math:`w^* = 0`.
    :math:`\lambda = d'/2` with the number d' of positive curvatures, m = 1.

    Parameters
    ----------
    curvatures : sequence of float
        :math:`h_i \geq 0`, one for each weight.
    noise : float, default 0
        >= 0. It is the noise of minibatches' gradients: :math:`h_i` times this, over the root of
        the number of samples.
    n_samples : int, default 1000
        n >= 2.
    seed : int, default 0
        Of the data, in [0, 2**63).

    Returns
    -------
    Quadratic

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Examples
    --------
    What minibatches of ten samples add to the estimate.

    >>> oracle = quadratic([1.0] * 4, noise=1.0)
    >>> full, ten = (oracle.exact(100.0, lr=4e-4, batch_size=b) for b in (1000, 10))
    >>> oracle.llc, round(ten / full, 3)
    (Fraction(2, 1), 1.154)
    """
    h = [checks.non_negative(f"curvatures[{i}]", x) for i, x in enumerate(curvatures)]
    if not h:
        raise ValueError("curvatures must be one or more, got none")
    noise = checks.non_negative("noise", noise)
    n_samples = checks.integer("n_samples", n_samples, 2)
    x = torch.randn(n_samples, len(h), generator=generator_of(seed), dtype=torch.float64)
    x = (noise * (x - x.mean(0))).float()
    return Quadratic(
        name=f"quadratic loss of {len(h)} weights",
        llc=Fraction(sum(value > 0 for value in h), 2),
        multiplicity=1,
        model=Potential(torch.zeros(len(h)), partial(_energy, torch.tensor(h))),
        data=TensorDataset(x, torch.zeros(n_samples)),
        loss_fn=mean_potential,
        curvatures=np.array(h),
        variances=x.double().var(0, correction=0).numpy(),
    )


def _energy(h: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return (h * (w - x).square()).sum(-1) / 2


def _step_sizes(lr: float | Sequence[float], count: int) -> Array:
    if isinstance(lr, (int, float)):
        return np.full(count, checks.positive("lr", lr))
    if len(lr) != count:
        raise ValueError(f"lr must be one number or {count}, one for each weight, got {len(lr)}")
    return np.array([checks.positive(f"lr[{i}]", x) for i, x in enumerate(lr)])
