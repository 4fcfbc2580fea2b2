r"""Priors around points: each adds :math:`\gamma (w - c)` to the drift."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from numbers import Real
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "CompositePrior",
    "GaussianPrior",
    "Prior",
    "Pull",
    "UniformPrior",
    "as_prior",
    "pull",
]

State = dict[Tensor, dict[str, Any]]
Center = Literal["initial"] | Iterable[Tensor] | Real | None


class Prior(ABC):
    """A prior over the weights, by the gradient of minus its logarithm.

    One of one's own takes part in the steps of `SGMCMC` by `grad`, which is called without
    autograd.
    """

    @abstractmethod
    def initialize(self, params: Iterable[Tensor]) -> State:
        """Return what the prior keeps for each parameter."""

    @abstractmethod
    def grad(self, param: Tensor, state: dict[str, Any]) -> Tensor:
        """Return the gradient of minus the log prior."""


class GaussianPrior(Prior):
    r"""A Gaussian of precision :math:`\gamma`: minus its log is :math:`\gamma/2 \|w - c\|^2`.

    Parameters
    ----------
    localization : float
        gamma >= 0.
    center : "initial", iterable of Tensor or None
        c: where the parameters are, tensors of their shapes, or zero.
    key : str
        Under which c is kept.

    Examples
    --------
    >>> prior = GaussianPrior(2.0, center=None)
    >>> prior.grad(torch.ones(2), {"prior_center": None})
    tensor([2., 2.])
    """

    def __init__(
        self, localization: float, center: Center = "initial", key: str = "prior_center"
    ) -> None:
        self.localization = localization
        self.key = key
        kept = center is None or isinstance(center, (str, Real))
        self.center = center if kept else list(center)  # type: ignore[arg-type]

    def initialize(self, params: Iterable[Tensor]) -> State:
        """Return the center of each parameter; None is zero.

        Raises
        ------
        ValueError
            If centers are not as many as parameters, or of other shapes.
        """
        params = list(params)
        found: list[Tensor | None] = [None] * len(params)
        if isinstance(self.center, list):
            if len(self.center) != len(params):
                raise ValueError(
                    f"center must have a tensor for each of {len(params)} parameters, "
                    f"got {len(self.center)}"
                )
            for i, (center, param) in enumerate(zip(self.center, params, strict=True)):
                if center.shape != param.shape:
                    raise ValueError(
                        f"center[{i}] must be of shape {list(param.shape)}, "
                        f"got {list(center.shape)}"
                    )
                found[i] = center.detach().clone()
        elif self.center == "initial":
            found = [param.detach().clone() for param in params]
        state: State = defaultdict(dict)
        for param, center in zip(params, found, strict=True):
            state[param][self.key] = center
        return state

    def grad(self, param: Tensor, state: dict[str, Any]) -> Tensor:
        """Return gamma (w - c)."""
        return self.localization * self._from_center(param, state)

    def distance_sq(
        self, param: Tensor, state: dict[str, Any], scale: float | Tensor = 1.0
    ) -> Tensor:
        """Return the squared distance from the center, every coordinate times `scale`."""
        return (scale * self._from_center(param, state)).square().sum()

    def _from_center(self, param: Tensor, state: dict[str, Any]) -> Tensor:
        center = state[self.key]
        return param if center is None else param - center

    def __repr__(self) -> str:
        return f"GaussianPrior(localization={self.localization}, center={self.center})"


class UniformPrior(Prior):
    """No prior at all.

    Examples
    --------
    >>> UniformPrior().grad(torch.ones(2), {})
    tensor([0., 0.])
    """

    def __init__(self, box_size: float = math.inf) -> None:
        if box_size != math.inf:
            raise NotImplementedError(f"box_size must be inf, got {box_size}")
        self.box_size = box_size

    def initialize(self, params: Iterable[Tensor]) -> State:
        """Return nothing."""
        return {}

    def grad(self, param: Tensor, state: dict[str, Any]) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(param)


class CompositePrior(Prior):
    """The product of several priors; the last one answers for distances and attributes.

    Of priors that are not uniform, a single one stands for itself, and none is a `UniformPrior`.

    Examples
    --------
    >>> gaussian = GaussianPrior(1.0)
    >>> CompositePrior([UniformPrior(), gaussian]) is gaussian
    True
    """

    priors: list[Any]

    def __new__(cls, priors: list[Prior]) -> Any:
        """Return the prior that those amount to."""
        kept = [prior for prior in priors if not isinstance(prior, UniformPrior)]
        if not kept:
            return UniformPrior()
        if len(kept) == 1:
            return kept[0]
        made = super().__new__(cls)
        made.priors = kept
        return made

    def __getnewargs__(self) -> tuple[list[Any]]:
        return (self.priors,)

    def __init__(self, priors: list[Prior]) -> None:
        for i, prior in enumerate(self.priors):
            if hasattr(prior, "key"):
                prior.key = f"{prior.key}_{i}"

    def initialize(self, params: Iterable[Tensor]) -> State:
        """Return what all keep."""
        params = list(params)
        state: State = defaultdict(dict)
        for prior in self.priors:
            for param, own in prior.initialize(params).items():
                state[param].update(own)
        return state

    def grad(self, param: Tensor, state: dict[str, Any]) -> Tensor:
        """Return the sum of all gradients."""
        return torch.stack([prior.grad(param, state) for prior in self.priors]).sum(0)

    def distance_sq(
        self, param: Tensor, state: dict[str, Any], scale: float | Tensor = 1.0
    ) -> Tensor:
        """Return the squared distance from the last prior's center."""
        found: Tensor = self.priors[-1].distance_sq(param, state, scale)
        return found

    def __getattr__(self, name: str) -> Any:
        if name == "priors":  # not there yet: while copied
            raise AttributeError(name)
        return getattr(self.priors[-1], name)

    def __repr__(self) -> str:
        return f"CompositePrior({self.priors})"


