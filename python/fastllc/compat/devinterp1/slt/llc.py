r"""Learning coefficients from the losses of draws: :math:`n\beta\,(\bar L - L_0)`."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from fastllc.compat.devinterp1.slt.callback import SamplerCallback, of_losses

__all__ = ["LLCEstimator", "Losses", "OnlineLLCEstimator", "kept", "spread"]


def kept(trace: Tensor) -> Tensor:
    """Return the chains of a trace, [chain, draw], that hold numbers to the end.

    Examples
    --------
    >>> kept(torch.tensor([[1.0, torch.nan], [1.0, 2.0]]))
    tensor([[1., 2.]])
    """
    return trace[~trace.isnan().any(dim=1)]


def spread(values: Tensor) -> Tensor:
    """Return the standard deviation over chains, the first dimension; NaN of a single one.

    Examples
    --------
    >>> spread(torch.tensor([1.0, 3.0]))
    tensor(1.4142)
    """
    if len(values) < 2:
        return torch.full_like(values.sum(dim=0), torch.nan)
    return values.std(dim=0)


class Losses(SamplerCallback):
    """Callbacks that keep the loss of each draw, [chain, draw]."""

    def __init__(self, num_chains: int, num_draws: int, device: torch.device | str) -> None:
        super().__init__(device)
        self.num_chains, self.num_draws = num_chains, num_draws
        self.losses = torch.zeros((num_chains, num_draws), device=device)

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Take in the loss of a draw."""
        raise NotImplementedError

    def lose(self, chain: int, draw: int) -> None:
        """Keep NaN of a chain from this draw on."""
        self.losses[chain, draw:] = torch.nan


class _Coefficients(Losses):
    """Losses, and what makes coefficients of them."""

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        init_loss: Any,
        device: torch.device | str = "cpu",
        eval_field: str = "loss",
        nbeta: float | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__(num_chains, num_draws, device)
        self.init_loss = init_loss
        if nbeta is None:
            if temperature is None:
                raise AssertionError("Please provide a value for nbeta.")
            nbeta = temperature
            warnings.warn("Temperature is deprecated: its name is nbeta.", stacklevel=2)
        self._nbeta = float(nbeta)
        self.nbeta = torch.as_tensor(nbeta, dtype=torch.float32, device=device)
        self.temperature = temperature
        self.eval_field = eval_field

    @of_losses
    def __call__(self, chain: int, draw: int, **kwargs: Any) -> None:
        """Take in the `eval_field` of a draw."""
        self.update(chain, draw, kwargs[self.eval_field])

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Take in the loss of a draw.

        Raises
        ------
        RuntimeError
            If it is not a number.
        """
        value = float(loss)
        if math.isnan(value):
            raise RuntimeError(f"NaN detected in loss at chain {chain}, draw {draw}")
        self.losses[chain, draw] = value


class LLCEstimator(_Coefficients):
    r"""The local learning coefficient of each chain, from the mean over its draws.

    Parameters
    ----------
    num_chains, num_draws : int
        Those of `sample`.
    init_loss : float
        L_0; `sample` replaces it by the one that it is given or computes.
    device : torch.device or str
        Where losses are kept.
    eval_field : str
        What of a draw is taken for its loss.
    nbeta : float
        Inverse temperature, that of the sampler.
    temperature : float, optional
        Its older name.

    Examples
    --------
    >>> llc = LLCEstimator(num_chains=2, num_draws=1, init_loss=1.0, nbeta=10.0)
    >>> llc(chain=0, draw=0, loss=torch.tensor(1.5))
    >>> llc(chain=1, draw=0, loss=torch.tensor(1.25))
    >>> llc.finalize()
    >>> llc.get_results()["llc/mean"]
    3.75
    """

    def finalize(self) -> None:
        """Compute the coefficients, and their mean and deviation over chains that were not lost."""
        self.llc_per_chain = self.nbeta * (self.losses.mean(dim=1) - self.init_loss)
        (found,) = kept(self.llc_per_chain[:, None]).T
        self.llc_mean, self.llc_std = found.mean(), spread(found)

    def get_results(self) -> dict[str, Any]:
        """Return ``llc/mean``, ``llc/std``, ``llc-chain/<i>`` and ``loss/trace``."""
        return {
            "llc/mean": self.llc_mean.item(),
            "llc/std": self.llc_std.item(),
            **{f"llc-chain/{i}": llc.item() for i, llc in enumerate(self.llc_per_chain)},
            "loss/trace": self.losses.cpu().numpy(),
        }


class OnlineLLCEstimator(_Coefficients):
    """The local learning coefficient that each draw amounts to.

    Parameters
    ----------
    num_chains, num_draws, init_loss, device, eval_field, nbeta, temperature
        As in `LLCEstimator`.

    Examples
    --------
    >>> llc = OnlineLLCEstimator(num_chains=1, num_draws=1, init_loss=1.0, nbeta=10.0)
    >>> llc(chain=0, draw=0, loss=torch.tensor(1.5))
    >>> llc.llcs
    tensor([[5.]])
    """

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        init_loss: Any,
        device: torch.device | str = "cpu",
        eval_field: str = "loss",
        nbeta: float | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__(num_chains, num_draws, init_loss, device, eval_field, nbeta, temperature)
        self.llcs = torch.zeros_like(self.losses)

    def update(self, chain: int, draw: int, loss: Tensor) -> None:
        """Take in the loss of a draw, as `LLCEstimator` does."""
        super().update(chain, draw, loss)
        self.llcs[chain, draw] = self._nbeta * (float(loss) - float(self.init_loss))

    def lose(self, chain: int, draw: int) -> None:
        """Keep NaN of a chain from this draw on."""
        super().lose(chain, draw)
        self.llcs[chain, draw:] = torch.nan

    def finalize(self) -> None:
        """Compute mean and deviation at each draw over chains that were not lost."""
        llcs = kept(self.llcs)
        self.llc_means, self.llc_stds = llcs.mean(dim=0), spread(llcs)

    def get_results(self) -> dict[str, Any]:
        """Return ``init_loss``, ``llc/means``, ``llc/stds``, ``llc/trace`` and ``loss/trace``."""
        return {
            "init_loss": self.init_loss,
            "llc/means": self.llc_means.cpu().numpy(),
            "llc/stds": self.llc_stds.cpu().numpy(),
            "llc/trace": self.llcs.cpu().numpy(),
            "loss/trace": self.losses.cpu().numpy(),
        }
