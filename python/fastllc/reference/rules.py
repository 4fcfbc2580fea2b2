"""The update rules, tensor by tensor: csrc/rules.h in readable PyTorch."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from fastllc._core import Rule
from fastllc.kernels import Setting
from fastllc.reference.noise import root

__all__ = ["MOMENTUM", "Moved", "follow", "spread"]

MOMENTUM = (Rule.sghmc, Rule.sgnht, Rule.baoab)


class Moved(NamedTuple):
    """What a rule returns.

    Attributes
    ----------
    w, momentum, square_avg : Tensor, or None where the rule has no such state
        The following weights and state.
    a, p, c, n : Tensor
        The components of the step before their coefficients, as csrc/moments.h names them.

    Examples
    --------
    >>> import torch
    >>> w, g, d, z = torch.ones(4, 1)
    >>> follow(Rule.sgld, Setting(0.1, noise_level=0.0), 0, 0.0, w, g, d, z).a
    tensor([1.])
    """

    w: Tensor
    momentum: Tensor | None
    square_avg: Tensor | None
    a: Tensor
    p: Tensor
    c: Tensor
    n: Tensor


def follow(
    rule: Rule,
    setting: Setting,
    age: int,
    thermostat: float,
    w: Tensor,
    g: Tensor,
    d: Tensor,
    z: Tensor,
    momentum: Tensor | None = None,
    square_avg: Tensor | None = None,
) -> Moved:
    """Return what a rule makes of weights and state, by the equations of csrc/rules.h.

    Parameters
    ----------
    rule : Rule
    setting : Setting
    age : int
        Steps that the tensor has taken part in.
    thermostat : float
        Of `Rule.sgnht`; of no effect for others.
    w, g, d, z : Tensor, all of one shape
        Weights, gradient, w - w0 and standard normals.
    momentum, square_avg : Tensor, optional
        State before the step, as far as the rule has any.

    Returns
    -------
    Moved

    Examples
    --------
    >>> import torch
    >>> w, g, d, z = torch.ones(4, 1)
    >>> follow(Rule.sgld, Setting(0.1, noise_level=0.0), 0, 0.0, w, g, d, z).w
    tensor([0.9500])
    """
    if rule == Rule.sgld:
        return _langevin(setting, w, g, d, z)
    if rule in MOMENTUM:
        return _with_momentum(rule, setting, thermostat, w, g, d, z, momentum)
    return _preconditioned(rule, setting, age, w, g, d, z, momentum, square_avg)


def spread(rule: Rule, setting: Setting) -> float:
    """Return the standard deviation of a momentum at the start; 0 where it is an average (Adam).

    Examples
    --------
    >>> spread(Rule.sgnht, Setting(0.25))
    0.5
    """
    if rule == Rule.adam:
        return 0.0
    scale = 0.5 * setting.lr if rule == Rule.sghmc else setting.lr
    return math.sqrt(scale) * setting.noise_level


def _drift(setting: Setting, scale: float, g: Tensor, d: Tensor, w: Tensor) -> Tensor:
    drift = g * (scale * setting.nbeta)
    if setting.localization:
        drift = drift + d * (scale * setting.localization)
    if setting.weight_decay:
        drift = drift + w * (scale * setting.weight_decay)
    return drift


def _langevin(setting: Setting, w: Tensor, g: Tensor, d: Tensor, z: Tensor) -> Moved:
    drift = _drift(setting, 0.5 * setting.lr, g, d, w)
    following = (w - drift) + z * (math.sqrt(setting.lr) * setting.noise_level)
    return Moved(following, None, None, g, d, w, z)


def _preconditioned(
    rule: Rule,
    setting: Setting,
    age: int,
    w: Tensor,
    g: Tensor,
    d: Tensor,
    z: Tensor,
    m: Tensor | None,
    v: Tensor | None,
) -> Moved:
    assert v is not None
    adapting = age < setting.adapt_steps
    updates = age + 1 if adapting else int(setting.adapt_steps)
    if adapting:
        v = v * setting.alpha + (g * g) * (1 - setting.alpha)
    correction = _bias_correction(setting.alpha, updates) if setting.corrected else 1.0
    precondition = 1 / (root(v * correction) + setting.eps)
    square_root = root(precondition)
    toward = g
    if rule == Rule.adam:
        assert m is not None
        m = m * setting.beta + g * (1 - setting.beta)
        toward = m * _bias_correction(setting.beta, age + 1)
    drift = _drift(setting, 0.5 * setting.lr, toward, d, w)
    n = square_root * z
    following = (w - precondition * drift) + n * (math.sqrt(setting.lr) * setting.noise_level)
    return Moved(following, m, v, precondition * toward, precondition * d, precondition * w, n)


def _with_momentum(
    rule: Rule,
    setting: Setting,
    thermostat: float,
    w: Tensor,
    g: Tensor,
    d: Tensor,
    z: Tensor,
    m: Tensor | None,
) -> Moved:
    assert m is not None
    decay, injected = 1 - setting.friction, setting.friction * setting.lr
    if rule == Rule.sgnht:
        decay, injected = 1 - thermostat, injected * 2
    if rule == Rule.baoab:
        injected *= 2 - setting.friction
    drift = _drift(setting, 0.5 * setting.lr if rule == Rule.sghmc else setting.lr, g, d, w)
    noise = z * (math.sqrt(injected) * setting.noise_level)
    if rule != Rule.baoab:
        m = (m * decay - drift) + noise
        return Moved(w + m, m, None, g, d, w, z)
    kicked = m - drift
    m = kicked * decay + noise
    return Moved((w + kicked * 0.5) + m * 0.5, m, None, g, d, w, z)


def _bias_correction(decay: float, n: int) -> float:
    if n == 0:
        return 1.0
    power, square = 1.0, decay
    while n:
        if n & 1:
            power *= square
        n >>= 1
        square *= square
    return 1 / (1 - power)
