"""Histograms of gradients over draws, in bins that follow them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastllc.compat.devinterp1.slt.callback import SamplerCallback, any_order

__all__ = ["GradientDistribution"]


class GradientDistribution(SamplerCallback):
    """How many coordinates of each parameter's gradient lie in which bin, at each draw.

    All parameters share their bins, of one size. They begin with the first gradient's range; bins
    are added where gradients leave it, and merged in pairs once there are more than twice as many.

    Parameters
    ----------
    num_chains, num_draws : int
        Those of `sample`.
    min_bins : int
        How many bins to begin with.
    param_names : list of str, optional
        The parameters; None: all.
    device : torch.device or str
        Where counts are kept.

    Attributes
    ----------
    grad_dists : dict of str to Tensor
        Counts, [chain, draw, bin].
    min_grad, max_grad, bin_size : Tensor
        Where bins begin and end, and their size.
    num_bins : int

    Examples
    --------
    >>> model = nn.Linear(4, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    >>> histograms = GradientDistribution(num_chains=1, num_draws=1, min_bins=2)
    >>> histograms(chain=0, draw=0, model=model)
    >>> histograms.grad_dists["weight"]
    tensor([[[2, 2]]])
    """

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        min_bins: int = 20,
        param_names: list[str] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        self.num_chains, self.num_draws = num_chains, num_draws
        self.min_bins, self.param_names = min_bins, param_names
        self.grad_dists: dict[str, Tensor] = {}
        self.num_bins = 0
        self.bin_size = self.min_grad = torch.tensor(0.0, device=device)

    @property
    def max_grad(self) -> Tensor:
        """Where bins end."""
        return self.min_grad + self.bin_size * self.num_bins

    @any_order
    def __call__(self, chain: int, draw: int, model: nn.Module, **kwargs: Any) -> None:
        """Take in a draw."""
        self.update(chain, draw, model)

    def update(self, chain: int, draw: int, model: nn.Module) -> None:
        """Take in the gradients at a draw.

        Raises
        ------
        ValueError
            If a parameter has none.
        """
        for name, param in model.named_parameters():
            if self.param_names is None or name in self.param_names:
                if param.grad is None:
                    raise ValueError(f"GradientDistribution needs the gradient of {name}, got None")
                self._count(chain, draw, name, param.grad.detach().flatten().to(self.device))

    def _count(self, chain: int, draw: int, name: str, grads: Tensor) -> None:
        if not self.num_bins:
            ends = torch.histogram(grads.cpu().float(), bins=self.min_bins).bin_edges
            self.min_grad, self.bin_size = ends[0], ends[1] - ends[0]
            self.num_bins = self.min_bins
        if name not in self.grad_dists:
            shape = self.num_chains, self.num_draws, self.num_bins
            self.grad_dists[name] = torch.zeros(shape, dtype=torch.int64, device=self.device)
        self._extend(grads.min(), grads.max())
        while self.num_bins > 2 * self.min_bins:
            self._merge()
        at = ((grads - self.min_grad) / self.bin_size).floor().long()
        counts = at.clamp(0, self.num_bins - 1).bincount(minlength=self.num_bins)
        self.grad_dists[name][chain, draw] += counts

    def _extend(self, low: Tensor, high: Tensor) -> None:
        below = max(0, math.ceil((self.min_grad - low) / self.bin_size))
        above = max(0, math.ceil((high - self.max_grad) / self.bin_size))
        for name, counts in self.grad_dists.items():
            self.grad_dists[name] = nn.functional.pad(counts, (below, above))
        self.min_grad = self.min_grad - below * self.bin_size
        self.num_bins += below + above

    def _merge(self) -> None:
        odd = self.num_bins % 2
        for name, counts in self.grad_dists.items():
            padded = nn.functional.pad(counts, (0, odd))
            self.grad_dists[name] = padded[..., ::2] + padded[..., 1::2]
        self.num_bins = (self.num_bins + odd) // 2
        self.bin_size = self.bin_size * 2

    def get_results(self) -> dict[str, Any]:
        """Return the counts as ``gradient/distributions``."""
        return {"gradient/distributions": self.grad_dists}

    def plot(
        self,
        param_name: str,
        color: str = "blue",
        plot_zero: bool = True,
        chain: int | None = None,
    ) -> None:
        """Show the histograms of a parameter over draws, the fuller a bin the darker.

        Parameters
        ----------
        param_name : str
            The parameter.
        color : str
            Of the bins.
        plot_zero : bool
            Whether there is a line at 0.
        chain : int, optional
            Of this chain; None: of all together.
        """
        import matplotlib.pyplot as plt
        from matplotlib.colors import to_rgb

        counts = self.grad_dists[param_name]
        shares = counts[chain] if chain is not None else counts.sum(dim=0)
        alphas = torch.where(shares > 0, 0.35 + 0.5 * shares / shares.max().clamp(min=1), 0.0).cpu()
        pixels = torch.tensor(to_rgb(color)).expand(*alphas.shape, 3)
        low, high = self.min_grad.item(), self.max_grad.item()
        _, axes = plt.subplots()
        axes.imshow(
            torch.cat([pixels, alphas[..., None]], dim=-1).transpose(0, 1).numpy(),
            extent=(0, self.num_draws, low, high),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_ylim(low if low < 0 else -high, high if high > 0 else -low)
        if plot_zero:
            axes.axhline(color="black", linestyle=":", linewidth=1)
        axes.set(
            xlabel="Sampler steps",
            ylabel="gradient distribution",
            title=f"Distribution of {param_name} gradients at each sampler step",
        )
        plt.show()
