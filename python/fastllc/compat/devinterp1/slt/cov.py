"""Covariances of weights over draws, and their leading eigenvalues."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastllc.compat.devinterp1.slt.callback import SamplerCallback, any_order

__all__ = [
    "AttentionHeadWeightsAccessor",
    "BetweenLayerCovarianceAccumulator",
    "CovarianceAccumulator",
    "LayerWeightsAccessor",
    "WeightAccessor",
    "WithinHeadCovarianceAccumulator",
]

WeightAccessor: TypeAlias = Callable[[nn.Module], Tensor]
LayerWeightsAccessor: TypeAlias = Callable[[nn.Module], Tensor]
AttentionHeadWeightsAccessor: TypeAlias = Callable[[nn.Module], tuple[Tensor, ...]]


class _Accumulator(SamplerCallback):
    """First and second moments of weights, all draws of all chains together."""

    def __init__(self, device: torch.device | str, num_evals: int) -> None:
        super().__init__(device)
        self.num_evals = num_evals
        self.num_draws = 0
        self.is_finished = False

    @any_order
    def __call__(self, model: nn.Module, **kwargs: Any) -> None:
        """Take in a draw."""
        self.accumulate(model)

    @torch.no_grad()
    def accumulate(self, model: nn.Module) -> None:
        """Take in the weights of a model.

        Raises
        ------
        AssertionError
            After `finalize`.
        """
        if self.is_finished:
            raise AssertionError("Cannot accumulate after finalizing.")
        self._add(model)
        self.num_draws += 1

    def finalize(self) -> None:
        """Make means of the sums."""
        for moment in self._moments():
            moment /= self.num_draws
        self.is_finished = True

    def reset(self) -> None:
        """Begin anew."""
        for moment in self._moments():
            moment.zero_()
        self.num_draws, self.is_finished = 0, False

    @abstractmethod
    def _add(self, model: nn.Module) -> None:
        """Add the weights and their products to the sums."""

    @abstractmethod
    def _moments(self) -> list[Tensor]:
        """Return all sums."""


class CovarianceAccumulator(_Accumulator):
    """The covariance of some weights.

    Parameters
    ----------
    num_weights : int
        d, how many weights the accessors return together.
    accessors : list of callable
        Each returns weights of a model, as a tensor.
    device : torch.device or str
        Where the [d, d] moments are kept.
    num_evals : int
        How many of the largest eigenvalues results hold.

    Examples
    --------
    >>> layer = nn.Linear(1, 1, bias=False).requires_grad_(False)
    >>> covariance = CovarianceAccumulator(1, [lambda model: model.weight])
    >>> for value in (1.0, 3.0):
    ...     _ = layer.weight.fill_(value)
    ...     covariance(layer)
    >>> covariance.finalize()
    >>> covariance.to_matrix()
    tensor([[1.]])
    """

    def __init__(
        self,
        num_weights: int,
        accessors: Sequence[WeightAccessor],
        device: torch.device | str = "cpu",
        num_evals: int = 3,
    ) -> None:
        super().__init__(device, num_evals)
        self.num_weights, self.accessors = num_weights, accessors
        self.first_moment = torch.zeros(num_weights, device=device)
        self.second_moment = torch.zeros(num_weights, num_weights, device=device)

    def _add(self, model: nn.Module) -> None:
        weights = torch.cat([accessor(model).flatten() for accessor in self.accessors])
        self.first_moment += weights
        self.second_moment.addr_(weights, weights)

    def _moments(self) -> list[Tensor]:
        return [self.first_moment, self.second_moment]

    def to_matrix(self) -> Tensor:
        """Return the covariance, [d, d]."""
        return self.second_moment - torch.outer(self.first_moment, self.first_moment)

    def to_eigen(self, include_matrix: bool = False) -> dict[str, Any]:
        """Return ``evals``, ascending, and ``evecs``, in columns; and the ``matrix``."""
        return _eigen(self.to_matrix(), self.num_evals, include_matrix)

    def get_results(self) -> dict[str, Any]:
        """Return ``evals``, ``evecs`` and ``matrix``."""
        return self.to_eigen(include_matrix=True)


class WithinHeadCovarianceAccumulator(_Accumulator):
    """The covariance of the weights of each attention head.

    Parameters
    ----------
    num_heads, num_weights_per_head : int
        H and d.
    accessors : list of callable
        One for each layer: returns the weights of its heads.
    device, num_evals
        As in `CovarianceAccumulator`.
    """

    def __init__(
        self,
        num_heads: int,
        num_weights_per_head: int,
        accessors: Sequence[AttentionHeadWeightsAccessor],
        device: torch.device | str = "cpu",
        num_evals: int = 3,
    ) -> None:
        super().__init__(device, num_evals)
        self.num_layers, self.num_heads = len(accessors), num_heads
        self.num_weights_per_head, self.accessors = num_weights_per_head, accessors
        shape = self.num_layers, num_heads, num_weights_per_head
        self.first_moment = torch.zeros(shape, device=device)
        self.second_moment = torch.zeros(*shape, num_weights_per_head, device=device)

    @property
    def num_weights_per_layer(self) -> int:
        """Weights of all heads of a layer."""
        return self.num_heads * self.num_weights_per_head

    @property
    def num_weights(self) -> int:
        """Weights of all heads."""
        return self.num_layers * self.num_weights_per_layer

    def _add(self, model: nn.Module) -> None:
        for layer, accessor in enumerate(self.accessors):
            for head, weights in enumerate(map(torch.flatten, accessor(model))):
                self.first_moment[layer, head] += weights
                self.second_moment[layer, head].addr_(weights, weights)

    def _moments(self) -> list[Tensor]:
        return [self.first_moment, self.second_moment]

    def to_matrix(self) -> Tensor:
        """Return the covariances, [layer, head, d, d]."""
        first = self.first_moment
        return self.second_moment - torch.einsum("lhi,lhj->lhij", first, first)

    def to_eigen(self, include_matrix: bool = False) -> dict[str, Any]:
        """Return ``evals``, [eigenvalue, layer, head], ascending, and ``evecs``, with a last d."""
        covariance = self.to_matrix().cpu()
        found = torch.linalg.eigh(covariance)
        evals = found.eigenvalues[..., -self.num_evals :].movedim(-1, 0)
        evecs = found.eigenvectors[..., -self.num_evals :].movedim(-1, 0)
        results: dict[str, Any] = {"evecs": evecs.numpy(), "evals": evals.numpy()}
        return {**results, "matrix": covariance} if include_matrix else results

    def get_results(self) -> dict[str, Any]:
        """Return ``evals``, ``evecs`` and ``matrix``."""
        return self.to_eigen(include_matrix=True)


class BetweenLayerCovarianceAccumulator(_Accumulator):
    """The covariance between the weights of pairs of layers.

    Parameters
    ----------
    model : nn.Module
        For the sizes of its layers.
    pairs : dict of str to (str, str)
        Names of pairs, and of their two layers.
    device, num_evals
        As in `CovarianceAccumulator`; eigenvalues are those of pairs of layers of one size.
    **accessors : callable
        By the names of layers: return the weights of one.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: dict[str, tuple[str, str]],
        device: torch.device | str = "cpu",
        num_evals: int = 3,
        **accessors: LayerWeightsAccessor,
    ) -> None:
        super().__init__(device, num_evals)
        self.num_layers, self.accessors, self.pairs = len(accessors), accessors, pairs
        self.num_weights_per_layer = {
            name: accessor(model).numel() for name, accessor in accessors.items()
        }
        sizes = self.num_weights_per_layer
        self.first_moments = {
            name: torch.zeros(size, device=device) for name, size in sizes.items()
        }
        self.second_moments = {
            name: torch.zeros(sizes[a], sizes[b], device=device) for name, (a, b) in pairs.items()
        }

    @property
    def num_weights(self) -> int:
        """Weights of all layers."""
        return sum(self.num_weights_per_layer.values())

    def _add(self, model: nn.Module) -> None:
        weights = {name: get(model).flatten() for name, get in self.accessors.items()}
        for name, w in weights.items():
            self.first_moments[name] += w
        for name, (a, b) in self.pairs.items():
            self.second_moments[name].addr_(weights[a], weights[b])

    def _moments(self) -> list[Tensor]:
        return [*self.first_moments.values(), *self.second_moments.values()]

    def to_matrices(self) -> dict[str, Tensor]:
        """Return the covariance of each pair."""
        first = self.first_moments
        return {
            name: self.second_moments[name] - torch.outer(first[a], first[b])
            for name, (a, b) in self.pairs.items()
        }

    def to_eigens(self, include_matrix: bool = False) -> dict[str, Any]:
        """Return ``evals``, descending, and ``evecs``, in columns, of each pair."""
        found = {}
        for name, matrix in self.to_matrices().items():
            eigen = _eigen(matrix, self.num_evals, include_matrix)
            eigen.update(evals=eigen["evals"][::-1], evecs=eigen["evecs"][:, ::-1])
            found[name] = eigen
        return found

    def get_results(self) -> dict[str, Any]:
        """Return ``evals``, ``evecs`` and ``matrix`` of each pair."""
        return self.to_eigens(include_matrix=True)


def _eigen(covariance: Tensor, num_evals: int, include_matrix: bool) -> dict[str, Any]:
    """Return the largest eigenvalues, ascending, and their vectors, in columns."""
    covariance = covariance.cpu()
    evals, evecs = torch.linalg.eigh(covariance)
    found: dict[str, Any] = {
        "evals": evals[-num_evals:].numpy(),
        "evecs": evecs[:, -num_evals:].numpy(),
    }
    return {**found, "matrix": covariance.numpy()} if include_matrix else found
