"""Large matrix products by oneDNN, on processors of which MKL uses half."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastllc.engine.minibatch import Batch
from fastllc.engine.objective import Objective

__all__ = ["ByOneDNN", "faster_products", "kept_products"]

# Multiply-adds for each thread. Of one product: below, MKL is as fast. Of all, for each operation
# of the model: the mode takes 3 to 8 us of each, as long as MKL takes for twice as many.
_PRODUCT = 2**21
_OPERATION = 2**20

_aten = torch.ops.aten
_PRODUCTS = {_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default}


class ByOneDNN(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Where this is entered, large products of float32 matrices on the CPU are oneDNN's.

    MKL, which PyTorch multiplies with, keeps to AVX2 on AMD's processors, which have units of 512
    bits since Zen 5. There oneDNN is 1.3 to 2.4 times as fast: the gradient of a transformer of 2.1
    million weights takes 38 ms instead of 63. Results differ by rounding. It holds for the thread
    that enters it, backward passes included.

    Attributes
    ----------
    operations : how many operations of PyTorch there were
    multiplied : multiply-adds of the products that were oneDNN's

    Examples
    --------
    >>> x, w = torch.ones(1024, 1024), torch.full((1024, 1024), 0.5)
    >>> with ByOneDNN() as by_onednn:
    ...     y = x @ w
    >>> y[0, 0].item(), by_onednn.operations
    (512.0, 1)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = self.multiplied = 0
        self._least = _PRODUCT * torch.get_num_threads()

    @classmethod
    def is_infra_mode(cls) -> bool:
        """Let `torch.compile` compile inside; it never would again what it has met in a mode."""
        return True

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call an operation, or oneDNN in its place."""
        self.operations += 1
        if func in _PRODUCTS and not kwargs and not types:
            *bias, a, b = args
            size = a.shape[-2] * a.shape[-1] * b.shape[-1]
            if size >= self._least and _suit(a, b, *bias):
                self.multiplied += size * (len(a) if a.ndim == 3 else 1)
                return _multiply(a, b, *bias)
        return func(*args, **(kwargs or {}))


def _suit(a: Tensor, b: Tensor, *bias: Tensor) -> bool:
    """Tell whether torch takes a product, and oneDNN with the same result."""
    fit = a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    if a.ndim == 2:  # where oneDNN adds the bias, it reads it as if its stride were 1
        fit = fit and all(c.shape == b.shape[1:] and c.stride(0) == 1 for c in bias)
    return fit and all(map(_is_plain, (a, b, *bias))) and _has_rows(a) and _has_rows(b)


def _is_plain(tensor: Tensor) -> bool:
    kind = tensor.dtype, tensor.device.type, tensor.layout
    return kind == (torch.float32, "cpu", torch.strided)


def _has_rows(matrix: Tensor) -> bool:
    """Tell whether rows or columns lie in memory one after another, as oneDNN takes them."""
    (rows, columns), (down, right) = matrix.shape[-2:], matrix.stride()[-2:]
    return (right == 1 and down >= columns) or (down == 1 and right >= rows)


def _multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    if a.ndim == 2:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.mT, bias, "none", [], "")
        return found
    # One after another, each put into its place while it is in the cache.
    found = a.new_empty(len(a), a.shape[1], b.shape[2])
    if bias is None:
        for place, *factors in zip(found, a, b, strict=True):
            place.copy_(_multiply(*factors))
    else:
        for place, *factors, c in zip(found, a, b, bias.expand_as(found), strict=True):
            torch.add(_multiply(*factors), c, out=place)
    return found


def faster_products(objective: Objective, batch: Batch) -> ByOneDNN | None:
    """Return in what to compute the gradients of a run, if that makes them faster.

    Parameters
    ----------
    objective : Objective
        The loss; a gradient of it is computed, where oneDNN may be faster.
    batch : Batch
        A minibatch.
    """
    weights = [p for p in objective.parameters() if p.requires_grad]
    on_cpu = all(p.device.type == "cpu" for p in weights)
    watched = torch._C._len_torch_dispatch_stack() > 0  # by who knows the usual products alone
    if watched or not (on_cpu and torch._C._get_mkldnn_enabled() and _halved()):
        return None
    mode = ByOneDNN()
    try:
        with mode:
            torch.autograd.grad(objective(batch), weights, allow_unused=True)
    except Exception:  # whatever a model makes of being watched
        return None
    least = _OPERATION * torch.get_num_threads() * mode.operations
    return mode if mode.multiplied >= least else None


def kept_products(by: str) -> ByOneDNN | None:
    """Return in what to compute the gradients of a run that goes on, for the bits it began with.

    Parameters
    ----------
    by : {"torch", "oneDNN"}
        By what its products were.
    """
    return ByOneDNN() if by == "oneDNN" and torch._C._has_mkldnn else None


@cache
def _halved() -> bool:
    """Tell whether MKL leaves half of this processor's units unused."""
    built = torch._C.has_mkl and torch._C._has_mkldnn
    if not built or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return _is_zen5(Path("/proc/cpuinfo").read_text())
    except OSError:
        return False


def _is_zen5(about: str) -> bool:
    """Tell whether Linux describes a processor of AMD with units of 512 bits."""
    family = re.search(r"^vendor_id\s*: AuthenticAMD$.*?^cpu family\s*: (\d+)$", about, re.M | re.S)
    return family is not None and int(family[1]) >= 26
