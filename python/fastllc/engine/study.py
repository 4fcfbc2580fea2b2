"""All chains of a run: checkpoints x settings x chains, and the boxes of them that run at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastllc.seeds import chain_key

__all__ = ["Box", "Chain", "Study", "grid"]

_SHARED = 2**64 - 1  # the number of a chain that nobody is: whose minibatches all share


def grid(values: Mapping[str, float | Sequence[float]]) -> list[dict[str, float]]:
    """Return all combinations of settings, the last varying fastest.

    Examples
    --------
    >>> grid({"lr": [0.1, 0.2], "nbeta": 10.0})
    [{'lr': 0.1, 'nbeta': 10.0}, {'lr': 0.2, 'nbeta': 10.0}]
    """
    axes = [v if isinstance(v, (list, tuple)) else [v] for v in values.values()]
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*axes)]


class Box(NamedTuple):
    """Chains that run at once: ranges of checkpoints, settings and chains."""

    checkpoints: slice
    settings: slice
    chains: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many of each."""
        c, s, n = (r.stop - r.start for r in self)
        return c, s, n


class Chain(NamedTuple):
    """One chain of a study, by its coordinates."""

    checkpoint: int
    setting: int
    chain: int


@dataclass(frozen=True)
class Study:
    """Which chains there are, and what their random numbers follow from.

    Attributes
    ----------
    shape : numbers of checkpoints, settings and chains
    seed : in [0, 2**63)
    common_random_numbers : whether all checkpoints have the same noise and minibatches
    shared_batches : whether all chains have the same minibatches

    Examples
    --------
    >>> study = Study((1, 2, 4), seed=0)
    >>> [box.shape for box in study.boxes(4)]
    [(1, 1, 4), (1, 1, 4)]
    """

    shape: tuple[int, int, int]
    seed: int
    common_random_numbers: bool = False
    shared_batches: bool = False

    def chains(self, box: Box) -> list[Chain]:
        """Return the chains of a box, in the order of its axes."""
        ranges = (range(r.start, r.stop) for r in box)
        return [Chain(*point) for point in itertools.product(*ranges)]

    def key(self, at: Chain) -> int:
        """Return the key of a chain's noise."""
        checkpoint = 0 if self.common_random_numbers else at.checkpoint
        return chain_key(self.seed, at.chain, checkpoint, at.setting)

    def data_key(self, at: Chain) -> int:
        """Return the key of a chain's minibatches: no generator of torch can repeat its noise."""
        if self.shared_batches:
            return chain_key(self.seed, _SHARED)
        return chain_key(self.key(at), at.chain)

    def boxes(self, limit: int) -> Iterator[Box]:
        """Cut the study into boxes of at most `limit` chains, whole axes first."""
        c, s, n = self.shape
        chains = min(n, limit)
        settings = min(s, limit // n) if chains == n else 1
        checkpoints = min(c, limit // (n * s)) if chains == n and settings == s else 1
        cuts = [
            _cut(size, step)
            for size, step in zip(self.shape, (checkpoints, settings, chains), strict=True)
        ]
        for ranges in itertools.product(*cuts):
            yield Box(*ranges)


def _cut(size: int, step: int) -> list[slice]:
    return [slice(at, min(at + step, size)) for at in range(0, size, step)]
