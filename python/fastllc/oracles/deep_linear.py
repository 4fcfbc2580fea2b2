"""Deep linear networks at minima of known learning coefficient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fastllc import checks
from fastllc.oracles.formulas import check_sizes, deep_linear_coefficient
from fastllc.oracles.oracle import Oracle, generator_of

__all__ = ["DeepLinear", "deep_linear", "linear_oracle", "reduced_rank"]

CHECKED = 100_000
"""Weights up to which the rank of the Jacobian is checked when an oracle is made."""

TOLERANCE = 1e-5
"""Singular values below this share of the largest are what rounding to float32 leaves of zeros."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DeepLinear(Oracle):
    r"""A deep linear network at weights where its learning coefficient is known.

    Its loss is torch's ``mse_loss``, the mean over samples and outputs without 1/2, its targets
    are its own outputs: :math:`L_n(w^*) = 0` for any number of samples.

    Attributes
    ----------
    rank : int
        Of the product of all layers.
    attained : bool
        Whether ``llc`` is the local learning coefficient. If not, it is the formula's value for
        the rank of the product, and the local one is as large or larger.

    Examples
    --------
    >>> [tuple(layer.shape) for layer in reduced_rank(5, 3, 4, 2).layers()]
    [(3, 5), (4, 3)]
    """

    rank: int
    attained: bool = True

    def layers(self) -> list[Tensor]:
        """Return the weights, [H_l, H_(l-1)], inputs' first, in double precision."""
        return [p.detach().double() for p in self.model.parameters()]

    def jacobian_rank(self) -> int:
        r"""Return the rank of the Jacobian of the weights' product at the minimum.

        The product changes by :math:`\sum_l A_l\, dW_l\, B_l`, where :math:`A_l` are the layers
        above l multiplied and :math:`B_l` those below. The column spaces of :math:`A_l` grow with
        l, the row spaces of :math:`B_l` shrink, so that the rank is

        .. math:: \sum_{l=1}^{L} a_l b_l - \sum_{l=1}^{L-1} a_l b_{l+1}

        with :math:`a_l, b_l` the ranks. Half of it is never more than the learning coefficient.

        Returns
        -------
        int
            To the precision of the weights, by two singular value decompositions a layer.

        Examples
        --------
        >>> reduced_rank(5, 3, 4, 2).jacobian_rank()  # r (H_0 + H_L - r)
        14
        """
        layers = self.layers()
        below = _ranks_of_products(layers)
        above = _ranks_of_products([layer.T for layer in reversed(layers)])[::-1]
        rank = sum(a * b for a, b in zip(above, below, strict=True))
        return rank - sum(a * b for a, b in zip(above, below[1:], strict=False))

    def check(self) -> None:
        """Raise unless half the rank of the Jacobian is at most ``llc``.

        Raises
        ------
        ArithmeticError
            If it is more, so that these weights cannot have this learning coefficient.

        Examples
        --------
        >>> reduced_rank(5, 3, 4, 2).check()
        """
        rank = self.jacobian_rank()
        if rank > 2 * self.llc:
            raise ArithmeticError(
                f"half the rank of the Jacobian must be <= {self.llc} (the LLC), got {rank} / 2"
            )


