"""A computation recorded once as a CUDA graph, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastllc.engine.minibatch import Minibatch, unpack

__all__ = ["Recorded", "record"]

# Before a capture: libraries make their workspaces, autograd its nodes.
_WARM_UPS = 2


def record(run: Callable[[], list[Tensor]]) -> tuple[list[Tensor], Callable[[], None]]:
    """Record what `run` launches; return what it returned, and what computes that anew in place.

    Raises
    ------
    RuntimeError
        If `run` waits for the device or does what no graph can hold.
    """
    device = run()[0].device
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = run()
    return outputs, graph.replay


class _Graph(NamedTuple):
    inputs: list[Tensor]
    outputs: list[Tensor]
    replay: Callable[[], None]


class Recorded:
    """A function of minibatches, recorded when their shapes come for the first time.

    It saves the time in which Python launches kernels, most of what a small model's gradient takes
    on a GPU. The function must be the same operations at every call.

    Parameters
    ----------
    function : callable
        Returns tensors, which stay its own until the next call.

    Raises
    ------
    ValueError
        If the function cannot be recorded.
    """

    def __init__(self, function: Callable[[Sequence[Minibatch]], list[Tensor]]) -> None:
        self._function = function
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, minibatches: Sequence[Minibatch]) -> list[Tensor]:
        """Return what the function returns."""
        opened = [unpack(minibatch.batch) for minibatch in minibatches]
        tensors = [tensor for found, _ in opened for tensor in found]
        layout = [(t.shape, t.dtype, t.device) for t in tensors], [b.stacked for b in minibatches]
        key = repr(layout)
        if key not in self._graphs:
            inputs = [tensor.clone() for tensor in tensors]
            rest = iter(inputs)
            own = [
                minibatch._replace(batch=repack([next(rest) for _ in found]))
                for minibatch, (found, repack) in zip(minibatches, opened, strict=True)
            ]
            try:
                outputs, replay = record(lambda: self._function(own))
            except RuntimeError as error:
                raise ValueError(
                    f"capture must be False for this model and loss ({str(error)[:200]})"
                ) from error
            self._graphs[key] = _Graph(inputs, outputs, replay)
        graph = self._graphs[key]
        for target, tensor in zip(graph.inputs, tensors, strict=True):
            target.copy_(tensor)
        graph.replay()
        return graph.outputs
