"""How probably a Metropolis test would have accepted the way from draw to draw."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fastllc.compat.devinterp1.slt.callback import SamplerCallback, all_at_once, by_chain
from fastllc.compat.devinterp1.slt.llc import kept

__all__ = ["MalaAcceptanceRate", "mala_acceptance_probability"]

Tensors = Tensor | list[Tensor]


def mala_acceptance_probability(
    prev_params: Tensors,
    prev_grads: Tensors,
    prev_loss: Any,
    current_params: Tensors,
    current_grads: Tensors,
    current_loss: Any,
    learning_rate: Any,
) -> Any:
    r"""Probability with which the Metropolis-adjusted Langevin algorithm accepts a proposal.

    With energies U and their gradients D at w and w'

    .. math:: \min\left(1, \exp\left(U - U' + \frac{\|w' - w + \frac{\epsilon}{2} D\|^2
              - \|w - w' + \frac{\epsilon}{2} D'\|^2}{2\epsilon}\right)\right).

    In the precision of its arguments: the two squares cancel, so that single precision is off by
    1e-7 of their size, which is far more than 1e-7 of the probability.

    Parameters
    ----------
    prev_params, prev_grads, current_params, current_grads : Tensor or list of Tensor
        Weights and gradients of the energy, before and after.
    prev_loss, current_loss : Tensor or float
        The energies.
    learning_rate : float
        Step size epsilon > 0.

    Returns
    -------
    Tensor or float
        In [0, 1]; NaN if an energy is.

    Examples
    --------
    >>> here = torch.ones(2)
    >>> mala_acceptance_probability(here, here, 1.0, here, here, 1.0, 0.1)
    1.0
    """
    if torch.as_tensor(current_loss).isnan().any():
        return math.nan
    w, drift, there, drift_there = (
        each if isinstance(each, list) else [each]
        for each in (prev_params, prev_grads, current_params, current_grads)
    )
    back = _log_proposal(there, drift_there, w, learning_rate)
    forth = _log_proposal(w, drift, there, learning_rate)
    return min(1.0, torch.exp(back - forth + prev_loss - current_loss))


def _log_proposal(at: list[Tensor], drift: list[Tensor], to: list[Tensor], lr: Any) -> Any:
    """Return the log density of a step between two points, up to a constant."""
    return -sum(
        (y - x + lr * 0.5 * d).square().sum() / (2 * lr)
        for x, d, y in zip(at, drift, to, strict=True)
    )


def _acceptance(
    w: Tensor, drift: Tensor, energy: Any, there: Tensor, drift_there: Tensor, other: Any, lr: Any
) -> Tensor:
    """Return the probabilities of chains, [chain], from points and drifts, [chain, d].

    As `mala_acceptance_probability`, but with the squares multiplied out: their difference is lost
    in their own rounding there, as in devinterp.
    """
    halves = (there - w) / 2 + lr / 8 * (drift - drift_there)
    apart = (halves * (drift + drift_there)).sum(dim=1, dtype=torch.float64)
    found: Tensor = torch.exp(apart + energy - other).clamp(max=1)
    return found


class MalaAcceptanceRate(SamplerCallback):
    """The acceptance probability between neighbouring draws, [chain, draw - 1].

    Draws should be one step apart: it judges the step between them, with the minibatch of each.

    Parameters
    ----------
    num_chains, num_draws : int
        Those of `sample`.
    learning_rate : float
        That of the sampler.
    device : torch.device or str
        Where probabilities are kept.
    nbeta : float
        Inverse temperature, that of the sampler.
    temperature : float, optional
        Its older name.
    """

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        learning_rate: float,
        device: torch.device | str = "cpu",
        nbeta: float | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__(device)
        if nbeta is None:
            if temperature is None:
                raise AssertionError("Please provide a value for nbeta.")
            nbeta = temperature
            warnings.warn("Temperature is deprecated: its name is nbeta.", stacklevel=2)
        self.num_chains, self.num_draws = num_chains, num_draws
        self.learning_rate, self.nbeta = learning_rate, nbeta
        self.mala_acceptance_rate = torch.zeros((num_chains, num_draws - 1), device=device)
        self._before: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._reached: dict[str, Tensor] = {}

    @all_at_once
    def __call__(
        self,
        chain: int | list[int],
        draw: int,
        model: nn.Module,
        loss: Tensor,
        optimizer: Any,
        **kwargs: Any,
    ) -> None:
        """Take in a draw."""
        self.update(chain, draw, model, loss, optimizer)

    def update(
        self, chain: int | list[int], draw: int, model: nn.Module, loss: Tensor, optimizer: Any
    ) -> None:
        """Take in a draw: where its step began, with loss and drift there, is the one before's end.

        The first two draws have no probability: of the first it is not kept where it began.
        """
        drift = _flat(chain, optimizer.dws)
        energy = (loss * self.nbeta + optimizer.localization_loss).double().reshape(-1)
        whose = str(chain)
        here = self._reached.get(whose)
        if draw > 1 and here is not None:
            rates = _acceptance(*self._before[whose], here, drift, energy, self.learning_rate)
            self.mala_acceptance_rate[chain, draw - 1] = rates.to(self.mala_acceptance_rate)
        if here is not None:
            self._before[whose] = here, drift, energy
        self._reached[whose] = _flat(chain, [p for p in model.parameters() if p.requires_grad])

    def lose(self, chain: int, draw: int) -> None:
        """Keep NaN of a chain from this draw on."""
        self.mala_acceptance_rate[chain, max(0, draw - 1) :] = torch.nan

    def get_results(self) -> dict[str, Any]:
        """Return ``mala_accept/trace``, and ``mean`` and ``std`` over chains that were not lost."""
        rates = self.mala_acceptance_rate
        found = rates if rates.isnan().any(dim=1).all() else kept(rates)
        return {
            "mala_accept/trace": rates.cpu().numpy(),
            "mala_accept/mean": found.cpu().numpy().mean(),
            "mala_accept/std": found.cpu().numpy().std(),
        }


def _flat(chain: int | list[int], tensors: list[Tensor]) -> Tensor:
    return torch.cat(by_chain(chain, tensors), dim=1)
