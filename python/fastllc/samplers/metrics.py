"""What a step was made of: norms and dot products of its components."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.kernels import Setting, on_device, send

__all__ = ["Metrics", "Part", "metrics_of", "metrics_of_sums"]


class Metrics(NamedTuple):
    """Components of the last step; each a 0-d float64 tensor, the last one int64.

    Those of parameters on a CUDA device are there too: nothing has waited for it.

    All are sums over the elements that are updated. With b = nbeta, gamma = localization and
    lambda = weight_decay, G the preconditioner (1 without), and s and r the sampler's factors of
    drift and noise (eps/2 and sqrt(eps) sigma with eps = lr, except for `SGHMC` and `SGNHT`):

    Attributes
    ----------
    scaled_grad : ||s G b grad||; for `AdamSGLD` with the mean gradient
    unscaled_grad : ||s b grad||
    localization : ||s G gamma (w - w0)||
    weight_decay : ||s G lambda w||
    noise : ||r sqrt(G) z||
    distance : ||w - w0||, before the step
    dot_grad_prior : <scaled_grad, localization + weight_decay>
    dot_grad_noise : <scaled_grad, noise>
    dot_prior_noise : <localization + weight_decay, noise>
    weight_norm : ||w||, before the step
    virial : <w - w0, b grad>; its mean over the posterior of exp(-b L) with a homogeneous L of
        degree k is k lambda_LLC
    nonfinite : number of weights that are NaN or infinite after the step

    Without momentum the step is ``w += -(scaled_grad + localization + weight_decay) + noise``;
    with momentum, that is what is added to the momentum, and it is counted where it is added.

    Examples
    --------
    >>> Metrics._fields[:2]
    ('scaled_grad', 'unscaled_grad')
    """

    scaled_grad: Tensor
    unscaled_grad: Tensor
    localization: Tensor
    weight_decay: Tensor
    noise: Tensor
    distance: Tensor
    dot_grad_prior: Tensor
    dot_grad_noise: Tensor
    dot_prior_noise: Tensor
    weight_norm: Tensor
    virial: Tensor
    nonfinite: Tensor


class Part(NamedTuple):
    """What a step summed over one tensor.

    Attributes
    ----------
    moments : Tensor or array of float64, shape [13], in the order of ``_core.MOMENTS``
    nonfinite : number of weights that are NaN or infinite; both on a device if one is
    setting : the settings under which it was summed
    drift, noise : the factors s and r of `Metrics`
    """

    moments: Tensor | NDArray[np.float64]
    nonfinite: int | np.int64 | Tensor
    setting: Setting
    drift: float
    noise: float


def metrics_of(parts: Iterable[Part]) -> Metrics:
    """Put together what was summed over tensors.

    Examples
    --------
    >>> moments = torch.tensor([9.0] + [0.0] * 6 + [9.0] + [0.0] * 5)
    >>> metrics_of([Part(moments, 0, Setting(2.0), drift=1.0, noise=0.0)]).scaled_grad
    tensor(3., dtype=torch.float64)
    """
    parts = list(parts)
    if not parts:
        return metrics_of_sums(np.zeros((0, 13)), np.zeros(0, np.int64), *np.zeros((5, 0)))
    factors = np.array(
        [
            [p.setting.nbeta, p.setting.localization, p.setting.weight_decay, p.drift, p.noise]
            for p in parts
        ]
    ).T
    first = parts[0].moments
    if isinstance(first, Tensor) and on_device(first):
        rows: Any = [part.moments for part in parts]
        counts: Any = [part.nonfinite for part in parts]
        return metrics_of_sums(torch.stack(rows), torch.stack(counts), *send(factors, first.device))
    moments = np.array([np.asarray(part.moments) for part in parts])
    return metrics_of_sums(moments, np.array([part.nonfinite for part in parts]), *factors)


Floats: TypeAlias = "NDArray[np.float64] | Tensor"


def metrics_of_sums(
    moments: Floats,
    nonfinite: NDArray[np.int64] | Tensor,
    nbeta: Floats,
    localization: Floats,
    weight_decay: Floats,
    drift: Floats,
    noise: Floats,
) -> Metrics:
    """Put together what was summed over tensors, for many chains at once.

    Parameters
    ----------
    moments : ndarray or Tensor, shape [..., tensors, 13]
        In the order of ``_core.MOMENTS``.
    nonfinite, nbeta, localization, weight_decay, drift, noise : the same, shape [..., tensors]
        Counts, settings, and the factors s and r of `Metrics`.

    Returns
    -------
    Metrics
        Each of shape [...].

    Examples
    --------
    >>> one = np.ones(1)
    >>> metrics_of_sums(np.full((1, 13), 4.0), np.zeros(1, int), *[one] * 5).distance
    tensor(2., dtype=torch.float64)
    """
    aa, pp, nn, ap, an, pn, ww, gg, dd, gd, ac, cn, cc = (moments[..., i] for i in range(13))
    g, d, w, z = drift * nbeta, drift * localization, drift * weight_decay, noise
    norms = [g * g * aa, g * g * gg, d * d * pp, w * w * cc, z * z * nn, dd, ww]
    dots = [g * (d * ap + w * ac), g * z * an, z * (d * pn + w * cn), nbeta * gd]
    xp: Any = torch if isinstance(moments, Tensor) else np
    roots, sums = xp.sqrt(xp.stack(norms).sum(-1)), xp.stack(dots).sum(-1)
    values = xp.concatenate([roots[:6], sums[:3], roots[6:], sums[3:]])
    return Metrics._make([*_tensor(values), _tensor(nonfinite.sum(-1))])


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