def deep_linear(
    widths: Sequence[int], rank: int, *, n_samples: int = 1000, seed: int = 0
) -> DeepLinear:
    r"""Make a deep linear network all of whose layers, and products of layers, have rank r.

    :math:`W_l = U_l\, \mathrm{diag}(s_l)\, U_{l-1}^T`, where each :math:`U_l`, of shape
    :math:`[H_l, r]`, has random orthonormal columns, which the layers on both sides share, and
    :math:`s_l` is uniform in [1/2, 3/2]. Inputs are uniform in [-10, 10], targets without noise.

    Parameters
    ----------
    widths : sequence of int
        :math:`H_0` (inputs) to :math:`H_L` (outputs), two or more, each >= 1.
    rank : int
        r, from 0 to the least of them.
    n_samples : int, default 1000
        At least :math:`H_0`: fewer do not see the whole product, which changes the learning
        coefficient. More add nothing but independent minibatches, whatever n sets :math:`n\beta`.
    seed : int, default 0
        Of weights and inputs, in [0, 2**63).

    Returns
    -------
    DeepLinear

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Aoyagi 2024; see `deep_linear_coefficient`. Furman & Lau 2024, "Estimating the local learning
    coefficient at scale", arXiv 2402.03698, appendix E.2, for inputs, targets and loss.

    Examples
    --------
    >>> oracle = deep_linear([10, 10, 10], 5)
    >>> oracle.llc, oracle.multiplicity, oracle.jacobian_rank()
    (Fraction(47, 1), 2, 75)
    """
    rank = check_sizes(widths, rank)
    generator = generator_of(seed)
    spaces = [_orthonormal(h, rank, generator) for h in widths]
    layers = []
    for below, above in pairwise(spaces):
        singular = 0.5 + torch.rand(rank, generator=generator, dtype=torch.float64)
        layers.append(((above * singular) @ below.T).float())
    oracle = linear_oracle(layers, rank, n_samples, generator)
    if sum(layer.numel() for layer in layers) <= CHECKED:
        oracle.check()
    return oracle


def reduced_rank(
    inputs: int, hidden: int, outputs: int, rank: int, *, n_samples: int = 1000, seed: int = 0
) -> DeepLinear:
    r"""Make reduced rank regression: `deep_linear` with one hidden layer.

    Parameters
    ----------
    inputs, hidden, outputs, rank : int
        See `reduced_rank_coefficient`.
    n_samples, seed : int
        See `deep_linear`.

    Returns
    -------
    DeepLinear

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    Examples
    --------
    >>> reduced_rank(4, 3, 8, 3).llc
    Fraction(27, 2)
    """
    return deep_linear([inputs, hidden, outputs], rank, n_samples=n_samples, seed=seed)


def linear_oracle(
    layers: Sequence[Tensor],
    rank: int,
    n_samples: int,
    generator: torch.Generator,
    *,
    attained: bool = True,
) -> DeepLinear:
    """Make an oracle of float32 layers, [H_l, H_(l-1)], with a product of this rank.

    Its LLC is the formula's.

    Examples
    --------
    >>> linear_oracle([torch.eye(3), torch.eye(3)], 3, 5, generator_of(0)).name
    'deep linear network 3-3-3 of rank 3'
    """
    widths = [layers[0].shape[1], *(layer.shape[0] for layer in layers)]
    n_samples = checks.integer("n_samples", n_samples, widths[0])
    llc, multiplicity = deep_linear_coefficient(widths, rank)
    model = nn.Sequential()
    for layer in layers:
        linear = nn.Linear(layer.shape[1], layer.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(layer)
        model.append(linear)
    x = torch.empty(n_samples, widths[0]).uniform_(-10, 10, generator=generator)
    with torch.no_grad():
        y = model(x)
    return DeepLinear(
        name=f"deep linear network {'-'.join(map(str, widths))} of rank {rank}",
        llc=llc,
        multiplicity=multiplicity,
        model=model,
        data=TensorDataset(x, y),
        loss_fn=nn.functional.mse_loss,
        rank=rank,
        attained=attained,
    )


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    normal = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(normal).Q
    return basis


def _ranks_of_products(layers: Sequence[Tensor]) -> list[int]:
    """Rank of no layer, of the first one, of the second times the first, ..., without the last.

    A basis of the column space goes on, not the product, whose singular values are as far apart as
    those of all layers together.
    """
    basis = torch.eye(layers[0].shape[1], dtype=layers[0].dtype)
    ranks = [len(basis)]
    for layer in layers[:-1]:
        u, values, _ = torch.linalg.svd(layer @ basis, full_matrices=False)
        basis = u[:, values > values[:1] * TOLERANCE]
        ranks.append(basis.shape[1])
    return ranks
