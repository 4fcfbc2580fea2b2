"""Steps of SGLD as proposals: where one leads from and to, and the ratio of a Metropolis test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastllc.reference.precision import read
from fastllc.samplers.acceptance import Energy, Point, log_acceptance
from fastllc.samplers.state import LOW, spread_masks

__all__ = ["Moving", "check_proposals", "log_ratio", "moving", "point"]

# Group, index in it, parameter.
Moving: TypeAlias = "list[tuple[dict[str, Any], int, Tensor]]"


def check_proposals(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise unless steps with these settings are Gaussian proposals of one energy.

    Examples
    --------
    >>> check_proposals([{"nbeta": 1.0}, {"nbeta": 2.0}])
    Traceback (most recent call last):
    ValueError: nbeta must be the same in all groups, got 1.0 and 2.0
    """
    nbeta = float(groups[0]["nbeta"])
    for group in groups:
        if float(group["nbeta"]) != nbeta:
            raise ValueError(
                f"nbeta must be the same in all groups, got {nbeta} and {group['nbeta']}"
            )
    for group in groups:
        if not float(group["noise_level"]) > 0:
            raise ValueError(f"noise_level must be > 0, got {group['noise_level']}")
        if group["bounding_box_size"] is not None:
            raise ValueError(f"bounding_box_size must be None, got {group['bounding_box_size']}")
        if group["rounding"] != "exact" and any(p.dtype in LOW for p in group["params"]):
            raise ValueError(f"rounding must be 'exact', got {group['rounding']!r}")


def moving(groups: Sequence[dict[str, Any]]) -> Moving:
    """Return the parameters that the next step moves: those that have a gradient.

    Examples
    --------
    >>> still = torch.ones(2, requires_grad=True)
    >>> moving([{"params": [still]}])
    []
    """
    return [
        (group, at, p)
        for group in groups
        for at, p in enumerate(group["params"])
        if p.grad is not None
    ]


@torch.no_grad()
def point(state: Mapping[Tensor, dict[str, Any]], chosen: Moving, loss: Any) -> Point:
    """Return where a chain is, one of K = 1.

    Parameters
    ----------
    state : mapping
        That of the sampler.
    chosen : Moving
        What `moving` returned.
    loss : number or Tensor of one element
        What the closure returned.

    Raises
    ------
    TypeError
        If the closure returned no number.
    RuntimeError
        If the closure has left no gradient.

    Examples
    --------
    >>> w = torch.ones(2, requires_grad=True)
    >>> w.grad = torch.zeros(2)
    >>> point({}, moving([{"params": [w]}]), 0.5).weights
    [tensor([[1., 1.]])]
    """
    try:
        number = float(loss)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"closure must return the loss, a number, got {loss!r}") from None
    weights, grads = [], []
    for group, at, p in chosen:
        if p.grad is None:
            raise RuntimeError(
                f"closure left no gradient for params[{group['first_param'] + at}] after the step"
            )
        residual = state.get(p, {}).get("residual")
        weights.append(read(p.detach(), residual)[None])
        grads.append(p.grad[None])
    device = chosen[0][2].device if chosen else None
    return Point(torch.tensor([number], dtype=torch.float64, device=device), weights, grads)


@torch.no_grad()
def log_ratio(
    state: Mapping[Tensor, dict[str, Any]], chosen: Moving, before: Point, after: Point
) -> Tensor:
    """Return `log_acceptance` with the settings of the groups, [1].

    Examples
    --------
    >>> log_ratio({}, [], here := point({}, [], 0.5), here)
    tensor([0.], dtype=torch.float64)
    """

    def number(group: Mapping[str, Any], name: str) -> Tensor:
        return torch.tensor([float(group[name])], dtype=torch.float64, device=before.losses.device)

    groups = {id(group): group for group, _, _ in chosen}
    masks = {key: spread_masks(group) for key, group in groups.items()}  # set by now, maybe
    energies = [
        Energy(
            number(group, "lr"),
            number(group, "localization"),
            number(group, "weight_decay"),
            number(group, "noise_level"),
            state[p]["w0"][None] if float(group["localization"]) > 0 else None,
            None if (mask := masks[id(group)]) is None else mask[at],
        )
        for group, at, p in chosen
    ]
    nbeta = number(chosen[0][0], "nbeta") if chosen else torch.ones_like(before.losses)
    return log_acceptance(before, after, nbeta, energies)
