"""The sampler of devinterp 1 with priors and preconditioners, as the fused one it amounts to."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from fastllc.compat.devinterp1.optim.preconditioner import (
    IdentityPreconditioner,
    MaskPreconditioner,
    NHTPreconditioning,
    Preconditioner,
    RMSpropPreconditioner,
    as_preconditioner,
    split,
)
from fastllc.compat.devinterp1.optim.prior import (
    CompositePrior,
    GaussianPrior,
    Prior,
    as_prior,
    pull,
)
from fastllc.compat.devinterp1.optim.sgnht import Thermostat
from fastllc.compat.devinterp1.optim.telling import Part, Telling, masks_of, norm, warn_nbeta
from fastllc.kernels import Setting
from fastllc.samplers import preconditioned, sgld
from fastllc.samplers.advance import Outcome

__all__ = ["SGMCMC", "SamplingMethodLiteral"]

SamplingMethodLiteral = Literal["sgld", "rmsprop_sgld", "sgnht"]


class SGMCMC(Telling):
    """Langevin dynamics with a prior and a preconditioner, which decide the fused sampler.

    Without a preconditioner it is `fastllc.SGLD`, with that of RMSprop `fastllc.RMSpropSGLD`
    (convention "devinterp"), with a thermostat `fastllc.SGNHT`, momentum and all. Gaussian priors
    become ``localization`` and ``weight_decay`` of the groups; the gradient of one of one's own,
    over nbeta, is added to the loss gradients for the time of the step.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them with settings of their own.
    lr, noise_level, nbeta, bounding_box_size : float
        As in `fastllc.SGLD`.
    prior : Prior, "initial", iterable of Tensor, or float, optional
        A prior; or the center, or the precision, of a `GaussianPrior`.
    prior_kwargs : dict, optional
        Further arguments of that prior.
    localization : float, optional
        Its precision.
    preconditioner : Preconditioner, "identity" or "rmsprop", optional
        Of one kind in all groups.
    preconditioner_kwargs : dict, optional
        Further arguments of it.
    optimize_over : Tensor or list of Tensor, optional
        1 where a weight is sampled: of all parameters of a group, or of each.
    metrics : list of str, optional
        What ``group["metrics"]`` holds after a step: "noise" and "dws" of each parameter, and
        "noise_norm", "grad_norm" (of lr/2 nbeta times the gradient), "weight_norm" (new weights),
        "distance" (from the prior's center) and "localization_loss".
    weight_decay : float
        Pull towards zero.

    Raises
    ------
    ValueError
        For metrics, a prior or a preconditioner that it does not know; and from a step with nbeta
        0 and a prior of one's own.
    NotImplementedError
        For preconditioners of classes of one's own. Beside RMSprop, for priors of one's own, whose
        gradient would enter the metric, and for ``weight_decay``, which it would not precondition:
        a `GaussianPrior` centered at None is.

    Examples
    --------
    >>> w = torch.zeros(2, requires_grad=True)
    >>> sampler = SGMCMC.rmsprop_sgld([w], lr=0.01, nbeta=10.0, metrics=["noise_norm"])
    >>> w.sum().backward()
    >>> sampler.step()
    >>> sampler.noise_norm > 0
    tensor(True)
    """

    tellable = frozenset(
        ("noise_norm", "grad_norm", "weight_norm", "distance", "noise", "dws", "localization_loss")
    )
    kind: ClassVar[type[Preconditioner]]

    def __new__(cls, *args: Any, **kwargs: Any) -> SGMCMC:
        """Make the fused sampler that the preconditioner asks for."""
        if cls is not SGMCMC:
            return super().__new__(cls)
        given = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs).arguments
        preconditioner = given.get("preconditioner"), given.get("preconditioner_kwargs")
        asked, _ = split(as_preconditioner(*preconditioner))
        for made in (_SGLD, _RMSprop, _SGNHT):
            if isinstance(asked, made.kind):
                return super().__new__(made)
        raise NotImplementedError(
            "preconditioner must be the identity, RMSprop, a thermostat or masks, which a fused "
            f"step knows, got {type(asked).__name__}"
        )

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        noise_level: float = 1.0,
        nbeta: float = 1.0,
        prior: Prior | Literal["initial"] | Iterable[Tensor] | float | None = None,
        prior_kwargs: dict[str, Any] | None = None,
        localization: float | None = None,
        preconditioner: Preconditioner | Literal["identity", "rmsprop"] | None = "identity",
        preconditioner_kwargs: dict[str, Any] | None = None,
        bounding_box_size: float | None = None,
        optimize_over: Any = None,
        metrics: list[str] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self._given = {
            "prior": prior,
            "prior_kwargs": prior_kwargs or {},
            "localization": localization,
            "preconditioner": as_preconditioner(preconditioner, preconditioner_kwargs),
            "optimize_over": optimize_over,
            "weight_decay": weight_decay,
        }
        given: Any = [params] if isinstance(params, (Tensor, dict)) else params
        settings: dict[str, Any] = {
            "lr": lr,
            **self.settings_of(split(self._given["preconditioner"])[0]),
            "noise_level": noise_level,
            "nbeta": nbeta,
            "bounding_box_size": bounding_box_size,
        }
        super().__init__(given, **settings)  # that of the fused sampler
        self.tell(metrics or ())

    @classmethod
    def settings_of(cls, preconditioner: Any) -> dict[str, Any]:
        """Return the group settings that a preconditioner of this kind stands for."""
        return {}

    def tell(self, names: Iterable[str]) -> None:
        """Keep these from now on; groups hold them."""
        super().tell(names)
        for group in self.param_groups:
            group["metrics"] = {
                name: [] if name in ("noise", "dws") else torch.zeros(()) for name in self.told
            }

    def reset_metrics(self) -> None:
        """Forget what is told of the last step."""
        self.tell(())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its prior is anchored where its parameters are now."""
        group = {**self._given, **param_group}
        params = group["params"]
        group["params"] = params = [params] if isinstance(params, Tensor) else list(params)
        tensors = [p[1] if isinstance(p, tuple) else p for p in params]
        preconditioner = as_preconditioner(
            group.pop("preconditioner"), group.pop("preconditioner_kwargs", None)
        )
        kind, masks = split(preconditioner)
        if not isinstance(kind, self.kind):
            raise ValueError(
                f"preconditioner must be of one kind in all groups, {self.kind.__name__}, "
                f"got {type(kind).__name__}"
            )
        group.update(self.settings_of(kind))
        prior = as_prior(group.pop("prior"), group["localization"], group.pop("prior_kwargs"))
        state = {} if prior is None else prior.initialize(tensors)
        amount = pull(prior, state, tensors)
        if group["weight_decay"] and self.kind is RMSpropPreconditioner:
            raise NotImplementedError("weight_decay must be 0 beside RMSprop: give a GaussianPrior")
        if amount.own and self.kind is RMSpropPreconditioner:
            raise NotImplementedError(
                "prior must be made of GaussianPrior and UniformPrior beside RMSprop, "
                f"got {type(amount.own[0]).__name__}"
            )
        group["localization"] = amount.localization
        group["weight_decay"] += amount.weight_decay
        if group["optimize_over"] is not None:
            masks.append(MaskPreconditioner(masks_of(group["optimize_over"], tensors)))
        if masks:
            group["optimize_over"] = [
                torch.stack([torch.as_tensor(m.masks[i]).expand(p.shape) for m in masks]).prod(0)
                for i, p in enumerate(tensors)
            ]
        super().add_param_group(group)
        group = self.param_groups[-1]
        group.update(prior=prior, preconditioner=preconditioner, metrics={}, own_priors=amount.own)
        for i, param in enumerate(tensors):
            own = self.state[param]
            own.update(state.get(param, {}), param_idx=i)
            if amount.centers is not None:
                self._center(own, amount.centers[i], boxed=group["bounding_box_size"] is not None)

    @staticmethod
    def _center(state: dict[str, Any], center: Tensor, *, boxed: bool) -> None:
        """Pull a parameter to the center of its prior."""
        if boxed and not torch.equal(center, state["w0"]):
            raise NotImplementedError(
                "bounding_box_size must be None with a prior that is centered elsewhere than the "
                "parameters are: both have one anchor"
            )
        state["w0"] = state["initial_param"] = center

    def _own_gradient(self, group: dict[str, Any], param: Tensor) -> Any:
        """Return the gradient of minus the log of the priors that the fused step does not know."""
        return sum(prior.grad(param.detach(), self.state[param]) for prior in group["own_priors"])

    def _advance(self, noise_generator: torch.Generator | None) -> tuple[int, Outcome | None]:
        """Take the fused step on loss gradients to which those of priors of one's own are added."""
        owners = [group for group in self.param_groups if group["own_priors"]]
        if not owners:
            return super()._advance(noise_generator)
        given = {p: p.grad for group in owners for p in group["params"] if p.grad is not None}
        try:
            with torch.no_grad():
                for group in owners:
                    if group["nbeta"] == 0:
                        raise ValueError(
                            "nbeta must be > 0 with a prior of one's own, which is added to the "
                            "loss over nbeta, got 0"
                        )
                    for param in group["params"]:
                        if param in given:
                            own = self._own_gradient(group, param)
                            param.grad = given[param] + own / group["nbeta"]
            return super()._advance(noise_generator)
        finally:
            for param, grad in given.items():
                param.grad = grad

    def tell_before(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        """Keep drifts, the norm of the gradient and the distance."""
        metrics, prior = group["metrics"], group["prior"]
        if "dws" in metrics:
            metrics["dws"] = [
                part.masked(part.drift + self._own_gradient(group, part.param)) for part in parts
            ]
        if "grad_norm" in metrics:
            scale = 0.5 * group["lr"] * group["nbeta"]
            metrics["grad_norm"] = scale * norm(part.param.grad for part in parts)
        if metrics.keys() & {"distance", "localization_loss"} and hasattr(prior, "distance_sq"):
            squared = sum(
                self.of_each(
                    partial(prior.distance_sq, state=self.state[p.param]), p.param.detach()
                )
                for p in parts
            )
            if "distance" in metrics:
                metrics["distance"] = torch.as_tensor(squared).sqrt()
            if "localization_loss" in metrics:
                metrics["localization_loss"] = prior.localization / 2 * squared

    def tell_after(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        """Keep the noise and the norms of noise and weights."""
        metrics = group["metrics"]
        if metrics.keys() & {"noise", "noise_norm"}:
            noises = self.noises(group, parts)
            noises = [part.masked(z) for part, z in zip(parts, noises, strict=True)]
            if "noise" in metrics:
                metrics["noise"] = noises
            if "noise_norm" in metrics:
                metrics["noise_norm"] = norm(noises)
        if "weight_norm" in metrics:
            metrics["weight_norm"] = norm(part.param for part in parts)

    @property
    def metrics(self) -> dict[str, Any]:
        """What the first group tells of the last step."""
        if len(self.param_groups) > 1:
            warnings.warn("metrics are those of the first of several groups", stacklevel=2)
        found: dict[str, Any] = self.param_groups[0]["metrics"]
        return found

    @property
    def tracked_metrics(self) -> set[str]:
        """The names of `metrics`."""
        return set(self.metrics)

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return next(self.get_params()).device

    def get_params(self) -> Iterator[Tensor]:
        """Yield all parameters."""
        for group in self.param_groups:
            yield from group["params"]

    def __getattr__(self, name: str) -> Any:
        groups = self.__dict__.get("param_groups") or [{}]
        if name in groups[0]:
            return groups[0][name]
        told = [group["metrics"][name] for group in groups if name in group.get("metrics", ())]
        if not told:
            raise AttributeError(f"'SGMCMC' object has no attribute '{name}'")
        # Those that belong to all parameters together; norms are of the first group.
        whole = name in ("noise", "dws", "localization_loss")
        return sum(told[1:], start=told[0]) if whole else told[0]

    @classmethod
    def sgld(
        cls,
        params: ParamsT,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        optimize_over: Any = None,
        metrics: list[str] | None = None,
    ) -> SGMCMC:
        """Make `fastllc.SGLD`, with the localization and weight decay of two Gaussian priors."""
        _warn(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=_gaussians(localization, weight_decay),
            bounding_box_size=bounding_box_size,
            optimize_over=optimize_over,
            metrics=metrics,
        )

    @classmethod
    def sgnht(
        cls,
        params: ParamsT,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        metrics: list[str] | None = None,
    ) -> SGMCMC:
        """Make `fastllc.SGNHT`."""
        _warn(1.0, nbeta)
        return cls(
            params,
            lr=lr,
            nbeta=nbeta,
            preconditioner=NHTPreconditioning(diffusion_factor),
            bounding_box_size=bounding_box_size,
            metrics=metrics,
        )

    @classmethod
    def rmsprop_sgld(
        cls,
        params: ParamsT,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        alpha: float = 0.99,
        eps: float = 0.1,
        add_grad_correction: bool = False,
        bounding_box_size: float | None = None,
        optimize_over: Any = None,
        metrics: list[str] | None = None,
    ) -> SGMCMC:
        """Make `fastllc.RMSpropSGLD`, whose metric starts at 1/eps and is not corrected."""
        _warn(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=_gaussians(localization, weight_decay),
            preconditioner=RMSpropPreconditioner(alpha, eps, add_grad_correction),
            bounding_box_size=bounding_box_size,
            optimize_over=optimize_over,
            metrics=metrics,
        )

    @classmethod
    def get_method(cls, method: SamplingMethodLiteral) -> Any:
        """Return the factory of that name."""
        if method not in ("sgld", "rmsprop_sgld", "sgnht"):
            raise ValueError(f"method must be 'sgld', 'rmsprop_sgld' or 'sgnht', got {method!r}")
        return getattr(cls, method)


class _SGLD(SGMCMC, sgld.SGLD):
    kind = IdentityPreconditioner


class _RMSprop(SGMCMC, preconditioned.RMSpropSGLD):
    kind = RMSpropPreconditioner

    @classmethod
    def settings_of(cls, preconditioner: RMSpropPreconditioner) -> dict[str, Any]:
        alpha, eps = preconditioner.alpha, preconditioner.eps
        return {"alpha": alpha, "eps": eps, "convention": "devinterp"}

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        if group["alpha"] == 1:  # which leaves the mean square at 0
            return super().setting({**group, "alpha": 0.0})._replace(alpha=1.0)
        return super().setting(group)

    def tell_after(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        super().tell_after(index, group, parts)
        if "dws" in group["metrics"]:
            group["metrics"]["dws"] = [
                dw / (self.state[part.param]["square_avg"].sqrt() + group["eps"])
                for dw, part in zip(group["metrics"]["dws"], parts, strict=True)
            ]


class _SGNHT(SGMCMC, Thermostat):
    kind = NHTPreconditioning

    @classmethod
    def settings_of(cls, preconditioner: NHTPreconditioning) -> dict[str, Any]:
        return {"diffusion_factor": preconditioner.diffusion_factor}


def _gaussians(localization: float, weight_decay: float) -> Prior:
    decay = [GaussianPrior(weight_decay, center=None)] if weight_decay > 0 else []
    found: Prior = CompositePrior([*decay, GaussianPrior(localization)])
    return found


def _warn(noise_level: float, nbeta: float) -> None:
    if noise_level != 1.0:
        warnings.warn("noise_level other than 1 does not sample the posterior", stacklevel=3)
    if message := warn_nbeta(nbeta):
        warnings.warn(message, stacklevel=3)
