"""Stacked chains as callbacks look at them: models and samplers that share their memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """A chain, or the stack of all: a model, its parameters, their sampler, and who is called.

    `at` is where it is among the chains, `chain` its number, or the list of them.
    """

    at: int | slice
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
        if self._at_once:
            stack = self._add(slice(None), [chain.chain for chain in chains], self._at_once)
            stack.sampler.stacked = True
            for param in stack.model.parameters():
                if not param.requires_grad:  # which all chains have
                    param.data = param.data.expand(len(chains), *param.shape)
        for k, chain in enumerate(chains if self._callbacks else ()):
            view = self._add(k, chain.chain, self._callbacks)
            for group in view.sampler.param_groups:
                group["seed"] = keys[k]

    def _add(
        self, at: int | slice, chain: int | list[int], callbacks: Sequence[Callable[..., Any]]
    ) -> _View:
        model = deepcopy(self._model).train()
        sampler, params = self._make(model, callbacks), list(trainable(model).values())
        if self._views:
            shared = self._views[0].sampler.state.values()
            for own, first in zip(sampler.state.values(), shared, strict=True):
                own.update(first)
        for param, (weights, _) in zip(params, self._walkers.tensors(), strict=True):
            param.data = weights[at]
        view = _View(at, chain, model, params, sampler, callbacks)
        self._views.append(view)
        return view

    def before(self, step: int, losses: Tensor) -> None:
        """Let samplers take down what the step is about to do."""
        grads = [grad for _, grad in self._walkers.tensors()]
        for view in self._views:
            for param, grad in zip(view.params, grads, strict=True):
                param.grad = None if grad is None else grad[view.at]
            if view.sampler.told:
                view.sampler.before()

    @torch.no_grad()
    def after(self, step: int, losses: Tensor, active: NDArray[Any]) -> None:
        """Call the callbacks."""
        draw = self._schedule.draw(step)
        for view in self._views:
            if not np.any(active[view.at]):
                continue
            for group in view.sampler.param_groups:
                group["step"] = step + 1
            if view.sampler.told and not view.sampler.stacked:  # noise is of one chain
                view.sampler.after()
            for callback in view.callbacks:
                callback(
                    chain=view.chain,
                    draw=draw,
                    loss=losses[view.at],
                    model=view.model,
                    optimizer=view.sampler,
                )
