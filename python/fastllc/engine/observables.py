"""Losses of samples of interest, at the weights of each draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastllc import checks
from fastllc.engine.data import Data, open_data
from fastllc.engine.minibatch import Batch, count_samples, map_tensors
from fastllc.engine.rng import seeded_rng

__all__ = ["Observable", "Observed", "open_observables"]


@dataclass(frozen=True)
class Observable:
    """Samples whose losses are kept at each draw.

    Attributes
    ----------
    data : (Tensor, Tensor), Dataset or DataLoader
        The samples, read once and in order.
    num_samples : int, optional
        How many of them, from the first; None: all.
    every : int
        At every how many draws.

    Examples
    --------
    >>> Observable((torch.zeros(5, 2), torch.zeros(5)), num_samples=3).every
    1
    """

    data: Data
    num_samples: int | None = None
    every: int = 1


class Observed:
    """An observable, its samples at hand."""

    def __init__(self, batches: list[Batch], num_samples: int, every: int) -> None:
        self.batches = batches
        self.num_samples = num_samples
        self.every = every

    def losses(self, per_sample: Callable[[Batch], Tensor]) -> Tensor:
        """Return the loss of every sample, [K, sample], from a function of a batch of them."""
        # A loss that differentiates by itself may return what has a gradient.
        return torch.cat([per_sample(batch).detach().float() for batch in self.batches], dim=-1)


def open_observables(
    given: Mapping[str, Observable | Data] | None, device: torch.device
) -> dict[str, Observed]:
    """Read the samples of all observables.

    Raises
    ------
    TypeError, ValueError
        If an observable or its name is unfit.

    Examples
    --------
    >>> data = torch.zeros(5, 2), torch.zeros(5)
    >>> open_observables({"test": data}, torch.device("cpu"))["test"].num_samples
    5
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"observables must be data by name, got {type(given).__name__}")
    found = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"observables must have names that are strings, got {name!r}")
        if not name or "/" in name:
            raise ValueError(f"observables must have names without '/', got {name!r}")
        label = f"observables[{name!r}]"
        observable = value if isinstance(value, Observable) else Observable(value)
        checks.integer(f"{label}.every", observable.every, 1)
        if observable.num_samples is not None:
            checks.integer(f"{label}.num_samples", observable.num_samples, 1)
        try:
            source = open_data(observable.data, None, device)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{label}: {error}") from None
        # One order in all runs, whatever their seed.
        with seeded_rng(0, device, source.generators):
            found[name] = _read(label, source.full_pass(), observable)
    return found


def _read(label: str, full_pass: Iterable[Batch], observable: Observable) -> Observed:
    batches: list[Batch] = []
    total = 0
    wanted = observable.num_samples
    for batch in full_pass:
        count = count_samples(batch)
        if count is None:
            raise ValueError(f"{label} must have batches that hold a tensor")
        if wanted is not None and total + count > wanted:
            batch, count = _first(batch, wanted - total), wanted - total
        batches.append(batch)
        total += count
        if total == wanted:
            break
    if total == 0:
        raise ValueError(f"{label} must hold at least one sample, got 0")
    if wanted is not None and total < wanted:
        raise ValueError(f"{label}.num_samples must be <= {total}, its samples, got {wanted}")
    return Observed(batches, total, observable.every)


def _first(batch: Batch, count: int) -> Any:
    return map_tensors(lambda tensor: tensor[:count], batch)
