"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from fastllc import _core
from fastllc.errors import DivergenceWarning, warn
from fastllc.samplers.acceptance import decide, log_uniforms
from fastllc.samplers.proposals import check_proposals, log_ratio, moving, point
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.settings import Common

__all__ = ["MALA"]


class MALA(Sampler):
    r"""Metropolis-adjusted Langevin algorithm: steps of `SGLD` that are accepted or taken back.

    .. math::
        w' = w - \frac{\epsilon}{2}\nabla U(w) + \sqrt{\epsilon}\,\sigma\,z, \qquad
        U(w) = n\beta\,L(w) + \frac{\gamma}{2}\|w - w_0\|^2 + \frac{\lambda}{2}\|w\|^2,

    is accepted with the probability

    .. math::
        \min\left(1, \frac{e^{-U(w')}\, q(w | w')}{e^{-U(w)}\, q(w' | w)}\right),

    where q is the density of a proposal; else the weights stay, to the bit. So :math:`e^{-U}` is
    sampled without any bias of the step size, which only decides how fast: it is best where some
    0.57 of the steps are accepted, and has to shrink with the number d of weights as
    :math:`d^{-1/3}`. A step takes two gradients. ``noise_level`` scales the proposals alone, and
    the same posterior is sampled.

    ``step(closure)`` needs the closure, as `torch.optim.LBFGS` does. It is called at the weights
    and at the proposal, has to be the same function of them (the same batch, the same dropout), and
    returns the mean loss; ``step`` returns what it returned first. Gradients are afterwards those
    at the proposal.

    All this is of a loss that is the same function of the weights at every step. On minibatches the
    test is of the minibatch's own posterior, and what is sampled is not exactly that of all data.
    The ratio is as exact as two losses times ``nbeta``: where that is above 1e5, compute them
    in double precision.

    The uniform number of the test follows from the seed and the step, as the noise does.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them, on the CPU; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Step size epsilon >= 0.
    **common
        nbeta, localization, weight_decay, noise_level, mask, save_metrics, sketch_dim,
        sketch_seed, seed: see `Common`. nbeta is the same for all groups, noise_level > 0,
        bounding_box_size None and rounding "exact".

    Attributes
    ----------
    acceptance_probability : float or None
        Of the last proposal, in [0, 1]; 0 if its weights or its loss were not finite. None before
        the first step.
    accepted : bool or None
        Whether it was accepted.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Besag (1994), comments on "Representations of knowledge in complex systems", JRSS B 56.
    Roberts & Tweedie (1996), Exponential convergence of Langevin distributions and their discrete
    approximations, Bernoulli 2.
    Roberts & Rosenthal (1998), Optimal scaling of discrete approximations to Langevin diffusions,
    JRSS B 60.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(8, requires_grad=True)
    >>> sampler = MALA([w], lr=0.5, nbeta=2.0, seed=0)
    >>> def closure():
    ...     sampler.zero_grad()
    ...     loss = 0.5 * w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> losses = torch.tensor([sampler.step(closure).item() for _ in range(2000)])
    >>> 3.8 < 2.0 * losses[100:].mean() < 4.2  # SGLD: 4 / (1 - lr * nbeta / 4) = 5.3
    tensor(True)
    """

    rule = _core.Rule.sgld
    acceptance_probability: float | None
    accepted: bool | None

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, **common: Unpack[Common]
    ) -> None:
        super().__init__(params, {"lr": lr}, common)

    def _forget(self, names: Iterable[str]) -> None:
        super()._forget(names)
        self.acceptance_probability = self.accepted = None

    def _admit(self, group: dict[str, Any]) -> None:
        self.setting(group)
        check_proposals(self.param_groups)
        for i, param in enumerate(group["params"]):
            # A device's loss would have to be waited for, which no step does.
            if param.device.type != "cpu":
                name = f"params[{group['first_param'] + i}]"
                raise ValueError(f"{name} must be on cpu for MALA, got {param.device}")
        super()._admit(group)

    def _step(
        self, closure: Callable[[], Any] | None, *, noise_generator: torch.Generator | None
    ) -> Any:
        """Propose a step and test it; see `Sampler.step`."""
        if closure is None:
            raise TypeError("closure must compute the loss and its gradients for MALA, got None")
        check_proposals(self.param_groups)
        with torch.enable_grad():
            loss = closure()
        chosen = moving(self.param_groups)
        before = point(self.state, chosen, loss).copied()
        if not before.losses.isfinite().all():
            warn(
                f"the loss where the chain is must be finite, got {before.losses.item()}: it may "
                "never accept a step",
                DivergenceWarning,
            )
        kept = [(p, p.detach().clone(), self._residual(p, copy=True)) for _, _, p in chosen]
        key, _ = self._advance(noise_generator)
        self.acceptance_probability, self.accepted = 0.0, False
        try:
            with torch.enable_grad():
                again = closure()
            after = point(self.state, chosen, again)
            probabilities, accepted = decide(
                log_ratio(self.state, chosen, before, after),
                log_uniforms([key], self.param_groups[0]["step"] - 1)[:, 0],
                after,
            )
            self.acceptance_probability = probabilities.item()
            self.accepted = bool(accepted)
        finally:  # of an interrupted closure, too, a state of the chain is left
            if not self.accepted:
                self._restore(kept)
        return loss

    def _residual(self, param: Tensor, *, copy: bool = False) -> Tensor | None:
        """Return what is kept beside a low-precision weight; None in the first step."""
        residual: Tensor | None = self.state.get(param, {}).get("residual")
        return residual.clone() if copy and residual is not None else residual

    @torch.no_grad()
    def _restore(self, kept: list[tuple[Tensor, Tensor, Tensor | None]]) -> None:
        for param, weights, residual in kept:
            param.copy_(weights)
            if (now := self._residual(param)) is None:
                continue
            now.zero_() if residual is None else now.copy_(residual)
