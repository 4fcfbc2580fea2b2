"""Stacked chains as callbacks look at them: models and samplers that share their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastllc.compat.devinterp1.optim.telling import Telling
from fastllc.engine.checkpoints import trainable
from fastllc.engine.loop import Schedule
from fastllc.engine.study import Chain
from fastllc.engine.walkers import Walkers

__all__ = ["Views"]


class _View(NamedTuple):
    """A chain, or the stack of all: a model, its parameters, their sampler, and who is called."""

    chain: int | list[int]
    model: nn.Module
    params: list[nn.Parameter]
    sampler: Telling
    callbacks: Sequence[Callable[..., Any]]


class Views:
    """Calls callbacks at each draw, of all chains at once or in turn; a `Spectator` of the engine.

    Parameters
    ----------
    callbacks : sequence of callable
        Those that take chains in any order.
    at_once : sequence of callable
        Those that take stacks of them.
    model : nn.Module
        The model that is sampled.
    make : callable
        Makes the sampler of a model, that tells what callbacks ask of it.
    schedule : Schedule
        Which steps are draws.
    """

    def __init__(
        self,
        callbacks: Sequence[Callable[..., Any]],
        at_once: Sequence[Callable[..., Any]],
        model: nn.Module,
        make: Callable[[nn.Module, Sequence[Callable[..., Any]]], Telling],
        schedule: Schedule,
    ) -> None:
        self._callbacks, self._at_once = callbacks, at_once
        self._model, self._make = model, make
        self._schedule = schedule

    def start(self, chains: Sequence[Chain], keys: Sequence[int], walkers: Walkers) -> None:
        """Make the views; what samplers keep of the start is kept once."""
        self._walkers = walkers
        self._views: list[_View] = []
        stacks = [weights for weights, _ in walkers.tensors()]
        if self._at_once:
            view = self._view([chain.chain for chain in chains], stacks, self._at_once)
            view.sampler.stacked = True
            for param in view.model.parameters():
                if not param.requires_grad:  # which all chains have
                    param.data = param.data.expand(len(chains), *param.shape)
        for k, (chain, key) in enumerate(zip(chains, keys, strict=True)):
            if self._callbacks:
                view = self._view(chain.chain, [stack[k] for stack in stacks], self._callbacks)
                for group in view.sampler.param_groups:
                    group["seed"] = key

    def _view(
        self,
        chain: int | list[int],
        weights: Sequence[Tensor],
        callbacks: Sequence[Callable[..., Any]],
    ) -> _View:
        model = deepcopy(self._model).train()
        sampler = self._make(model, callbacks)
        for view in self._views[:1]:
            for own, shared in zip(
                sampler.state.values(), view.sampler.state.values(), strict=True
            ):
                own.update(shared)
        params = list(trainable(model).values())
        for param, own_weights in zip(params, weights, strict=True):
            param.data = own_weights
        self._views.append(_View(chain, model, params, sampler, callbacks))
        return self._views[-1]

    def before(self, step: int, losses: Tensor) -> None:
        """Let samplers take down what the step is about to do."""
        grads = [grad for _, grad in self._walkers.tensors()]
        for k, view in self._seen():
            for param, grad in zip(view.params, grads, strict=True):
                param.grad = grad if grad is None else grad[k]
            if view.sampler.told:
                view.sampler.before()

    @torch.no_grad()
    def after(self, step: int, losses: Tensor, active: NDArray[Any]) -> None:
        """Call the callbacks."""
        draw = self._schedule.draw(step)
        for k, view in self._seen():
            if not np.any(active[k]):
                continue
            for group in view.sampler.param_groups:
                group["step"] = step + 1
            if view.sampler.told and not view.sampler.stacked:  # noise is of one chain
                view.sampler.after()
            for callback in view.callbacks:
                callback(
                    chain=view.chain,
                    draw=draw,
                    loss=losses[k],
                    model=view.model,
                    optimizer=view.sampler,
                )

    def _seen(self) -> Iterator[tuple[int | slice, _View]]:
        """Yield each view, and where its chains are among all."""
        chains = 0
        for view in self._views:
            if isinstance(view.chain, list):
                yield slice(None), view
            else:
                yield chains, view
                chains += 1
