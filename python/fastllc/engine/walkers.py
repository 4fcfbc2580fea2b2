"""What the loop asks of the chains that it walks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.engine.minibatch import Batch, Minibatch
from fastllc.engine.study import Chain
from fastllc.samplers.metrics import Metrics

__all__ = ["Spectator", "Walkers"]


class Walkers(Protocol):
    """K chains that move together.

    Attributes
    ----------
    device : where they are
    corrected : whether every step is judged, and taken back where MALA refuses it
    """

    device: torch.device
    corrected: bool

    def gradient(self, minibatches: Sequence[Minibatch], step: int) -> Tensor:
        """Compute the gradients where the chains are, averaged over `minibatches`.

        Returns the mean loss of each chain, [K].
        """

    def move(self, step: int, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take the step that the gradients ask for, in the active chains.

        Returns whether the weights of each chain are finite, as far as it is known.
        """

    def alive(self) -> Tensor | None:
        """Return which chains their device has not stopped, [K], there; None if it stops none."""

    def judge(
        self, minibatches: Sequence[Minibatch], step: int, active: NDArray[np.bool_], losses: Tensor
    ) -> tuple[NDArray[np.bool_], Tensor]:
        """Take the step, and tell how probably MALA accepts it, [K].

        It takes one more gradient, of the same `minibatches`; `losses` are those before the step.
        """

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss of each sample where the chains are, [K, batch]."""

    def displacements(self) -> Iterator[Tensor]:
        """Yield w - w0 of each parameter, [K, numel]."""

    def tensors(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield each parameter and its gradient, [K, *shape]: the memory of the chains itself."""

    def metrics(self) -> Metrics:
        """Return the `Metrics` of the last step, [K] each."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""


class Spectator(Protocol):
    """Somebody who looks at chains at every draw, before and after its step."""

    def start(self, chains: Sequence[Chain], keys: Sequence[int], walkers: Walkers) -> None:
        """See chains that move together at their start; `keys` are those of their noise."""

    def before(self, step: int, losses: Tensor) -> None:
        """See a draw before its step, with its gradients and losses, [K]."""

    def after(self, step: int, losses: Tensor, active: NDArray[np.bool_]) -> None:
        """See it after the step, which the active chains have taken."""
