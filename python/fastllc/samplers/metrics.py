"""What a step was made of: norms and dot products of its components."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc.kernels import Setting

__all__ = ["Metrics", "metrics_from_moments"]


class Metrics(NamedTuple):
    """Components of the last step, over all parameters; each a 0-d float64 tensor.

    Norms are L2 norms of the components as applied to the weights; with eps = lr,
    b = nbeta, gamma = localization, lambda = weight_decay and sigma = noise_level:

    Attributes
    ----------
    scaled_grad : ||eps/2 b grad||, preconditioned where the sampler preconditions
    unscaled_grad : ||eps/2 b grad||
    localization : ||eps/2 gamma (w - w0)||
    weight_decay : ||eps/2 lambda w||
    noise : ||sqrt(eps) sigma z||
    distance : ||w - w0|| before the step
    dot_grad_prior : <scaled_grad, localization + weight_decay>
    dot_grad_noise : <scaled_grad, noise>
    dot_prior_noise : <localization + weight_decay, noise>

    The step is ``w += -(scaled_grad + localization + weight_decay) + noise``.

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


def metrics_from_moments(parts: Iterable[tuple[Tensor | NDArray[np.float64], Setting]]) -> Metrics:
    """Put together the moments of tensors and the settings under which they were summed.

    Parameters
    ----------
    parts : iterable of (Tensor or array, Setting)
        Moments of shape [9], in the order of ``_core.MOMENTS``.

    Examples
    --------
    >>> setting = Setting(2.0, 1.0, 0.0, 0.0, 0.0, float("inf"))
    >>> metrics_from_moments([(torch.tensor([9.0] + [0.0] * 8), setting)]).scaled_grad
    tensor(3., dtype=torch.float64)
    """
    squares = np.zeros(6)
    dots = np.zeros(3)
    for moments, s in parts:
        gg, dd, zz, gd, gz, dz, ww, gw, wz = moments.tolist()
        half = 0.5 * s.lr
        g, d, w = half * s.nbeta, half * s.localization, half * s.weight_decay
        z = s.lr**0.5 * s.noise_level
        grad = g * g * gg
        squares += [grad, grad, d * d * dd, w * w * ww, z * z * zz, dd]
        dots += [g * (d * gd + w * gw), g * z * gz, z * (d * dz + w * wz)]
    return Metrics(*torch.from_numpy(np.concatenate([np.sqrt(squares), dots])))