class Pull(NamedTuple):
    """What a prior amounts to in a step.

    Attributes
    ----------
    localization : gamma of the pull towards the centers
    weight_decay : lambda of the pull towards zero
    centers : of each parameter; None without localization
    own : priors with a gradient of their own, which is no such pull
    """

    localization: float
    weight_decay: float
    centers: list[Tensor] | None
    own: list[Any]


def pull(prior: Any, state: State, params: list[Tensor]) -> Pull:
    r"""Return the one pull that Gaussian priors amount to, with their centers from `state`.

    :math:`\sum_i \gamma_i (w - c_i) = \Gamma (w - \bar c)` with :math:`\Gamma = \sum_i \gamma_i`
    and the mean center weighted by the precisions.

    Examples
    --------
    >>> w = torch.ones(1)
    >>> prior = CompositePrior([GaussianPrior(1.0, center=None), GaussianPrior(2.0)])
    >>> pull(prior, prior.initialize([w]), [w])[:2]
    (2.0, 1.0)
    """
    gradient = getattr(type(prior), "grad", None)
    priors = prior.priors if gradient is CompositePrior.grad else [prior]
    decay, centered, own = 0.0, [], []
    for each in priors:
        if each is None or type(each).grad is UniformPrior.grad:
            continue
        if type(each).grad is not GaussianPrior.grad:
            own.append(each)
        elif each.center is None or isinstance(each.center, Real):
            decay += each.localization
        else:
            centered.append(each)
    gamma = sum(float(each.localization) for each in centered)
    if gamma == 0:
        return Pull(0.0, decay, None, own)
    if len(centered) == 1:
        return Pull(gamma, decay, [state[p][centered[0].key] for p in params], own)
    weights = [each.localization / gamma for each in centered]
    centers = [
        torch.stack(
            [weight * state[p][each.key] for weight, each in zip(weights, centered, strict=True)]
        ).sum(0)
        for p in params
    ]
    return Pull(gamma, decay, centers, own)


def as_prior(given: Any, localization: float | None, arguments: dict[str, Any]) -> Prior | None:
    """Return the prior given, or the Gaussian that its center or precision ask for.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> as_prior(None, 2.0, {})
    GaussianPrior(localization=2.0, center=initial)
    """
    if isinstance(given, Prior):
        return given
    if given is None and not localization:
        return None
    if isinstance(given, (int, float)):
        return GaussianPrior(**{"localization": float(given), **arguments})
    if given is None or isinstance(given, Iterable):
        center = "initial" if given is None else given
        return GaussianPrior(**{"localization": localization or 1.0, "center": center, **arguments})
    raise ValueError(f"prior must be a Prior, a center or a precision, got {type(given).__name__}")
