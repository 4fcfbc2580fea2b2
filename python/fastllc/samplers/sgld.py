"""Stochastic gradient Langevin dynamics."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from fastllc.samplers.sampler import Sampler

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
        Parameters, or groups of them; float32 or float64.
    lr : float or Tensor
        Step size epsilon >= 0.
    noise_level : float
        sigma >= 0; other than 1 the samples are not those of the posterior.
    weight_decay : float
        lambda >= 0.
    localization : float
        gamma >= 0.
    nbeta : float
        Inverse temperature n beta >= 0, which multiplies the gradient of the mean loss.
    bounding_box_size : float, optional
        Half the side of the box around w0, > 0.
    save_metrics : bool
        Whether each step also keeps what `get_metrics` returns.
    seed : int, optional
        Key of the noise, in [0, 2**64): all noise follows from it and the step. Without it the key
        is drawn from torch's CPU generator at the first step.

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

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        *,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        save_metrics: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "noise_level": noise_level,
                "weight_decay": weight_decay,
                "localization": localization,
                "nbeta": nbeta,
                "bounding_box_size": bounding_box_size,
                "save_metrics": save_metrics,
                "seed": seed,
            },
        )
