"""How often losses of draws are below the loss at the start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastllc.compat.devinterp1.slt.callback import SamplerCallback, of_losses
from fastllc.compat.devinterp1.slt.llc import OnlineLLCEstimator, spread

__all__ = ["OnlineLossStatistics"]


class OnlineLossStatistics(SamplerCallback):
    """Shares of draws with a loss below that of the start, and losses in units of their noise.

    Parameters
    ----------
    base_callback : OnlineLLCEstimator
        Whose losses they are; it comes before this one.

    Examples
    --------
    >>> llc = OnlineLLCEstimator(num_chains=1, num_draws=2, init_loss=1.0, nbeta=1.0)
    >>> statistics = OnlineLossStatistics(llc)
    >>> for draw, loss in enumerate((0.5, 2.0)):
    ...     for callback in (llc, statistics):
    ...         callback(chain=0, draw=draw, loss=torch.tensor(loss))
    >>> statistics.percent_neg_steps
    tensor([[1.0000, 0.5000]])
    """

    def __init__(self, base_callback: OnlineLLCEstimator) -> None:
        super().__init__()
        self.base_callback = base_callback
        self.num_chains = base_callback.num_chains
        self.num_draws = base_callback.num_draws
        shape = self.num_chains, self.num_draws
        self.percent_neg_steps = torch.zeros(shape)
        self.percent_mean_neg_steps = torch.zeros(shape)
        self.percent_thresholded_neg_steps = torch.zeros(shape)
        self.z_scores = torch.zeros(shape)

    @of_losses
    def __call__(self, chain: int, draw: int, loss: Tensor, **kwargs: Any) -> None:
        """Take in the loss of a draw."""
        self.update(chain, draw, loss)

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Take in the loss of a draw, which the base has already."""
        above = self.base_callback.losses[chain, : draw + 1] - self.base_callback.init_loss
        noise = self.est_minibatch_noise
        before = self.percent_mean_neg_steps[chain, draw - 1] if draw else 0.0
        self.percent_neg_steps[chain, draw] = (above < 0).float().mean()
        self.percent_mean_neg_steps[chain, draw] = (draw * before + (above.mean() < 0)) / (draw + 1)
        self.percent_thresholded_neg_steps[chain, draw] = (above < -noise).float().mean()
        self.z_scores[chain, draw] = above[-1] / noise if noise > 0 else torch.nan

    def get_results(self) -> dict[str, Any]:
        """Return all shares and ``z_scores``, each [chain, draw], as ``loss/<name>``."""
        names = "neg_steps", "mean_neg_steps", "thresholded_neg_steps"
        found = {f"percent_{name}": getattr(self, f"percent_{name}") for name in names}
        return {
            f"loss/{name}": values.cpu().numpy()
            for name, values in {**found, "z_scores": self.z_scores}.items()
        }

    @property
    def est_minibatch_noise(self) -> Tensor:
        """The deviation over chains of the losses of the first draw."""
        return spread(self.base_callback.losses[:, 0])

    def loss_hist_by_draw(self, draw: int = 0, bins: int = 10) -> Tensor:
        """Plot a histogram of the losses of all chains at a draw, and return them."""
        import matplotlib.pyplot as plt

        losses = self.base_callback.losses[:, draw]
        plt.hist(losses.cpu().numpy(), bins=bins)
        return losses
