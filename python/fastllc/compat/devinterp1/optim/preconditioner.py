"""Preconditioners: what multiplies gradient, prior and noise, as numbers or tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "CompositePreconditioner",
    "IdentityPreconditioner",
    "MaskPreconditioner",
    "NHTPreconditioning",
    "Preconditioner",
    "PreconditionerCoefs",
    "RMSpropPreconditioner",
    "as_preconditioner",
    "split",
]

Factor = float | Tensor


class PreconditionerCoefs(NamedTuple):
    """Factors of the parts of a step.

    Attributes
    ----------
    grad_coef, prior_coef, noise_coef : of the gradient, of the prior's and of the noise
    overall_coef : of all of them
    grad_correction : what is added to the gradient; None: nothing
    """

    grad_coef: Factor
    prior_coef: Factor
    noise_coef: Factor
    overall_coef: Factor
    grad_correction: Factor | None = None

    def combine_with(self, other: PreconditionerCoefs) -> PreconditionerCoefs:
        """Multiply the factors, and add the corrections.

        Examples
        --------
        >>> both = PreconditionerCoefs(2.0, 1.0, 1.0, 1.0)
        >>> both.combine_with(both).grad_coef
        4.0
        """
        corrections = [
            each for each in (self.grad_correction, other.grad_correction) if each is not None
        ]
        return PreconditionerCoefs(
            self.grad_coef * other.grad_coef,
            self.prior_coef * other.prior_coef,
            self.noise_coef * other.noise_coef,
            self.overall_coef * other.overall_coef,
            sum(corrections) if corrections else None,
        )

    @classmethod
    def combine(cls, *coefs: PreconditionerCoefs) -> PreconditionerCoefs:
        """Combine any number of them."""
        return reduce(cls.combine_with, coefs)


class Preconditioner(ABC):
    """A preconditioner, by its factors."""

    @abstractmethod
    def get_coefficients(
        self, param: Tensor, grad: Tensor, state: dict[str, Any]
    ) -> PreconditionerCoefs:
        """Return the factors of this parameter's step, keeping what it needs in `state`."""


class IdentityPreconditioner(Preconditioner):
    """None.

    Examples
    --------
    >>> IdentityPreconditioner().get_coefficients(torch.ones(1), torch.ones(1), {})[:4]
    (1.0, 1.0, 1.0, 1.0)
    """

    def get_coefficients(
        self, param: Tensor, grad: Tensor, state: dict[str, Any]
    ) -> PreconditionerCoefs:
        """Return ones."""
        return PreconditionerCoefs(1.0, 1.0, 1.0, 1.0)

    def __repr__(self) -> str:
        return "IdentityPreconditioner()"


class MaskPreconditioner(Preconditioner):
    """Masks, one for each parameter of a group, 1 where a weight is sampled.

    Examples
    --------
    >>> mask = MaskPreconditioner([torch.tensor([0.0, 1.0])])
    >>> mask.get_coefficients(torch.ones(2), torch.ones(2), {"param_idx": 0}).overall_coef
    tensor([0., 1.])
    """

    def __init__(self, masks: Sequence[Factor]) -> None:
        self.masks = masks

    def get_coefficients(
        self, param: Tensor, grad: Tensor, state: dict[str, Any]
    ) -> PreconditionerCoefs:
        """Return the mask of parameter number ``state["param_idx"]`` for everything."""
        if "param_idx" not in state:
            raise ValueError("state must hold param_idx, the parameter's number in its group")
        return PreconditionerCoefs(1.0, 1.0, 1.0, self.masks[state["param_idx"]])

    def __repr__(self) -> str:
        return f"MaskPreconditioner(masks={self.masks})"


class CompositePreconditioner(Preconditioner):
    """Several at once; of those that are not the identity, a single one stands for itself.

    Examples
    --------
    >>> CompositePreconditioner([])
    IdentityPreconditioner()
    """

    preconditioners: list[Preconditioner]

    def __new__(cls, preconditioners: Sequence[Preconditioner]) -> Any:
        """Return the preconditioner that those amount to."""
        kept = [each for each in preconditioners if not isinstance(each, IdentityPreconditioner)]
        if not kept:
            return IdentityPreconditioner()
        if len(kept) == 1:
            return kept[0]
        made = super().__new__(cls)
        made.preconditioners = kept
        return made

    def __getnewargs__(self) -> tuple[list[Preconditioner]]:
        return (self.preconditioners,)

    def __init__(self, preconditioners: Sequence[Preconditioner]) -> None:
        pass

    def get_coefficients(
        self, param: Tensor, grad: Tensor, state: dict[str, Any]
    ) -> PreconditionerCoefs:
        """Return the products of all factors."""
        return PreconditionerCoefs.combine(
            *(each.get_coefficients(param, grad, state) for each in self.preconditioners)
        )

    def __repr__(self) -> str:
        return f"CompositePreconditioner({', '.join(map(repr, self.preconditioners))})"


