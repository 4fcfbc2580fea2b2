"""What every oracle has: a minimum, data, and the values that an estimate must come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fastllc import checks
from fastllc.engine.objective import LossFn

__all__ = ["Coefficient", "Oracle", "generator_of"]


class Coefficient(NamedTuple):
    r"""A local learning coefficient and its multiplicity.

    The volume of :math:`\{L(w) - L(w^*) < t\}` near :math:`w^*` is of the order
    :math:`t^\lambda (-\log t)^{m-1}`.

    Attributes
    ----------
    llc : Fraction
        :math:`\lambda`, exact.
    multiplicity : int
        :math:`m \geq 1`.

    Examples
    --------
    >>> Coefficient(Fraction(1, 2), 2).llc
    Fraction(1, 2)
    """

    llc: Fraction
    multiplicity: int


@dataclass(frozen=True, eq=False)
class Oracle:
    r"""A model at a minimum whose local learning coefficient is known.

    ``LLCEstimator(...).fit(oracle.model, oracle.data, oracle.loss_fn)`` estimates what is known.
    There are three truths, which are never to be mixed up: ``llc`` is the limit of large
    :math:`n\beta`; ``exact(nbeta, localization)`` is what a correct sampler converges to at the
    settings in use as its steps become small; with the step size, and with minibatches, it is
    what a chain at those steps converges to.

    Attributes
    ----------
    name : str
        What it is, in one line.
    llc : Fraction
        :math:`\lambda`, the asymptotic local learning coefficient at the weights of ``model``.
    multiplicity : int
        Its multiplicity m. Beyond 1 the limit is reached like :math:`1/\log n\beta`.
    model : nn.Module
        At the minimum.
    data : TensorDataset
        Inputs and targets.
    loss_fn : callable
        ``loss_fn(outputs, targets)``, the mean over the batch.
    law : callable, optional
        ``law(nbeta, localization)`` is what `exact` returns.

    Examples
    --------
    >>> from fastllc import oracles
    >>> oracle = oracles.normal_crossing([1, 2])
    >>> oracle.llc, oracle.multiplicity
    (Fraction(1, 4), 1)
    >>> oracle.loss_fn(oracle.model(oracle.data.tensors[0]), oracle.data.tensors[1]).item()
    0.0
    """

    name: str
    llc: Fraction
    multiplicity: int
    model: nn.Module
    data: TensorDataset
    loss_fn: LossFn
    law: Callable[[float, float], float] | None = None

    def exact(
        self, nbeta: float, localization: float = 0.0, *, lr: float | Sequence[float] | None = None
    ) -> float:
        r"""Return what a correct sampler converges to as its steps become small.

        .. math:: \lambda(n\beta, \gamma) = n\beta\left(\mathbb E[L_n(w)] - L_n(w^*)\right), \qquad
                  p(w) \propto \exp\left(-n\beta L_n(w) - \tfrac\gamma2\|w - w^*\|^2\right).

        Parameters
        ----------
        nbeta : float
            :math:`n\beta` > 0.
        localization : float, default 0
            :math:`\gamma` >= 0.
        lr : float or sequence of float, optional
            Step size, of oracles that know what it does; see `Quadratic`.

        Returns
        -------
        float
            Dimensionless; to six digits where it is an integral.

        Raises
        ------
        TypeError, ValueError
            If an argument is out of range, or the value is not known, or does not exist: without
            localization some posteriors are not proper.

        Examples
        --------
        >>> from fastllc import oracles
        >>> round(oracles.normal_crossing([1, 2]).exact(145.0, 1.0), 4)
        0.2095
        """
        nbeta = checks.positive("nbeta", nbeta)
        localization = checks.non_negative("localization", localization)
        if lr is not None:
            raise ValueError(f"lr must be None: its bias is not known for {self.name}, got {lr}")
        if self.law is None:
            raise ValueError(f"exact must be asked of another oracle: unknown for {self.name}")
        return self.law(nbeta, localization)


def generator_of(seed: int) -> torch.Generator:
    """Return a generator of its own for a seed in [0, 2**63).

    Examples
    --------
    >>> generator_of(3).initial_seed()
    3
    """
    return torch.Generator().manual_seed(checks.check_int("seed", seed, 63))
