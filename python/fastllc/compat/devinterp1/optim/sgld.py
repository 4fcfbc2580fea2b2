"""SGLD with the arguments of devinterp 1."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from fastllc.compat.devinterp1.optim.telling import Part, Telling, norm, warn_nbeta
from fastllc.samplers.sgld import SGLD as Fused

__all__ = ["SGLD"]

_NORMS = ("noise_norm", "grad_norm", "weight_norm", "distance")


class SGLD(Telling, Fused):
    r"""`fastllc.SGLD` that also tells of its steps.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them with settings of their own.
    lr, noise_level, weight_decay, localization, nbeta, bounding_box_size : float
        As in `fastllc.SGLD`; ``bounding_box_size`` 0 or None is none.
    save_noise : bool
        Whether ``noise`` holds the noise of each parameter, by group.
    save_mala_vars : bool
        Whether ``dws`` holds all drifts, and ``localization_loss`` half localization times the
        squared distance.
    optimize_over : Tensor, optional
        1 where a weight is sampled; a setting of groups, too.
    noise_norm, grad_norm, weight_norm, distance : bool
        Whether groups and the attributes of these names hold norms of the noise, of lr/2 nbeta
        times the gradient, of the new weights, and of w - w0: times localization without
        ``save_mala_vars``.
    temperature : float, optional
        An older name of nbeta.
    metrics : list of str, optional
        The same by name: "noise", "dws", "localization_loss" and the norms.

    Warns
    -----
    DeprecationWarning
        As devinterp 1 does; `SGMCMC.sgld` is the newer name.

    Examples
    --------
    >>> w = torch.zeros(2, requires_grad=True)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     sampler = SGLD([w], lr=0.01, nbeta=10.0, noise_level=0.0, grad_norm=True)
    >>> w.sum().backward()
    >>> sampler.step()
    >>> round(sampler.grad_norm.item(), 4)
    0.0707
    """

    tellable = frozenset(("noise", "dws", "localization_loss", *_NORMS))
    noise: dict[int, list[Tensor]] | None = None
    dws: list[Tensor]
    localization_loss: Tensor

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        save_noise: bool = False,
        save_mala_vars: bool = False,
        optimize_over: Tensor | None = None,
        noise_norm: bool = False,
        grad_norm: bool = False,
        weight_norm: bool = False,
        distance: bool = False,
        temperature: float | None = None,
        metrics: list[str] | None = None,
    ) -> None:
        warnings.warn(
            "SGLD has been deprecated. SGMCMC.sgld is its newer name.", DeprecationWarning, 2
        )
        if temperature is not None:
            nbeta = temperature
            warnings.warn("Temperature is deprecated: its name is nbeta.", stacklevel=2)
        if noise_level != 1.0:
            warnings.warn("noise_level other than 1 does not sample the posterior", stacklevel=2)
        if message := warn_nbeta(nbeta):
            warnings.warn(message, stacklevel=2)
        self._over = optimize_over
        super().__init__(
            params,
            lr,
            noise_level=noise_level,
            weight_decay=weight_decay,
            localization=localization,
            nbeta=nbeta,
            bounding_box_size=bounding_box_size or None,
        )
        flags = {
            "noise": save_noise,
            "dws": save_mala_vars,
            "localization_loss": save_mala_vars,
            "noise_norm": noise_norm,
            "grad_norm": grad_norm,
            "weight_norm": weight_norm,
            "distance": distance,
        }
        self.tell([*(name for name, asked in flags.items() if asked), *(metrics or ())])

    def tell(self, names: Iterable[str]) -> None:
        """Keep these from now on; groups hold the norms."""
        super().tell(names)
        for group in self.param_groups:
            for name in _NORMS:
                group[name] = torch.zeros(()) if name in self.told else False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with the ``optimize_over`` of all unless it has its own."""
        if self._over is not None:
            param_group = {"optimize_over": self._over, **param_group}
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if self.state[param]["initial_param"] is None:
                self.state[param]["initial_param"] = param.detach().clone()

    def tell_before(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        """Keep drifts, distances and the norm of the gradient."""
        if index == 0:
            self.dws, self.localization_loss = [], torch.zeros(())
        self.dws += [part.drift for part in parts]
        scale, aways = group["localization"], [part.distance for part in parts]
        if self.told & {"dws", "localization_loss"}:
            scale, aways = 1.0, [part.masked(part.distance) for part in parts]
            for away in aways:
                squares = away.square()
                total = squares.reshape(len(squares), -1).sum(1) if self.stacked else squares.sum()
                self.localization_loss = self.localization_loss + group["localization"] / 2 * total
        if "distance" in self.told:
            group["distance"] = scale * norm(aways)
        if "grad_norm" in self.told:
            scale = 0.5 * group["lr"] * group["nbeta"]
            group["grad_norm"] = scale * norm(part.param.grad for part in parts)

    def tell_after(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        """Keep the noise and the norms of noise and weights."""
        if self.told & {"noise", "noise_norm"}:
            noises = self.noises(group, parts)
            if index == 0:
                self.noise = defaultdict(list)
            if "noise" in self.told and self.noise is not None:
                self.noise[index] = noises
            if "noise_norm" in self.told:
                group["noise_norm"] = norm(
                    part.masked(z) for part, z in zip(parts, noises, strict=True)
                )
        if "weight_norm" in self.told:
            group["weight_norm"] = norm(group["params"])

    def __getattr__(self, name: str) -> Any:
        groups = self.__dict__.get("param_groups")
        if groups and groups[0].get(name, False) is not False:
            return groups[0][name]
        raise AttributeError(f"'SGLD' object has no tracked metric '{name}'")
