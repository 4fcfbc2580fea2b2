"""The published benchmark of deep linear networks: its classes, and networks drawn as there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastllc import checks
from fastllc.engine.sampling import default_nbeta
from fastllc.oracles.deep_linear import DeepLinear, deep_linear, linear_oracle
from fastllc.oracles.formulas import check_sizes, deep_linear_coefficient
from fastllc.oracles.oracle import generator_of

__all__ = ["CLASSES", "PublishedClass", "draw_class", "truncated_linear"]


@dataclass(frozen=True)
class PublishedClass:
    """Networks of one class, and how their learning coefficients were estimated.

    The name tells the order of magnitude of the number of weights, which differ much within it.

    Attributes
    ----------
    layers, widths : (int, int)
        Least and largest number of weight matrices, and of units between them.
    lr : float
        Step size of SGLD.
    num_steps : int
        Steps of a chain, nine tenths of them before the first draw.
    num_samples : int
        n, which sets ``nbeta`` to n / log n.

    Examples
    --------
    >>> CLASSES["1K"].settings["num_draws"]
    1000
    """

    layers: tuple[int, int]
    widths: tuple[int, int]
    lr: float
    num_steps: int
    num_samples: int

    @property
    def settings(self) -> dict[str, Any]:
        """The settings for `fastllc.LLCEstimator`."""
        return {
            "lr": self.lr,
            "nbeta": default_nbeta(self.num_samples),
            "localization": 1.0,
            "batch_size": 500,
            "num_chains": 1,
            "num_burnin_steps": self.num_steps - self.num_steps // 10,
            "num_draws": self.num_steps // 10,
        }


CLASSES = {
    "1K": PublishedClass((2, 5), (5, 50), 5e-7, 10_000, 10**5),
    "10K": PublishedClass((2, 10), (5, 100), 5e-7, 10_000, 10**5),
    "100K": PublishedClass((2, 10), (50, 500), 1e-7, 50_000, 10**6),
    "1M": PublishedClass((2, 20), (100, 1000), 5e-8, 50_000, 10**6),
    "10M": PublishedClass((2, 20), (500, 2000), 2e-8, 50_000, 10**6),
    "100M": PublishedClass((2, 40), (500, 3000), 2e-8, 50_000, 10**6),
}
"""The published classes by name: Furman & Lau 2024, arXiv 2402.03698, appendix E.2."""


def draw_class(
    name: str, seed: int, *, aligned: bool = True, n_samples: int = 10_000
) -> DeepLinear:
    r"""Draw a network of a published class.

    The number of layers and the widths are uniform in the ranges of the class. With probability
    1/2 each layer is reduced to a rank uniform in 1 to its smaller width; the least rank is that
    of the product.

    Parameters
    ----------
    name : {"1K", "10K", "100K", "1M", "10M", "100M"}
        A class of `CLASSES`.
    seed : int
        In [0, 2**63). One seed has the same widths and ranks, aligned or not.
    aligned : bool, default True
        Whether all layers have the rank of the product (`deep_linear`), so that the formula is the
        local value. If not, layers are as published, each with its own rank (`truncated_linear`):
        of the largest classes this takes minutes.
    n_samples : int, default 10000
        At least the number of inputs. The published number, which sets `nbeta`, would take
        gigabytes, and with targets without noise more samples change no minimum.

    Returns
    -------
    DeepLinear

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Furman & Lau 2024, "Estimating the local learning coefficient at scale", arXiv 2402.03698.

    Examples
    --------
    >>> draw_class("1K", 1).name
    'deep linear network ...'
    """
    if name not in CLASSES:
        raise ValueError(f"name must be one of {', '.join(CLASSES)}, got {name!r}")
    checks.boolean("aligned", aligned)
    drawn, generator = CLASSES[name], generator_of(seed)
    count = _uniform(*drawn.layers, generator)
    widths = [_uniform(*drawn.widths, generator) for _ in range(count + 1)]
    ranks = []
    for sizes in pairwise(widths):
        reduced = _uniform(0, 1, generator)
        ranks.append(_uniform(1, min(sizes), generator) if reduced else min(sizes))
    if aligned:
        return deep_linear(widths, min(ranks), n_samples=n_samples, seed=seed)
    return truncated_linear(widths, ranks, n_samples=n_samples, seed=seed)


def truncated_linear(
    widths: Sequence[int], ranks: Sequence[int], *, n_samples: int = 1000, seed: int = 0
) -> DeepLinear:
    r"""Make a deep linear network of independent layers, each truncated to a rank of its own.

    A layer is normal with variance 1 / (its inputs), and keeps its largest singular values. The
    product of layers has the least of their ranks r.

    Where the ranks differ, the local learning coefficient can be larger than that of
    `deep_linear_coefficient`. With one hidden layer it is known, and ``llc`` is the local one:

    .. math:: \lambda = \tfrac12 \left(r_2 H_0 + r_1 H_2 - r_1 r_2\right)
              + \lambda_0(H_0 - r_1,\, H_1 - \max(r_1, r_2),\, H_2 - r_2),

    half the rank of the Jacobian, and the coefficient of a network of these widths with product
    zero. With more layers ``llc`` is the formula's value and ``attained`` is False.

    Parameters
    ----------
    widths : sequence of int
        :math:`H_0` (inputs) to :math:`H_L` (outputs), two or more, each >= 1.
    ranks : sequence of int
        :math:`r_l` of each layer, inputs' first, from 0 to the smaller of its widths.
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
    A formula that is only a lower bound: the map from weights to products is a submersion here.

    >>> truncated_linear([10, 10, 10], [5, 10]).llc, deep_linear([10, 10, 10], 5).llc
    (Fraction(50, 1), Fraction(47, 1))
    """
    check_sizes(widths, 0)
    if len(ranks) != len(widths) - 1:
        raise ValueError(f"ranks must be {len(widths) - 1}, one a layer, got {len(ranks)}")
    for i, rank in enumerate(ranks):
        checks.integer(f"ranks[{i}]", rank, 0, min(widths[i : i + 2]) + 1)
    generator = generator_of(seed)
    shapes = zip(widths[1:], widths, ranks, strict=False)
    layers = [_truncated(*shape, generator) for shape in shapes]
    equal = len(set(ranks)) == 1
    oracle = linear_oracle(layers, min(ranks), n_samples, generator, attained=equal)
    if len(layers) != 2 or equal:
        return oracle
    (h0, h1, h2), (r1, r2) = widths, ranks
    llc, multiplicity = Fraction(r2 * h0 + r1 * h2 - r1 * r2, 2), 1
    left = [h0 - r1, h1 - max(r1, r2), h2 - r2]
    if all(left):
        rest = deep_linear_coefficient(left, 0)
        llc, multiplicity = llc + rest.llc, rest.multiplicity
    return replace(oracle, llc=llc, multiplicity=multiplicity, attained=True)


def _truncated(rows: int, columns: int, rank: int, generator: torch.Generator) -> Tensor:
    layer = torch.randn(rows, columns, generator=generator, dtype=torch.float64) / columns**0.5
    u, values, vh = torch.linalg.svd(layer, full_matrices=False)
    truncated: Tensor = (u[:, :rank] * values[:rank]) @ vh[:rank]
    return truncated.float()


def _uniform(least: int, largest: int, generator: torch.Generator) -> int:
    return int(torch.randint(least, largest + 1, (), generator=generator))
