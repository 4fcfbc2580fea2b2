"""Running mean and deviation of what another callback keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastllc.compat.devinterp1.slt.callback import SamplerCallback, of_losses
from fastllc.compat.devinterp1.slt.llc import spread

__all__ = ["OnlineTraceStatistics"]


class OnlineTraceStatistics(SamplerCallback):
    """Mean and deviation of a trace, [chain, draw], over the draws so far and over chains.

    Parameters
    ----------
    base_callback : SamplerCallback
        Whose trace it is; it comes before this one.
    attribute : str
        Its name there.
    device : torch.device or str
        Where they are kept.

    Raises
    ------
    ValueError
        If the base has no such attribute, ``num_chains`` or ``num_draws``.

    Examples
    --------
    >>> from fastllc.compat.devinterp1.slt.llc import OnlineLLCEstimator
    >>> llc = OnlineLLCEstimator(num_chains=2, num_draws=1, init_loss=0.0, nbeta=1.0)
    >>> statistics = OnlineTraceStatistics(llc, "llcs")
    >>> for chain in range(2):
    ...     for callback in (llc, statistics):
    ...         callback(chain=chain, draw=0, loss=torch.tensor(float(chain)))
    >>> statistics.mean_by_draw
    tensor([0.5000])
    """

    def __init__(
        self,
        base_callback: Any,
        attribute: str,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        self.base_callback = base_callback
        self.attribute = attribute
        self.validate_base_callback()
        self.num_chains: int = self.base_callback.num_chains
        self.num_draws: int = self.base_callback.num_draws
        self.mean_by_chain = torch.zeros((self.num_chains, self.num_draws), device=device)
        self.std_by_chain = torch.zeros_like(self.mean_by_chain)
        self.mean_by_draw = torch.zeros(self.num_draws, device=device)
        self.std_by_draw = torch.zeros_like(self.mean_by_draw)

    def validate_base_callback(self) -> None:
        """Raise unless the base has what is needed."""
        for name in (self.attribute, "num_chains", "num_draws"):
            if not hasattr(self.base_callback, name):
                raise ValueError(f"Base callback must have attribute {name}")

    @of_losses
    def __call__(self, draw: int, **kwargs: Any) -> None:
        """Take in what the base has now of this draw."""
        trace: Tensor = getattr(self.base_callback, self.attribute)
        so_far, here = trace[:, : draw + 1], trace[:, draw]
        self.mean_by_chain[:, draw] = so_far.mean(dim=1)
        self.std_by_chain[:, draw] = spread(so_far.T)
        self.mean_by_draw[draw], self.std_by_draw[draw] = here.mean(), spread(here)

    def get_results(self) -> dict[str, Any]:
        """Return ``<attribute>/chain/mean``, ``/chain/std``, ``/draw/mean`` and ``/draw/std``."""
        return self._named(slice(None))

    def sample_at_draw(self, draw: int = -1) -> dict[str, Any]:
        """Return the same of one draw."""
        return self._named(draw)

    def _named(self, draws: int | slice) -> dict[str, Any]:
        found = {
            "chain/mean": self.mean_by_chain,
            "chain/std": self.std_by_chain,
            "draw/mean": self.mean_by_draw,
            "draw/std": self.std_by_draw,
        }
        return {
            f"{self.attribute}/{name}": values[..., draws].cpu().numpy()
            for name, values in found.items()
        }
