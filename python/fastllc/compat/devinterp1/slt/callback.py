"""Callbacks: what is called with every draw of every chain."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = [
    "SamplerCallback",
    "all_at_once",
    "any_order",
    "by_chain",
    "of_losses",
    "validate_callbacks",
]

Call = TypeVar("Call", bound=Callable[..., Any])


class SamplerCallback:
    """Base of callbacks.

    It is called with keyword arguments at every draw, after its step: ``chain``, ``draw``,
    ``loss`` (before the step), ``model``, ``optimizer``, ``data``, ``results`` and whatever else
    the loop of devinterp 1 knows. `finalize` is called at the end.

    Parameters
    ----------
    device : torch.device or str
        Where it keeps its tensors.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device

    def share_memory_(self) -> SamplerCallback:
        """Let other processes write to all tensors."""
        if self.device == "mps":
            warnings.warn("Cannot share memory with MPS device.", stacklevel=2)
            return self
        for name, value in vars(self).items():
            if not name.startswith("_") and hasattr(value, "share_memory_"):
                value.share_memory_()
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Take in a draw."""
        raise NotImplementedError

    def lose(self, chain: int, draw: int) -> None:
        """Forget a chain from this draw on, whose loss is not a number.

        devinterp 1 has no such method, and loses the whole run.
        """

    def finalize(self, *args: Any, **kwargs: Any) -> None:
        """Conclude, once all chains have run."""

    def get_results(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what was found, by name: nothing."""
        return {}


def of_losses(call: Call) -> Call:
    """Mark a callback's `__call__` that uses chain, draw and loss alone.

    It may be called after all chains have run, chain after chain: chains can be stacked.

    Examples
    --------
    >>> class Last(SamplerCallback):
    ...     @of_losses
    ...     def __call__(self, chain, draw, loss, **kwargs):
    ...         self.last = loss
    >>> Last.__call__.sees
    'losses'
    """
    return _mark(call, "losses")


def any_order(call: Call) -> Call:
    """Mark a callback's `__call__` that uses ``model`` and ``optimizer`` of chains in any order.

    Chains can then be stacked, and draws come with all chains in turn. The model and the optimizer
    are views of one chain: they are not to be changed.

    Examples
    --------
    >>> class Norms(SamplerCallback):
    ...     @any_order
    ...     def __call__(self, chain, draw, model, **kwargs):
    ...         pass
    >>> Norms.__call__.sees
    'views'
    """
    return _mark(call, "views")


def all_at_once(call: Call) -> Call:
    """Mark a callback's `__call__` that takes one chain, or all together where they are stacked.

    Then ``chain`` is the list of their numbers, and ``loss``, parameters, gradients and the
    optimizer's ``dws`` and ``localization_loss`` have the chains as a first dimension; see
    `by_chain`. It tells neither noise nor norms. What is seen of a chain from where it was lost has
    no meaning: `SamplerCallback.lose` comes afterwards.

    Examples
    --------
    >>> class Norms(SamplerCallback):
    ...     @all_at_once
    ...     def __call__(self, chain, draw, model, **kwargs):
    ...         pass
    >>> Norms.__call__.sees
    'stacks'
    """
    return _mark(call, "stacks")


def _mark(call: Call, sees: str) -> Call:
    call.sees = sees  # type: ignore[attr-defined]
    return call


def by_chain(chain: int | list[int], tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return what a callback that is marked `all_at_once` sees of tensors, [chain, numel] each.

    Examples
    --------
    >>> by_chain(3, [torch.ones(2, 2)])
    [tensor([[1., 1., 1., 1.]])]
    >>> by_chain([3, 4], [torch.ones(2, 2)])
    [tensor([[1., 1.],
            [1., 1.]])]
    """
    chains = len(chain) if isinstance(chain, list) else 1
    return [tensor.detach().reshape(chains, -1) for tensor in tensors]


def validate_callbacks(callbacks: Sequence[Callable[..., Any]]) -> bool:
    """Check that callbacks come after those that they are derived from.

    Raises
    ------
    ValueError
        If one does not, or its base is not there.
    """
    for i, callback in enumerate(callbacks):
        if not (isinstance(callback, SamplerCallback) and hasattr(callback, "base_callback")):
            continue
        base = callback.base_callback
        places = [j for j, other in enumerate(callbacks) if other is base]
        if not places:
            raise ValueError(
                f"Base callback {base} of derivative callback {callback} was not passed."
            )
        if places[-1] > i:
            raise ValueError(
                f"Derivative callback {callback} must be called after base callback {base}."
            )
    return True
