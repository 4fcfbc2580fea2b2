"""SGNHT with the arguments of devinterp 1."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch.optim.optimizer import ParamsT

from fastllc.compat.devinterp1.optim.telling import Telling, warn_nbeta
from fastllc.kernels import Setting
from fastllc.samplers import momentum

__all__ = ["SGNHT", "Thermostat"]


class Thermostat(Telling, momentum.SGNHT):
    """`fastllc.SGNHT`, also without noise: then the thermostat alone holds the temperature.

    Examples
    --------
    >>> import torch
    >>> Thermostat([torch.zeros(1)], diffusion_factor=0.0).thermostat
    0.0
    """

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        if group["diffusion_factor"] == 0:
            return super().setting({**group, "diffusion_factor": 1.0})._replace(friction=0.0)
        return super().setting(group)


class SGNHT(Thermostat):
    """`fastllc.SGNHT`.

    Parameters
    ----------
    params : iterable of Tensor, or of dict
        Parameters, or groups of them with settings of their own.
    lr, diffusion_factor, bounding_box_size, nbeta : float
        As in `fastllc.SGNHT`; ``bounding_box_size`` 0 or None is none.
    save_noise, save_mala_vars, metrics
        Warned of: nothing is told of a step.

    Warns
    -----
    DeprecationWarning
        As devinterp 1 does; `SGMCMC.sgnht` is the newer name.

    Examples
    --------
    >>> import torch
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     sampler = SGNHT([torch.zeros(2)], lr=0.01, nbeta=10.0)
    >>> sampler.thermostat
    0.01
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        bounding_box_size: float | None = None,
        save_noise: bool = False,
        save_mala_vars: bool = False,
        nbeta: float = 1.0,
        metrics: list[str] | None = None,
    ) -> None:
        warnings.warn(
            "SGNHT has been deprecated. SGMCMC.sgnht is its newer name.", DeprecationWarning, 2
        )
        told = {"noise": save_noise, "dws": save_mala_vars, "localization_loss": save_mala_vars}
        if unknown := set(metrics or ()) - told.keys():
            raise ValueError(
                f"Invalid metrics: {sorted(unknown)}. Valid metrics are: {sorted(told)}"
            )
        asked = {name for name, flag in told.items() if flag}.union(metrics or ())
        if "noise" in asked:
            warnings.warn("NoiseNorm not implemented for SGNHT: SGLD has it", stacklevel=2)
        if asked - {"noise"}:
            warnings.warn("MALA not implemented for SGNHT: SGLD has it", stacklevel=2)
        if message := warn_nbeta(nbeta):
            warnings.warn(message, stacklevel=2)
        super().__init__(
            params,
            lr,
            diffusion_factor=diffusion_factor,
            nbeta=nbeta,
            bounding_box_size=bounding_box_size or None,
        )
