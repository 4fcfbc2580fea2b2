"""Langevin dynamics with momentum: friction, a splitting of it, or a thermostat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from fastllc import _core
from fastllc.kernels import Setting
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.settings import Common, check_range, common_setting

__all__ = ["BAOAB", "SGHMC", "SGNHT"]


class Frictional(Sampler):
    """Base of the samplers whose momentum loses a fixed share, ``friction``, in a step."""

    state_names = ("momentum",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        friction: float = 0.1,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, {"lr": lr, "friction": friction}, common)

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        friction = check_range("friction", group["friction"], 0, above=True)
        if friction > 1:
            raise ValueError(f"friction must be > 0 and <= 1, got {friction}")
        return common_setting(group, friction=friction)


class SGHMC(Frictional):
    r"""Stochastic gradient Hamiltonian Monte Carlo: Langevin dynamics with momentum and friction.

    .. math::
        m &\leftarrow (1 - \alpha)\,m - \frac{\epsilon}{2}\left(n\beta\,\nabla L(w)
        + \gamma\,(w - w_0) + \lambda\,w\right) + \sqrt{\alpha\,\epsilon}\,\sigma\,z, \\
        w &\leftarrow w + m, \qquad z \sim N(0, 1),

    with the momentum in units of displacement, drawn from :math:`N(0, \sigma^2\epsilon/2)` at the
    start. With friction :math:`\alpha = 1` it is `SGLD`; a smaller one lets the chain run on for
    some :math:`1/\alpha` steps. At a wall of the box the weight stops and its momentum turns round.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Step size epsilon >= 0, that of `SGLD`; twice the eta of the paper.
    friction : float
        alpha in (0, 1], the share of the momentum that is lost in a step.
    **common
        nbeta, localization, weight_decay, noise_level, bounding_box_size, mask, rounding,
        save_metrics, sketch_dim, sketch_seed, seed: see `Common`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Chen, Fox & Guestrin (2014), Stochastic gradient Hamiltonian Monte Carlo, ICML, equation 15.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(2, requires_grad=True)
    >>> sampler = SGHMC([w], lr=1e-3, friction=0.2, nbeta=10.0, seed=0)
    >>> w.square().sum().backward()
    >>> sampler.step()
    >>> bool((w == sampler.state[w]["momentum"]).all())
    True
    """

    rule = _core.Rule.sghmc

    @classmethod
    def scales(cls, setting: Setting) -> tuple[float, float]:
        """Return what multiplies drift and standard normal in a step."""
        return 0.5 * setting.lr, math.sqrt(setting.friction * setting.lr) * setting.noise_level


class BAOAB(Frictional):
    r"""Underdamped Langevin dynamics by the BAOAB splitting: no step-size bias on quadratics.

    .. math::
        m &\leftarrow m - \epsilon\left(n\beta\,\nabla L(w) + \gamma\,(w - w_0)
        + \lambda\,w\right), \qquad w \leftarrow w + \tfrac12 m, \\
        m &\leftarrow (1 - \alpha)\,m + \sqrt{\alpha(2 - \alpha)\epsilon}\,\sigma\,z,
        \qquad w \leftarrow w + \tfrac12 m, \qquad z \sim N(0, 1),

    with the momentum in units of displacement, drawn from :math:`N(0, \sigma^2\epsilon)` at the
    start. The two half kicks of neighbouring steps are one, since they use the same gradient; the
    weights are those of BAOAB. With exact gradients of a quadratic loss the law of the weights is
    exactly the posterior's for every stable step size, :math:`\epsilon` times the curvature of U
    below 4. Elsewhere the bias is of the order of epsilon, the square of the time step. Noise in
    the gradients heats it as it does the others. At a wall of the box the weight
    stops and its momentum turns round.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Squared time step epsilon >= 0: momenta have this variance. Without the 1/2 of `SGLD`.
    friction : float
        alpha in (0, 1], the share of the momentum that is lost in a step; 1 - exp(-gamma h) for
        friction gamma and time step h.
    **common
        nbeta, localization, weight_decay, noise_level, bounding_box_size, mask, rounding,
        save_metrics, sketch_dim, sketch_seed, seed: see `Common`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Leimkuhler & Matthews (2013), Rational construction of stochastic numerical methods for
    molecular sampling, Applied Mathematics Research eXpress.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(10_000, requires_grad=True)
    >>> sampler = BAOAB([w], lr=0.2, friction=0.5, nbeta=10.0, seed=0)
    >>> for _ in range(50):
    ...     sampler.zero_grad()
    ...     (0.5 * w.square().sum()).backward()
    ...     sampler.step()
    >>> abs(w.var().item() - 0.1) < 0.01
    True
    """

    rule = _core.Rule.baoab

    @classmethod
    def scales(cls, setting: Setting) -> tuple[float, float]:
        """Return what multiplies drift and standard normal in a step."""
        variance = setting.friction * (2 - setting.friction) * setting.lr
        return setting.lr, math.sqrt(variance) * setting.noise_level


class SGNHT(Sampler):
    r"""Stochastic gradient Nose-Hoover thermostat: momentum whose friction holds its temperature.

    .. math::
        m &\leftarrow (1 - \xi)\,m - \epsilon\left(n\beta\,\nabla L(w) + \gamma\,(w - w_0)
        + \lambda\,w\right) + \sqrt{2 A \epsilon}\,\sigma\,z, \\
        w &\leftarrow w + m, \qquad
        \xi \leftarrow \xi + \epsilon\left(\frac{\|m\|^2}{\epsilon\,d} - 1\right),
        \qquad z \sim N(0, 1),

    with the momentum in units of displacement, :math:`N(0, \sigma^2\epsilon)` at the start, and
    :math:`\xi = A` at the start. d is the number of weights that are updated. There is one
    thermostat for all groups; where their step sizes differ, each momentum counts relative to its
    own, and the mean step size moves the thermostat. The heat of noisy gradients is taken out by a
    larger xi, so that the temperature stays right without knowing how noisy they are. At a wall of
    the box the weight stops and its momentum turns round. ``noise_level`` other than 1 only changes
    how much of the heat is injected: the thermostat restores the temperature.

    Its friction is one of each step, and does not shrink with epsilon: as :math:`\epsilon \to 0`
    with A fixed the posterior's :math:`E[w\,U'(w)] = 1` becomes :math:`1 - \xi/2`, and learning
    coefficients are too small by that share: 0.5 % with A = 0.01, more where gradients are noisy.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Step size epsilon >= 0: momenta have this variance. Without the 1/2 of `SGLD`, as usual for
        this sampler.
    diffusion_factor : float
        A > 0, the friction that balances the injected noise; the same for all groups.
    **common
        nbeta, localization, weight_decay, noise_level, bounding_box_size, mask, rounding,
        save_metrics, sketch_dim, sketch_seed, seed: see `Common`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Ding et al. (2014), Bayesian sampling using stochastic gradient thermostats, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(2, requires_grad=True)
    >>> sampler = SGNHT([w], lr=1e-3, nbeta=10.0, seed=0)
    >>> w.square().sum().backward()
    >>> sampler.step()
    >>> sampler.thermostat == 0.01
    False
    """

    rule = _core.Rule.sgnht
    state_names = ("momentum",)
    shared_names = ("diffusion_factor", "thermostat")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        diffusion_factor: float = 0.01,
        **common: Unpack[Common],
    ) -> None:
        # The thermostat starts at the diffusion factor, which the first group may bring.
        own = {"lr": lr, "diffusion_factor": diffusion_factor, "thermostat": None}
        super().__init__(params, own, common)

    @property
    def thermostat(self) -> float:
        """The friction xi after the last step; on a CUDA device this waits for it."""
        self._settle()
        group = self.param_groups[0]
        found: float | None = group["thermostat"]
        return self.setting(group).friction if found is None else found

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        return common_setting(
            group,
            friction=check_range("diffusion_factor", group["diffusion_factor"], 0, above=True),
        )

    @classmethod
    def scales(cls, setting: Setting) -> tuple[float, float]:
        """Return what multiplies drift and standard normal in a step."""
        return setting.lr, math.sqrt(2 * setting.friction * setting.lr) * setting.noise_level
