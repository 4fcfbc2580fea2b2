r"""The WBIC of devinterp 1: n times the mean loss of the draws so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastllc.compat.devinterp1.slt.callback import of_losses
from fastllc.compat.devinterp1.slt.llc import Losses, kept, spread

__all__ = ["OnlineWBICEstimator"]


class OnlineWBICEstimator(Losses):
    """The WBIC after each draw.

    Parameters
    ----------
    num_chains, num_draws : int
        Those of `sample`.
    n : int
        Samples in the data.
    device : torch.device or str
        Where losses are kept.

    References
    ----------
    Watanabe 2013, "A widely applicable Bayesian information criterion", JMLR 14.

    Examples
    --------
    >>> wbic = OnlineWBICEstimator(num_chains=1, num_draws=2, n=10)
    >>> for draw, loss in enumerate((1.0, 2.0)):
    ...     wbic(chain=0, draw=draw, loss=torch.tensor(loss))
    >>> wbic.wbics
    tensor([[10., 15.]])
    """

    def __init__(
        self, num_chains: int, num_draws: int, n: int, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(num_chains, num_draws, device)
        self.n = torch.tensor(n, dtype=torch.float32, device=device)
        self.wbics = torch.zeros_like(self.losses)
        self.wbic_means = torch.zeros(num_draws, device=device)
        self.wbic_stds = torch.zeros(num_draws, device=device)

    @of_losses
    def __call__(self, chain: int, draw: int, loss: Tensor, **kwargs: Any) -> None:
        """Take in the loss of a draw."""
        self.update(chain, draw, loss)

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Take in the loss of a draw."""
        self.losses[chain, draw] = loss
        self.wbics[chain, draw] = self.n * self.losses[chain, : draw + 1].mean()

    def lose(self, chain: int, draw: int) -> None:
        """Keep NaN of a chain from this draw on."""
        super().lose(chain, draw)
        self.wbics[chain, draw:] = torch.nan

    def finalize(self) -> None:
        """Compute mean and deviation at each draw over chains that were not lost."""
        wbics = kept(self.wbics)
        self.wbic_means, self.wbic_stds = wbics.mean(dim=0), spread(wbics)

    def get_results(self) -> dict[str, Any]:
        """Return ``wbic/means``, ``wbic/stds``, ``wbic/trace`` and ``loss/trace``."""
        return {
            "wbic/means": self.wbic_means.cpu().numpy(),
            "wbic/stds": self.wbic_stds.cpu().numpy(),
            "wbic/trace": self.wbics.cpu().numpy(),
            "loss/trace": self.losses.cpu().numpy(),
        }