class RMSpropPreconditioner(Preconditioner):
    r"""The metric of `fastllc.RMSpropSGLD` in its convention "devinterp".

    Examples
    --------
    >>> rmsprop = RMSpropPreconditioner(alpha=0.0, eps=1.0)
    >>> rmsprop.get_coefficients(torch.ones(1), torch.ones(1), {}).grad_coef
    tensor([0.5000])
    """

    def __init__(
        self, alpha: float = 0.99, eps: float = 0.1, add_grad_correction: bool = False
    ) -> None:
        if add_grad_correction:
            raise NotImplementedError("add_grad_correction must be False, got True")
        self.alpha, self.eps, self.add_grad_correction = alpha, eps, add_grad_correction

    def get_coefficients(
        self, param: Tensor, grad: Tensor, state: dict[str, Any]
    ) -> PreconditionerCoefs:
        """Take the gradient into the mean square, and return G and its root."""
        mean = state.setdefault("square_avg", torch.zeros_like(grad))
        mean.mul_(self.alpha).addcmul_(grad, grad, value=1 - self.alpha)
        metric = 1 / (mean.sqrt() + self.eps)
        return PreconditionerCoefs(metric, metric, metric.sqrt(), 1.0)

    def __repr__(self) -> str:
        return (
            f"RMSpropPreconditioner(alpha={self.alpha}, eps={self.eps}, "
            f"add_grad_correction={self.add_grad_correction})"
        )


class NHTPreconditioning(Preconditioner):
    """The thermostat of `fastllc.SGNHT`, whose momentum no factor of a step can express.

    `get_coefficients` returns what devinterp 1 does; steps are those of `fastllc.SGNHT`.

    Examples
    --------
    >>> NHTPreconditioning(0.5).get_coefficients(torch.ones(1), torch.ones(1), {}).noise_coef
    tensor(1.)
    """

    def __init__(self, diffusion_factor: float = 0.01, eps: float = 1e-8) -> None:
        self.diffusion_factor, self.eps = diffusion_factor, eps

    def get_coefficients(
        self, param: Tensor, grad: Tensor, state: dict[str, Any]
    ) -> PreconditionerCoefs:
        """Return the factor of the noise, and minus the friction, with a thermostat in `state`."""
        heat = torch.tensor(self.diffusion_factor, device=param.device)
        thermostat = state.setdefault("thermostat", heat.clone())
        momentum = state.setdefault("momentum", torch.randn_like(param.detach()))
        friction = -thermostat * momentum
        state["thermostat"] = thermostat + momentum.square().mean() - 1
        return PreconditionerCoefs(1.0, 1.0, (2 * heat).sqrt(), 1.0, friction)

    def __repr__(self) -> str:
        return f"NHTPreconditioning(diffusion_factor={self.diffusion_factor}, eps={self.eps})"


def as_preconditioner(given: Any, arguments: dict[str, Any] | None = None) -> Preconditioner:
    """Return the preconditioner that is named, made with these arguments, or the one given.

    Raises
    ------
    ValueError
        For any other name.

    Examples
    --------
    >>> as_preconditioner("rmsprop", {"eps": 1.0}).eps
    1.0
    """
    if isinstance(given, Preconditioner):
        return given
    if given is None or given == "identity":
        return IdentityPreconditioner(**(arguments or {}))
    if given == "rmsprop":
        return RMSpropPreconditioner(**(arguments or {}))
    raise ValueError(f"preconditioner must be 'identity', 'rmsprop' or one, got {given!r}")


def split(preconditioner: Preconditioner) -> tuple[Preconditioner, list[MaskPreconditioner]]:
    """Return what a preconditioner is apart from masks, and those.

    Raises
    ------
    NotImplementedError
        For several at once that are no masks.

    Examples
    --------
    >>> split(CompositePreconditioner([RMSpropPreconditioner(), MaskPreconditioner([1.0])]))[0].eps
    0.1
    """
    parts = [preconditioner]
    if isinstance(preconditioner, CompositePreconditioner):
        parts = preconditioner.preconditioners
    masks = [part for part in parts if isinstance(part, MaskPreconditioner)]
    others = [part for part in parts if not isinstance(part, MaskPreconditioner)]
    if len(others) > 1:
        raise NotImplementedError(f"preconditioner must be one apart from masks, got {others}")
    return (others[0] if others else IdentityPreconditioner()), masks
