"""The weights that chains start from: those of the model, or those of several checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastllc.memory import check_disjoint, short

__all__ = ["Checkpoints", "Weights", "trainable"]

Weights: TypeAlias = "Mapping[str, Tensor] | nn.Module"


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of `model` that are sampled, by name: those that require a gradient.

    Raises
    ------
    TypeError, ValueError
        If `model` is no module, has no such parameter, or two of them share memory.

    Examples
    --------
    >>> list(trainable(nn.Linear(2, 1)))
    ['weight', 'bias']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not params:
        raise ValueError("model must have a parameter that requires a gradient, got none")
    check_disjoint(params.values())
    return params


class Checkpoints:
    """Sets of weights for one model.

    Parameters
    ----------
    model : nn.Module
        Whose weights they are.
    given : sequence or mapping of (mapping or nn.Module), optional
        State dicts, or modules that have one, in a sequence or by name. None: the model's own.

    Attributes
    ----------
    names : list of str or int
        Of the checkpoints; numbers for those of a sequence.
    asked : bool
        Whether they were given.

    Raises
    ------
    TypeError, ValueError
        If there are none, or one does not fit the model.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> Checkpoints(layer, {"start": layer.state_dict(), "end": layer.state_dict()}).names
    ['start', 'end']
    """

    def __init__(
        self,
        model: nn.Module,
        given: Sequence[Weights] | Mapping[str, Weights] | None = None,
    ) -> None:
        self._params = trainable(model)
        self._buffers = {name for name, _ in model.named_buffers()}
        saved = model.state_dict(keep_vars=True)
        self._others = {name for name, value in saved.items() if not isinstance(value, Tensor)}
        # Buffers that are not saved with the model are the same at every checkpoint.
        own: dict[str, Tensor] = {**dict(model.named_buffers()), **saved}
        own = {name: tensor for name, tensor in own.items() if name not in self._others}
        # A tied weight is listed under each of its names.
        first: dict[int, str] = {}
        for name, tensor in (*self._params.items(), *own.items()):
            first.setdefault(id(tensor), name)
        self._tied = {name: first[id(t)] for name, t in own.items() if first[id(t)] != name}
        self._own = {name: t.detach() for name, t in own.items() if name not in self._tied}
        self.asked = given is not None
        self.names: list[Any] = [0]
        self._weights: list[Mapping[str, Tensor]] = [self._own]
        if given is None:
            return
        if isinstance(given, Mapping):
            self.names = list(given)
            given = list(given.values())
        elif isinstance(given, (list, tuple)):
            self.names = list(range(len(given)))
        else:
            raise TypeError(
                "checkpoints must be a list or a mapping of state dicts or modules, "
                f"got {type(given).__name__}"
            )
        for name in self.names:
            if not isinstance(name, (str, Real)):
                raise TypeError(f"checkpoints must have names or numbers, got {name!r}")
        if not given:
            raise ValueError("checkpoints must hold at least one state dict, got none")
        self._weights = [
            self._checked(f"checkpoints[{name!r}]", weights)
            for name, weights in zip(self.names, given, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._weights)

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        """All tensors of one checkpoint by name, parameters and buffers."""
        return self._weights[index]

    def anchors(self, rows: slice) -> dict[str, Tensor]:
        """Return the trainable weights of some checkpoints, stacked: [checkpoint, *shape].

        One checkpoint alone is not copied.
        """
        chosen = self._weights[rows]
        return {
            name: chosen[0][name].contiguous()[None]
            if len(chosen) == 1
            else torch.stack([weights[name].contiguous() for weights in chosen])
            for name in self._params
        }

    def constants(self, rows: slice) -> tuple[dict[str, Tensor], set[str]]:
        """Return what chains do not move, and which of it is stacked because it differs.

        Buffers are copies: a model in training mode writes to them.
        """
        chosen = self._weights[rows]
        found: dict[str, Tensor] = {}
        stacked: set[str] = set()
        for name, first in chosen[0].items():
            if name in self._params:
                continue
            others = [weights[name] for weights in chosen[1:]]
            if all(torch.equal(first, other) for other in others):
                found[name] = first.clone() if name in self._buffers else first
            else:
                found[name] = torch.stack([first, *others])
                stacked.add(name)
        return found, stacked

    def _checked(self, label: str, weights: Weights) -> Mapping[str, Tensor]:
        if isinstance(weights, nn.Module):
            weights = weights.state_dict()
        if not isinstance(weights, Mapping):
            raise TypeError(
                f"{label} must be a state dict or a module, got {type(weights).__name__}"
            )
        found: dict[str, Tensor] = {}
        unknown = []
        for name, tensor in weights.items():
            same = self._tied.get(name, name)
            if same in self._own:
                found[same] = self._fitting(f"{label}[{name!r}]", tensor, same, found.get(same))
            elif name not in self._others:
                unknown.append(name)
        missing = sorted(set(self._params) - set(found))
        if missing or unknown:
            raise ValueError(
                f"{label} must hold the weights of the model, got one without {missing or 'none'} "
                f"and with {sorted(unknown) or 'none'} that the model does not have"
            )
        return {**self._own, **found}

    def _fitting(self, label: str, tensor: object, name: str, tied: Tensor | None) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{label} must be a tensor, got {type(tensor).__name__}")
        own = self._own[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise ValueError(
                f"{label} must be {short(own.dtype)} of shape {tuple(own.shape)}, "
                f"got {short(tensor.dtype)} of shape {tuple(tensor.shape)}"
            )
        found = tensor.detach().to(own.device)
        if tied is not None and not torch.equal(found, tied):
            raise ValueError(
                f"{label} must equal what it is tied to in the model, got other values"
            )
        return found
