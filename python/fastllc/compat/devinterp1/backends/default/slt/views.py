"""Stacked chains as callbacks look at them: each a model and its sampler, sharing their memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastllc.compat.devinterp1.optim.telling import Telling
from fastllc.engine.checkpoints import trainable
from fastllc.engine.loop import Schedule
from fastllc.engine.study import Chain
from fastllc.engine.walkers import Walkers

__all__ = ["Views"]


class Views:
    """Calls callbacks at each draw with all chains in turn; a `Spectator` of the engine.

    Parameters
    ----------
    callbacks : sequence of callable
        Such that take chains in any order.
    model : nn.Module
        The model that is sampled.
    make : callable
        Makes the sampler of a model, with all that callbacks ask it to tell.
    schedule : Schedule
        Which steps are draws.
    """

    def __init__(
        self,
        callbacks: Sequence[Callable[..., Any]],
        model: nn.Module,
        make: Callable[[nn.Module], Telling],
        schedule: Schedule,
    ) -> None:
        self._callbacks, self._model, self._make = callbacks, model, make
        self._schedule = schedule

    def start(self, chains: Sequence[Chain], keys: Sequence[int], walkers: Walkers) -> None:
        """Make a view of each chain; what samplers keep of the start is kept once."""
        self._chains, self._walkers = chains, walkers
        self._views: list[tuple[nn.Module, list[nn.Parameter], Telling]] = []
        for key in keys:
            model = deepcopy(self._model).train()
            sampler = self._make(model)
            for group in sampler.param_groups:
                group["seed"] = key
            self._views.append((model, list(trainable(model).values()), sampler))
        first = self._views[0][2]
        for _, _, sampler in self._views[1:]:
            for own, shared in zip(sampler.state.values(), first.state.values(), strict=True):
                own.update(shared)
        for i, (weights, _) in enumerate(walkers.tensors()):
            for k, (_, params, _) in enumerate(self._views):
                params[i].data = weights[k]

    def before(self, step: int, losses: Tensor) -> None:
        """Let samplers take down what the step is about to do."""
        grads = [grad for _, grad in self._walkers.tensors()]
        for k, (_, params, sampler) in enumerate(self._views):
            for param, grad in zip(params, grads, strict=True):
                param.grad = None if grad is None else grad[k]
            if sampler.told:
                sampler.before()

    @torch.no_grad()
    def after(self, step: int, losses: Tensor, active: NDArray[Any]) -> None:
        """Call the callbacks."""
        draw = self._schedule.draw(step)
        for k, (model, _, sampler) in enumerate(self._views):
            if not active[k]:
                continue
            for group in sampler.param_groups:
                group["step"] = step + 1
            if sampler.told:
                sampler.after()
            for callback in self._callbacks:
                callback(
                    chain=self._chains[k].chain,
                    draw=draw,
                    loss=losses[k],
                    model=model,
                    optimizer=sampler,
                )
