"""What models do most, for stacked tensors, without the way through vmap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["FEW", "Shortcuts"]

# Up to so many features the product of the transposed matrices is 2 to 9 times as fast: MKL makes
# its blocks along the columns.
FEW = 12


class Shortcuts(TorchFunctionMode):
    """Does linear layers, products of matrices, embeddings and usual losses of a stack at once.

    ``vmap`` takes each of them apart: a linear layer costs it 40 us beside the product, a mean
    squared error 60 us, a cross-entropy five passes more. A product ``x @ W.T`` is
    ``(W @ x.T).T`` here where that is faster: with few features; and where weights outnumber
    activations, since their gradient then comes as it is stored, without a copy. Such results are
    not contiguous, and ``view`` copies where it must.

    Attributes
    ----------
    level : int
        Of the `torch.func.vmap` around, whose first dimension is that of the stack.
    met : bool
        Whether anything was called that there is a shortcut for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.level = 0
        self.met = False

    def at(self, level: int) -> Shortcuts:
        """Return itself, for the operations inside a `torch.func.vmap` of this level."""
        self.level = level
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or what does the same in less time."""
        shortcut = _SHORTCUTS.get(func)
        if shortcut is not None:
            self.met = True
            if (found := shortcut(self, *args, **kwargs or {})) is not NotImplemented:
                return found
        return func(*args, **kwargs) if kwargs else func(*args)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        if not (self._holds(input, 2) and self._holds(weight, 2)):
            return NotImplemented
        if bias is not None and not self._holds(bias, 1):
            return NotImplemented
        features, inputs = weight.shape
        turned = features <= FEW or inputs >= input.shape[0]

        def product(rows: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
            if turned:
                return _product(matrix, rows.mT, None if offset is None else offset[..., None]).mT
            return _product(rows, matrix.mT, None if offset is None else offset[:, None])

        return self._at_once(product, input, weight, *(() if bias is None else (bias,)))

    def _matmul(self, input: Tensor, other: Any) -> Any:
        # An operator may meet anything.
        return self._linear(input, other.mT) if self._holds(other, 2) else NotImplemented

    def _mse_loss(
        self, input: Tensor, target: Tensor, reduction: str = "mean", **others: Any
    ) -> Any:
        if (
            reduction != "mean"
            or any(value is not None for value in others.values())
            or not self._holds(input, input.ndim)
            or not self._holds(target, input.ndim)
            or input.shape != target.shape
        ):
            return NotImplemented

        def losses(stack: Tensor, targets: Tensor) -> Tensor:
            every = functional.mse_loss(stack, targets, reduction="none")
            # Not `mean`, which divides every element on the way back: half the time.
            return every.sum(tuple(range(1, stack.ndim))) / input.numel()

        return self._at_once(losses, input, target)

    def _cross_entropy(
        self,
        input: Tensor,
        target: Tensor,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **others: Any,
    ) -> Any:
        if (
            reduction != "mean"
            or label_smoothing != 0
            or any(value is not None for value in others.values())
            or not self._holds(input, 2)
            or not self._holds(target, 1)
        ):
            return NotImplemented

        def losses(logits: Tensor, classes: Tensor) -> Tensor:
            entropy = partial(functional.cross_entropy, ignore_index=ignore_index, reduction="none")
            # Class by class where they are few or lie so: 86 us, not 470, for ten times 512 samples
            # of ten. Sample by sample where they are many: up to twice as fast.
            if logits.shape[-1] <= FEW or logits.stride(1) == 1:
                every = entropy(logits.mT, classes)
            else:
                every = entropy(logits.flatten(0, 1), classes.flatten()).view_as(classes)
            return every.sum(1) / (classes != ignore_index).sum(1)

        return self._at_once(losses, input, target)

    def _embedding(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        *others: Any,
        **named: Any,
    ) -> Any:
        # With indices of each chain's own, vmap forgets which row is to have no gradient.
        if padding_idx is None or max_norm is not None:
            return NotImplemented
        found = functional.embedding(input, weight, None, None, *others, **named)
        padded = input == padding_idx % weight.shape[0]
        return torch.where(padded[..., None], found.detach(), found)

    def _view(self, tensor: Tensor, *shape: Any) -> Any:
        if not shape or isinstance(shape[0], torch.dtype):
            return NotImplemented
        return tensor.reshape(*shape)

    def _holds(self, tensor: Any, ndim: int) -> bool:
        """Whether it is a tensor of this stack alone, with so many dimensions of its own."""
        return (
            isinstance(tensor, Tensor)
            and tensor.ndim == ndim
            and _functorch.maybe_get_level(tensor) == self.level
            and _functorch.maybe_get_bdim(tensor) == 0
            and _functorch.maybe_current_level() == self.level
        )

    def _at_once(self, function: Callable[..., Tensor], *hidden: Tensor) -> Tensor:
        """Call `function` with the stacks behind tensors; hide what it returns."""
        stacks = [_functorch.get_unwrapped(tensor) for tensor in hidden]
        layer = _functorch.pop_dynamic_layer_stack()
        try:
            found = function(*stacks)
        finally:
            _functorch.push_dynamic_layer_stack(layer)
        shown: Tensor = _functorch._add_batch_dim(found, 0, self.level)
        return shown


def _product(left: Tensor, right: Tensor, offset: Tensor | None) -> Tensor:
    return torch.bmm(left, right) if offset is None else torch.baddbmm(offset, left, right)


_SHORTCUTS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.linear: Shortcuts._linear,
    torch.matmul: Shortcuts._matmul,
    torch.mm: Shortcuts._matmul,
    torch.Tensor.matmul: Shortcuts._matmul,
    torch.Tensor.mm: Shortcuts._matmul,
    torch.Tensor.__matmul__: Shortcuts._matmul,
    functional.mse_loss: Shortcuts._mse_loss,
    functional.cross_entropy: Shortcuts._cross_entropy,
    functional.embedding: Shortcuts._embedding,
    torch.Tensor.view: Shortcuts._view,
}
