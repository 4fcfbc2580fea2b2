"""Settings of a group: read, checked, and put into the row that native code takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor

from fastllc.checks import check_number
from fastllc.kernels import Setting

__all__ = ["COMMON", "Common", "check_range", "common_setting", "needs_anchor"]


class Common(TypedDict, total=False):
    """What every sampler and every parameter group of it accepts.

    Attributes
    ----------
    nbeta : inverse temperature n beta >= 0, which multiplies the gradient of the mean loss
    localization : gamma >= 0, the pull towards w0
    weight_decay : lambda >= 0, the pull towards 0
    noise_level : sigma >= 0; other than 1 the samples are not those of the posterior
    bounding_box_size : half the side, > 0, of the box around w0 that weights stay in; None: no box
    mask : boolean tensors, True where a weight is sampled: one for each parameter (or None), or a
        dict of them by parameter name, of which each group takes those of its own parameters; of
        the parameter's shape, or such that they broadcast to it
    rounding : how bfloat16 and float16 weights are kept. "exact": with what they cannot hold
        beside them (2 and 4 bytes a weight), so that the chain is that of float32. "stochastic":
        rounded at random, without that memory, with noise of its own
    save_metrics : whether each step also keeps what `get_metrics` returns
    sketch_dim : number of buckets, in [1, 65536], of the count sketches that each step keeps for
        `get_sketches`, the same for all groups; None: it keeps none
    sketch_seed : of the sketches' buckets and signs, in [0, 2**64), the same for all groups
    seed : key of the noise, in [0, 2**64), the same for all groups: all noise follows from it and
        the step. None: the key is drawn from torch's CPU generator at the first step
    """

    nbeta: float
    localization: float
    weight_decay: float
    noise_level: float
    bounding_box_size: float | None
    mask: Tensor | list[Tensor | None] | Mapping[str, Tensor] | None
    rounding: str
    save_metrics: bool
    sketch_dim: int | None
    sketch_seed: int
    seed: int | None


COMMON: Common = {
    "nbeta": 1.0,
    "localization": 0.0,
    "weight_decay": 0.0,
    "noise_level": 1.0,
    "bounding_box_size": None,
    "mask": None,
    "rounding": "exact",
    "save_metrics": False,
    "sketch_dim": None,
    "sketch_seed": 0,
    "seed": None,
}


def check_range(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False
) -> float:
    """Return a finite number in [low, high), or in (low, high) if it must be `above`.

    Examples
    --------
    >>> check_range("alpha", 1.5, 0, 1)
    Traceback (most recent call last):
    ValueError: alpha must be finite, >= 0 and < 1, got 1.5
    """
    number = check_number(name, value)
    if not ((number > low if above else number >= low) and number < high):
        bounds = f"{'>' if above else '>='} {low:g}"
        bounds = f"finite and {bounds}" if high == math.inf else f"finite, {bounds} and < {high:g}"
        raise ValueError(f"{name} must be {bounds}, got {number}")
    return number


def common_setting(group: Mapping[str, Any], **own: float) -> Setting:
    """Return the checked settings of a group; `own` are the columns of one rule.

    Examples
    --------
    >>> common_setting({**COMMON, "lr": 0.1}).lr
    0.1
    """
    numbers = {
        name: check_range(name, group[name], 0)
        for name in ("lr", "nbeta", "localization", "weight_decay", "noise_level")
    }
    box = group["bounding_box_size"]
    box = math.inf if box is None else check_number("bounding_box_size", box)
    if not box > 0:
        raise ValueError(f"bounding_box_size must be None or > 0, got {box}")
    if group["rounding"] not in ("exact", "stochastic"):
        raise ValueError(f"rounding must be 'exact' or 'stochastic', got {group['rounding']!r}")
    return Setting(**numbers, bounding_box_size=box, **own)


def needs_anchor(setting: Setting) -> bool:
    """Whether a step with these settings reads w0.

    Examples
    --------
    >>> needs_anchor(Setting(0.1, localization=1.0))
    True
    """
    return setting.localization > 0 or math.isfinite(setting.bounding_box_size)
