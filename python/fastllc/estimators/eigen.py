"""Leading eigenpairs of a covariance too large to form, from a stream of samples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastllc.checks import integer

__all__ = ["Eigenpairs", "TopEigenpairs"]

# With 21 rows for 5 pairs of 300 directions (spectra 1/i, 1/sqrt(i), 0.9^i, 3000 samples) the fifth
# eigenvalue is 0.5, 5 and 0.6 % too small if 13 are kept, and 9, 10 and 13 % if only 5 are.
_SPARE = 8


class Eigenpairs(NamedTuple):
    """Leading eigenpairs of a covariance.

    Attributes
    ----------
    values : Tensor, shape [pairs], float64
        Eigenvalues, descending; fewer than k only if the covariance has no more that are not 0.
    vectors : Tensor, shape [pairs, d]
        Orthonormal rows, each up to its sign.
    trace : float
        Sum of all eigenvalues of the covariance, exact.
    error : float
        The eigenvalues of the samples' covariance are at least `values` and at most ``values +
        error``, to rounding.
    """

    values: Tensor
    vectors: Tensor
    trace: float
    error: float


class TopEigenpairs:
    r"""Top k eigenpairs of the covariance of weights, one batch of samples after another.

    Rows R with :math:`R^\top R \approx \sum_t (\delta_t - \bar\delta)(\delta_t - \bar\delta)^\top`
    are kept in memory. When there are 2 (k + 8), they are turned onto the eigenvectors of
    :math:`R R^\top`, and the lesser half is dropped. With :math:`\rho_s` the greatest eigenvalue
    dropped at the s-th time, no eigenvalue of the sum is off by more than :math:`\sum_s \rho_s`;
    of a covariance of rank k + 8 or less, nothing is dropped.

    Parameters
    ----------
    k : int
        Eigenpairs, >= 1. Memory is ``2 k + 17`` rows of d numbers.

    References
    ----------
    Ross et al. 2008, "Incremental Learning for Robust Visual Tracking", International Journal of
    Computer Vision 77, section 3.1; the bound is Weyl's inequality.

    Examples
    --------
    >>> samples = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 5.0
    >>> top = TopEigenpairs(2)
    >>> for batch in samples.split(1):
    ...     top.update(batch)
    >>> top.eigenpairs().values
    tensor([6.0000, 0.6667], dtype=torch.float64)
    """

    def __init__(self, k: int) -> None:
        self.k = integer("k", k, 1)
        self._kept = self.k + _SPARE
        self._count = 0
        self._used = 0
        self._square = 0.0
        self._dropped = 0.0
        self._mean: Tensor | None = None
        self._rows: Tensor | None = None

    def update(self, deltas: Tensor) -> None:
        """Take in samples.

        Parameters
        ----------
        deltas : Tensor, shape [n, d], floating point
            Weights, or their distances from any fixed point, of the same d each time. They are
            copied in single precision at least.

        Raises
        ------
        TypeError, ValueError
            For anything else.
        """
        if not deltas.is_floating_point():
            raise TypeError(f"deltas must be floating point, got {deltas.dtype}")
        if deltas.ndim != 2:
            raise ValueError(f"deltas must have shape [n, d], got {list(deltas.shape)}")
        if not bool(deltas.isfinite().all()):
            raise ValueError("deltas must be finite, got NaN or infinity: leave lost chains out")
        d = deltas.shape[1]
        if self._rows is None or self._mean is None:
            dtype = torch.promote_types(deltas.dtype, torch.float32)
            self._rows = torch.empty(2 * self._kept, d, dtype=dtype, device=deltas.device)
            self._mean = torch.zeros(d, dtype=dtype, device=deltas.device)
        if d != self._mean.numel():
            raise ValueError(f"deltas must have shape [n, {self._mean.numel()}], got [..., {d}]")
        # A batch fills its own rows and one for the distance of its mean from the former ones'.
        size = self._kept - 1
        for start in range(0, len(deltas), size):
            batch = deltas[start : start + size].detach().to(self._mean.dtype)
            own = batch.mean(dim=0)
            parts = [batch - own] if len(batch) > 1 else []
            square = sum(map(_square, parts))
            self._take(self._rows, self._mean, own, len(batch), parts, square)

    def merge(self, other: TopEigenpairs) -> None:
        """Take in all samples of another stream, of the same d.

        Examples
        --------
        >>> first, second = TopEigenpairs(1), TopEigenpairs(1)
        >>> first.update(torch.zeros(1, 2))
        >>> second.update(torch.tensor([[2.0, 0.0]]))
        >>> first.merge(second)
        >>> round(first.eigenpairs().values.item(), 5)
        2.0
        """
        if other._rows is None or other._mean is None:
            return
        if self._rows is None or self._mean is None:
            d = other._mean.numel()
            self._rows = other._rows.new_empty(2 * self._kept, d)
            self._mean = torch.zeros_like(other._mean)
        rows = other._rows[: other._used]
        parts = [rows[at : at + self._kept] for at in range(0, len(rows), self._kept)]
        self._take(self._rows, self._mean, other._mean, other._count, parts, other._square)
        self._dropped += other._dropped

    def eigenpairs(self) -> Eigenpairs:
        """Give the leading eigenpairs of the covariance (divisor n - 1) of all n samples so far.

        Returns
        -------
        Eigenpairs

        Raises
        ------
        ValueError
            If there are fewer than two samples.
        """
        if self._rows is None or self._count < 2:
            raise ValueError(f"eigenpairs needs at least two samples, got {self._count}")
        rows, squares, _ = _turned(self._rows[: self._used], self.k)
        # What the Gram matrix's rounding makes of eigenvalues that are 0.
        least = squares[:1].sum() * self._used * torch.finfo(rows.dtype).eps
        kept = int((squares > least).sum())
        divisor = self._count - 1
        norms = torch.linalg.vector_norm(rows[:kept], dim=1, keepdim=True)
        return Eigenpairs(
            squares[:kept] / divisor,
            rows[:kept] / norms,
            self._square / divisor,
            self._dropped / divisor,
        )

    def _take(
        self, rows: Tensor, mean: Tensor, own: Tensor, m: int, parts: list[Tensor], square: float
    ) -> None:
        """Take in m samples: their mean, rows that stand for their scatter, and its trace."""
        n = self._count
        if n:
            apart = (math.sqrt(n * m / (n + m)) * (own - mean))[None]
            parts, square = [*parts, apart], square + _square(apart)
        for part in parts:
            if self._used + len(part) > len(rows):
                turned, _, dropped = _turned(rows[: self._used], self._kept)
                self._used = len(turned)
                rows[: self._used] = turned
                self._dropped += dropped
            rows[self._used : self._used + len(part)] = part
            self._used += len(part)
        mean += (own - mean) * (m / (n + m))
        self._square += square
        self._count += m


def _square(rows: Tensor) -> float:
    return float(rows.double().square().sum())


def _turned(rows: Tensor, k: int) -> tuple[Tensor, Tensor, float]:
    """Turn `rows` onto their k leading right singular vectors.

    Returns
    -------
    tuple
        The turned rows, their squared norms, and the greatest one left out.
    """
    squares, vectors = torch.linalg.eigh((rows @ rows.T).double())
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    dropped = float(squares[k:].max()) if len(squares) > k else 0.0
    return vectors[:, :k].T.to(rows.dtype) @ rows, squares[:k], dropped
