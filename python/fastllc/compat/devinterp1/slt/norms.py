r"""Norms of weights, gradients and noise: :math:`(\sum_i \|x_i\|_p^2)^{1/p}` over tensors i."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastllc.compat.devinterp1.slt.callback import (
    SamplerCallback,
    all_at_once,
    any_order,
    by_chain,
)

__all__ = ["GradientNorm", "NoiseNorm", "WeightNorm"]


class _Norms(SamplerCallback):
    """A norm at each draw, [chain, draw].

    Parameters
    ----------
    num_chains, num_draws : int
        Those of `sample`.
    p_norm : int
        Its order p.
    device : torch.device or str
        Where norms are kept.
    """

    name: str

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        p_norm: int = 2,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        self.num_chains, self.num_draws, self.p_norm = num_chains, num_draws, p_norm
        self._norms = torch.zeros((num_chains, num_draws), device=device)
        setattr(self, f"{self.name}_norms", self._norms)

    def keep(self, chain: int | list[int], draw: int, tensors: Iterable[Tensor]) -> None:
        """Take in the tensors of a draw."""
        rows = by_chain(chain, tensors)
        norms = torch.stack([torch.linalg.vector_norm(row, self.p_norm, dim=1) for row in rows])
        self._norms[chain, draw] = norms.square().sum(0).to(self._norms) ** (1 / self.p_norm)

    def lose(self, chain: int, draw: int) -> None:
        """Keep NaN of a chain from this draw on."""
        self._norms[chain, draw:] = torch.nan

    def get_results(self) -> dict[str, Any]:
        """Return the norms as ``<name>_norm/trace``."""
        return {f"{self.name}_norm/trace": self._norms.cpu().numpy()}


class WeightNorm(_Norms):
    """The norm of the weights after the step of a draw; see `_Norms`.

    Examples
    --------
    >>> norms = WeightNorm(num_chains=1, num_draws=1)
    >>> norms(
    ...     chain=0,
    ...     draw=0,
    ...     model=nn.Linear(1, 1, bias=False)
    ...     .requires_grad_(False)
    ...     .apply(lambda layer: layer.weight.fill_(2.0)),
    ... )
    >>> norms.weight_norms
    tensor([[2.]])
    """

    name = "weight"
    weight_norms: Tensor

    @all_at_once
    def __call__(self, chain: int | list[int], draw: int, model: nn.Module, **kwargs: Any) -> None:
        """Take in a draw."""
        self.update(chain, draw, model)

    def update(self, chain: int | list[int], draw: int, model: nn.Module) -> None:
        """Take in the model at a draw."""
        self.keep(chain, draw, model.parameters())


class GradientNorm(_Norms):
    """The norm of lr/2 times the gradient of a draw's step; see `WeightNorm`."""

    name = "gradient"
    gradient_norms: Tensor

    @all_at_once
    def __call__(self, chain: int | list[int], draw: int, optimizer: Any, **kwargs: Any) -> None:
        """Take in a draw."""
        self.update(chain, draw, optimizer.param_groups)

    def update(self, chain: int | list[int], draw: int, param_groups: list[dict[str, Any]]) -> None:
        """Take in the gradients at a draw."""
        moved = [(g["lr"], p) for g in param_groups for p in g["params"] if p.grad is not None]
        self.keep(chain, draw, (0.5 * lr * p.grad for lr, p in moved))


class NoiseNorm(_Norms):
    """The norm of sqrt(lr) times the noise of a draw's step; see `WeightNorm`."""

    name = "noise"
    noise_norms: Tensor

    @any_order
    def __call__(self, chain: int, draw: int, optimizer: Any, **kwargs: Any) -> None:
        """Take in a draw."""
        self.update(chain, draw, optimizer)

    def update(self, chain: int, draw: int, optimizer: Any) -> None:
        """Take in the noise at a draw."""
        groups = optimizer.param_groups
        noise = optimizer.noise
        found = (
            noise
            if isinstance(noise, dict)
            else {i: group["metrics"]["noise"] for i, group in enumerate(groups)}
        )
        self.keep(chain, draw, (groups[i]["lr"] ** 0.5 * z for i, zs in found.items() for z in zs))
