"""The loss a chain walks on: a model, and how to judge it on one minibatch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fastllc.engine.minibatch import Batch, count_samples, unpack

__all__ = ["REFUSALS", "Evaluate", "LossFn", "Objective"]

# What vmap, and code that does not expect it, raise.
REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError)

LossFn: TypeAlias = Callable[[Any, Any], Tensor]
Evaluate: TypeAlias = Callable[[nn.Module, Any], Tensor]


class Objective(nn.Module):
    """Loss of `model` on a minibatch; a module, so that it can be called with other weights.

    Parameters
    ----------
    model : nn.Module
        Called as ``model(inputs)``.
    loss_fn : callable, optional
        ``loss_fn(outputs, targets)``; of outputs that hold ``logits``, those.
    evaluate : callable, optional
        ``evaluate(model, batch)``, for batches that are no (inputs, targets) pair.
        Either returns the batch mean as a scalar, or one loss per sample of shape [batch].
    autocast : torch.dtype, optional
        The lower precision in which the loss is computed where torch thinks fit.

    Raises
    ------
    TypeError
        If not exactly one of `loss_fn` and `evaluate` is given, or it cannot be called.

    Examples
    --------
    >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss())
    >>> objective((torch.zeros(3, 2), torch.zeros(3, 1))).shape
    torch.Size([])
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn | None = None,
        evaluate: Evaluate | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if (loss_fn is None) == (evaluate is None):
            got = "neither" if loss_fn is None else "both"
            raise TypeError(f"exactly one of loss_fn and evaluate must be given, got {got}")
        self._name = "evaluate" if loss_fn is None else "loss_fn"
        function = evaluate if loss_fn is None else loss_fn
        if not callable(function):
            raise TypeError(f"{self._name} must be callable, got {type(function).__name__}")
        self.model = model
        self._function = function
        self._pairs = loss_fn is not None
        self.autocast = autocast

    def losses(self, batch: Batch) -> Tensor:
        """Loss as the caller's function returns it: a scalar, or one per sample."""
        if self.autocast is None:
            return self._call(batch)
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, self.autocast):
            return self._call(batch)

    def _call(self, batch: Batch) -> Tensor:
        if not self._pairs:
            return self._function(self.model, batch)
        inputs, targets = batch
        return self._function(_logits(self.model(inputs)), targets)

    def forward(self, batch: Batch, *, per_sample: bool = False) -> Tensor:
        """Batch mean of the loss, a scalar; or one loss per sample, [batch].

        Those are what the caller's function returns, or what it makes of batches of one sample.
        """
        loss = self.losses(batch)
        if not per_sample:
            return loss.mean() if loss.ndim else loss
        if loss.ndim:
            return loss

        tensors, repack = unpack(batch)

        def single(*sample: Tensor) -> Tensor:
            return self.losses(repack(tensor[None] for tensor in sample))

        found: Tensor = torch.func.vmap(single)(*tensors)
        return found

    def each(self, batch: Batch) -> Tensor:
        """Loss of each sample, [batch]: one after another where vmap refuses the model."""
        try:
            found: Tensor = self(batch, per_sample=True)
        except REFUSALS:
            tensors, repack = unpack(batch)
            samples = zip(*(torch.split(tensor, 1) for tensor in tensors), strict=True)
            found = torch.stack([self(repack(sample)) for sample in samples])
        return found

    def check(self, batch: Batch, params: Sequence[Tensor]) -> None:
        """Refuse a loss that cannot be sampled.

        Raises
        ------
        TypeError, ValueError
            If the loss is no tensor, has the wrong shape, is not finite, or depends on none of
            `params`.
        """
        if self._pairs and not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise ValueError(
                "data must yield (inputs, targets) pairs for loss_fn, "
                f"got {_describe(batch)}; give evaluate(model, batch) instead"
            )
        loss = self.losses(batch)
        if not isinstance(loss, Tensor):
            raise TypeError(f"{self._name} must return a torch.Tensor, got {type(loss).__name__}")
        samples = count_samples(batch)
        if loss.ndim > 1 or (loss.ndim == 1 and samples not in (None, loss.shape[0])):
            size = "batch" if samples is None else samples
            raise ValueError(
                f"{self._name} must return the batch mean as a scalar or one loss per sample "
                f"of shape [{size}], got shape {list(loss.shape)}"
            )
        value = loss.detach().double().mean().item()
        if not math.isfinite(value):
            raise ValueError(
                f"{self._name} must be finite at the model's own weights, got {value} "
                "on the first batch"
            )
        grads: Sequence[Tensor | None] = ()
        if loss.requires_grad:
            ones = torch.ones_like(loss)
            grads = torch.autograd.grad(loss, params, ones, allow_unused=True)
        if all(grad is None for grad in grads):
            raise ValueError(
                f"{self._name} must depend on the trainable parameters, "
                f"got a value that no gradient connects to any of the {len(params)}"
            )

    @torch.no_grad()
    def average(self, batches: Iterable[Batch]) -> float:
        """Mean loss per sample over `batches`, each weighted by its size.

        Raises
        ------
        ValueError
            If there are no samples, their number cannot be told, or the mean is not finite.
        """
        total, samples = 0.0, 0
        for batch in batches:
            loss = self.losses(batch)
            count = loss.shape[0] if loss.ndim else count_samples(batch)
            if count is None:
                raise ValueError(
                    "data must yield batches that hold a tensor, to count their samples by, "
                    f"got {_describe(batch)}; let evaluate return one loss per sample"
                )
            total += loss.double().mean().item() * count
            samples += count
        if samples == 0:
            raise ValueError("data must hold at least one sample, got 0")
        mean = total / samples
        if not math.isfinite(mean):
            raise ValueError(
                f"{self._name} must be finite at the model's own weights, got {mean} "
                "over the full data"
            )
        return mean


def _logits(outputs: Any) -> Any:
    """Return the logits of a structured output, as language models return them."""
    if isinstance(outputs, Mapping):
        return outputs.get("logits", outputs)
    return outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", outputs)


def _describe(batch: Batch) -> str:
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"a {type(batch).__name__}{size}"
