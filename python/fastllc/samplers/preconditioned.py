"""Langevin dynamics in a metric learned from the gradients: RMSprop and Adam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from fastllc import _core
from fastllc.checks import check_int
from fastllc.kernels import Setting
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.settings import Common, check_range, common_setting

__all__ = ["AdamSGLD", "RMSpropSGLD"]


def _adapt_steps(group: Mapping[str, Any]) -> float:
    steps = group["adapt_steps"]
    return math.inf if steps is None else float(check_int("adapt_steps", steps, 53))


class RMSpropSGLD(Sampler):
    r"""Langevin dynamics preconditioned by the running mean square of the loss gradient.

    .. math::
        v &\leftarrow \alpha v + (1 - \alpha)\,\nabla L(w)^2, \qquad
        G = \frac{1}{\sqrt{\hat v} + \delta}, \\
        w &\leftarrow w - \frac{\epsilon}{2}\,G\left(n\beta\,\nabla L(w) + \gamma\,(w - w_0)
        + \lambda\,w\right) + \sqrt{\epsilon\,G}\,\sigma\,z, \qquad z \sim N(0, 1),

    all elementwise, then clamped to the box. Two conventions are published: "paper" (2507.21449)
    starts with v = 1 and corrects its bias, :math:`\hat v = v / (1 - \alpha^t)`; "devinterp" starts
    with v = 0 and takes :math:`\hat v = v`.

    **While G adapts, the posterior is not what is sampled**: the term that the changing G asks for
    is left out, by both conventions, and as :math:`\epsilon \to 0` the law tends to
    :math:`\exp(-U)/G`. On :math:`L = w^2/2` with :math:`n\beta = 100` that gives 0.722 for a
    learning coefficient of 0.5. With ``adapt_steps``, G is frozen after so many steps, and what
    follows samples the posterior. Let burn-in outlast it.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Step size epsilon >= 0.
    alpha : float
        Decay of the mean square, in [0, 1).
    eps : float
        delta > 0, what is added to the root.
    convention : {"paper", "devinterp"}
        How v starts; see above.
    adapt_steps : int, optional
        Number of steps after which v stays as it is; None: never.
    **common
        nbeta, localization, weight_decay, noise_level, bounding_box_size, mask, rounding,
        save_metrics, sketch_dim, sketch_seed, seed: see `Common`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Li, Chen, Carlson & Carin (2016), Preconditioned stochastic gradient Langevin dynamics, AAAI.
    Hitchcock & Hoogland (2025), arXiv:2507.21449.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(2, requires_grad=True)
    >>> sampler = RMSpropSGLD([w], lr=1e-3, nbeta=10.0, adapt_steps=100, seed=0)
    >>> w.square().sum().backward()
    >>> sampler.step()
    >>> sampler.state[w]["square_avg"]
    tensor([0.9900, 0.9900])
    """

    rule = _core.Rule.rmsprop
    state_names = ("square_avg",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 0.1,
        convention: str = "paper",
        adapt_steps: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        own = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "convention": convention,
            "adapt_steps": adapt_steps,
        }
        super().__init__(params, own, common)

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        if group["convention"] not in ("paper", "devinterp"):
            raise ValueError(
                f"convention must be 'paper' or 'devinterp', got {group['convention']!r}"
            )
        paper = float(group["convention"] == "paper")
        return common_setting(
            group,
            alpha=check_range("alpha", group["alpha"], 0, 1),
            eps=check_range("eps", group["eps"], 0, above=True),
            start=paper,
            corrected=paper,
            adapt_steps=_adapt_steps(group),
        )


class AdamSGLD(Sampler):
    r"""Preconditioned Langevin dynamics with the running mean of the gradient as drift.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1)\,\nabla L(w), \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2)\,\nabla L(w)^2, \qquad
        G = \frac{1}{\sqrt{\hat v} + \delta}, \\
        w &\leftarrow w - \frac{\epsilon}{2}\,G\left(n\beta\,\hat m + \gamma\,(w - w_0)
        + \lambda\,w\right) + \sqrt{\epsilon\,G}\,\sigma\,z, \qquad z \sim N(0, 1),

    with :math:`m = 0` and :math:`v = 1` at the start and :math:`\hat m = m / (1 - \beta_1^t)`,
    :math:`\hat v = v / (1 - \beta_2^t)`; then clamped to the box. What `RMSpropSGLD` says about G
    and ``adapt_steps`` holds here too. The mean gradient never stops following: it lags by
    :math:`\beta_1/(1 - \beta_1)` steps, which makes the bias of a step size
    :math:`(1 + \beta_1)/(1 - \beta_1)` times that of `RMSpropSGLD`, 19 times by default.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Step size epsilon >= 0.
    betas : (float, float)
        Decays of the mean and the mean square, each in [0, 1).
    eps : float
        delta > 0, what is added to the root.
    adapt_steps : int, optional
        Number of steps after which v stays as it is; None: never.
    **common
        nbeta, localization, weight_decay, noise_level, bounding_box_size, mask, rounding,
        save_metrics, sketch_dim, sketch_seed, seed: see `Common`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Hitchcock & Hoogland (2025), arXiv:2507.21449.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(2, requires_grad=True)
    >>> sampler = AdamSGLD([w], lr=1e-3, nbeta=10.0, adapt_steps=100, seed=0)
    >>> (3 * w.sum()).backward()
    >>> sampler.step()
    >>> sampler.state[w]["momentum"]
    tensor([0.3000, 0.3000])
    """

    rule = _core.Rule.adam
    state_names = ("momentum", "square_avg")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 0.1,
        adapt_steps: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps, "adapt_steps": adapt_steps}
        super().__init__(params, own, common)

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas must be two numbers, got {betas!r}")
        return common_setting(
            group,
            beta=check_range("betas[0]", betas[0], 0, 1),
            alpha=check_range("betas[1]", betas[1], 0, 1),
            eps=check_range("eps", group["eps"], 0, above=True),
            start=1.0,
            corrected=1.0,
            adapt_steps=_adapt_steps(group),
        )
