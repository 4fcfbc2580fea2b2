"""Stochastic gradient Langevin dynamics."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from fastllc import _core
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.settings import Common

__all__ = ["SGLD"]


class SGLD(Sampler):
    r"""Stochastic gradient Langevin dynamics around a point, one fused pass over memory a step.

    .. math::
        w \leftarrow w - \frac{\epsilon}{2}\left(n\beta\,\nabla L(w) + \gamma\,(w - w_0)
        + \lambda\,w\right) + \sqrt{\epsilon}\,\sigma\,z, \qquad z \sim N(0, 1),

    then clamped to :math:`w_0 \pm` ``bounding_box_size`` if that is given. As
    :math:`\epsilon \to 0` it samples :math:`\exp(-n\beta L(w) - \frac{\gamma}{2}\|w-w_0\|^2 -
    \frac{\lambda}{2}\|w\|^2)`. :math:`w_0` is where the parameters are when they are handed over.

    It is a `torch.optim.Optimizer`: groups may have settings of their own, and schedulers, hooks
    and state dicts work as usual. It is not traced by ``torch.compile``.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Parameters, or groups of them; float32, float64, bfloat16 or float16.
    lr : float or Tensor
        Step size epsilon >= 0.
    **common
        nbeta, localization, weight_decay, noise_level, bounding_box_size, mask, rounding,
        save_metrics, sketch_dim, sketch_seed, seed: see `Common`.

    Raises
    ------
    TypeError, ValueError
        If a setting is out of range or a parameter cannot be sampled.

    References
    ----------
    Welling & Teh (2011), Bayesian learning via stochastic gradient Langevin dynamics, ICML.
    Lau et al. (2023), The local learning coefficient, arXiv:2308.12108, section 4.

    Examples
    --------
    >>> import torch
    >>> w = torch.zeros(2, requires_grad=True)
    >>> sampler = SGLD([w], lr=1e-3, nbeta=10.0, localization=1.0, seed=0)
    >>> for _ in range(3):
    ...     sampler.zero_grad()
    ...     (0.5 * w.square().sum()).backward()
    ...     sampler.step()
    >>> w.detach().abs().max() < 0.3
    tensor(True)
    """

    rule = _core.Rule.sgld

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.01, **common: Unpack[Common]
    ) -> None:
        super().__init__(params, {"lr": lr}, common)
