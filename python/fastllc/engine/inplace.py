"""One chain in place on the model: for models that are large, or that vmap refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastllc.engine.minibatch import Batch, Minibatch
from fastllc.engine.objective import Objective
from fastllc.engine.products import ByOneDNN
from fastllc.engine.snapshot import is_expanded
from fastllc.mala import mala_acceptance
from fastllc.samplers.metrics import Metrics
from fastllc.samplers.metropolis import MALA
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.sgld import SGLD
from fastllc.seeds import chain_key

__all__ = ["InPlaceWalkers"]


class InPlaceWalkers:
    """A single chain on the weights of the model itself, which somebody else lends and puts back.

    What the model draws at random itself, as dropout does, follows from (key, step).

    Parameters
    ----------
    objective : Objective
        The loss, of the model that is sampled.
    params : mapping of str to Parameter
        What `optimizer` moves.
    optimizer : torch.optim.Optimizer
        The sampler.
    anchors : mapping of str to Tensor
        Where the chain starts, by name; a sampler of ours takes them as its anchors, so that these
        are kept once.
    key : int
        Of the model's own randomness.
    products : ByOneDNN, optional
        Entered for each gradient.
    """

    def __init__(
        self,
        objective: Objective,
        params: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        anchors: Mapping[str, Tensor],
        key: int,
        products: ByOneDNN | None = None,
    ) -> None:
        self._objective = objective
        self._params = list(params.values())
        self._anchors = [anchors[name] for name in params]
        self._optimizer = optimizer
        self._key = key
        self._products = products or nullcontext()
        self.device = self._params[0].device
        self.corrected = isinstance(optimizer, MALA)
        if isinstance(optimizer, Sampler):
            for name, param in params.items():
                if "w0" in optimizer.state.get(param, ()):
                    optimizer.state[param]["w0"] = anchors[name].contiguous()

    def gradient(self, minibatches: Sequence[Minibatch], step: int) -> Tensor:
        """Compute the gradient; return the loss, [1]."""
        _seed(self.device, chain_key(self._key, step))
        for p in self._params:
            p.grad = None
        found = []
        with self._products:
            for minibatch in minibatches:
                loss = self._objective(minibatch.batch)
                torch.autograd.backward(loss / len(minibatches), inputs=self._params)
                found.append(loss.detach())
        return torch.stack(found).mean(0, keepdim=True)

    def move(self, step: int, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take one step, if the chain is active."""
        if not active[0]:
            return ~active
        self._optimizer.step()
        return self._finite()

    def alive(self) -> Tensor | None:
        """Return whether the device has not stopped the chain, [1]; None if it stops none."""
        chain = self._optimizer.chain if isinstance(self._optimizer, Sampler) else None
        return None if chain is None else chain.column("active") > 0

    def judge(
        self, minibatches: Sequence[Minibatch], step: int, active: NDArray[np.bool_], losses: Tensor
    ) -> tuple[NDArray[np.bool_], Tensor]:
        """Take one step; tell how probably MALA accepts it, [1]."""
        if not active[0]:
            return ~active, torch.full_like(losses, torch.nan)
        known = [losses[0]]  # with its gradient, which is there already

        def closure() -> Tensor:
            return known.pop() if known else self.gradient(minibatches, step)[0]

        if isinstance(self._optimizer, MALA):
            self._optimizer.step(closure)
            return np.ones(1, np.bool_), torch.tensor([self._optimizer.acceptance_probability])
        assert isinstance(self._optimizer, SGLD)
        _, probability = mala_acceptance(self._optimizer, closure)
        return self._finite(), torch.tensor([probability])

    def _finite(self) -> NDArray[np.bool_]:
        if isinstance(self._optimizer, Sampler) and self._optimizer.chain is not None:
            return np.ones(1, np.bool_)  # `alive` tells, without waiting
        return np.array([getattr(self._optimizer, "nonfinite_step", None) is None])

    @torch.no_grad()
    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss of each sample, [1, batch]."""
        return self._objective.each(batch)[None]

    def displacements(self) -> Iterator[Tensor]:
        """Yield w - w0 of each parameter, [1, numel]."""
        for p, w0 in zip(self._params, self._anchors, strict=True):
            yield (p.detach() - w0).reshape(1, -1)

    def tensors(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield each parameter and its gradient, [1, *shape]."""
        for p in self._params:
            yield p.detach()[None], None if p.grad is None else p.grad[None]

    def metrics(self) -> Metrics:
        """Return the `Metrics` of the last step, [1] each."""
        assert isinstance(self._optimizer, Sampler)
        return Metrics._make(value[None] for value in self._optimizer.get_metrics())

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and the state of the sampler."""
        return {"tensors": self._moving(), "sampler": self._optimizer.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for tensor, kept in zip(self._moving(), saved["tensors"], strict=True):
            tensor.copy_(kept)
        self._optimizer.load_state_dict(saved["sampler"])

    def _moving(self) -> list[Tensor]:
        """Return the weights and the buffers, those too that the model does not save."""
        tensors = (*self._params, *self._objective.model.buffers())
        return [tensor.detach() for tensor in tensors if not is_expanded(tensor)]


def _seed(device: torch.device, seed: int) -> None:
    # torch.manual_seed would also seed every other device, which nobody puts back.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
