"""What a sampler keeps for each parameter beside the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastllc.errors import PrecisionWarning, warn
from fastllc.kernels import Setting, real_dtype
from fastllc.memory import short

__all__ = [
    "LOW",
    "check_mask_names",
    "check_rounding",
    "missing_state",
    "own_state",
    "spread_masks",
]

# What is kept beside a low-precision weight, and how far its last bit is below its first.
LOW = {torch.bfloat16: torch.int16, torch.float16: torch.float32}
_ULP = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}


def missing_state(
    state: Mapping[str, Any], param: Tensor, names: Sequence[str], *, exact: bool
) -> dict[str, Tensor]:
    """Return the tensors that are missing: zero, contiguous, in the arithmetic's precision."""
    wanted = dict.fromkeys(names, real_dtype(param.dtype))
    if exact and param.dtype in LOW:
        wanted["residual"] = LOW[param.dtype]
    return {
        name: torch.zeros(param.shape, dtype=dtype, device=param.device)
        for name, dtype in wanted.items()
        if name not in state
    }


def check_mask_names(masks: Any, groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise if masks by name are for parameters that no group has.

    Examples
    --------
    >>> check_mask_names({"a": None, "b": None}, [{"param_names": ["a"]}])
    Traceback (most recent call last):
    ValueError: mask must name parameters, got ['b']
    """
    if isinstance(masks, Mapping):
        known = {name for group in groups for name in group.get("param_names", ())}
        unknown = sorted(set(masks) - known, key=str)
        if unknown:
            raise ValueError(f"mask must name parameters, got {unknown}")


def spread_masks(group: Mapping[str, Any], shared: Any = None) -> list[Tensor | None] | None:
    """Return a group's masks, one for each parameter and of its shape; None if there are none.

    Masks by name must all be for parameters of the group, unless they are those that it `shared`
    with other groups.

    Raises
    ------
    TypeError, ValueError
        If a mask is not boolean, does not fit its parameter, or is for nobody.
    """
    masks, params = group["mask"], group["params"]
    first = group["first_param"]
    if masks is None:
        return None
    if isinstance(masks, Tensor):
        masks = [masks]
    if isinstance(masks, Mapping):
        if "param_names" not in group:
            raise ValueError("mask by name needs named parameters, such as named_parameters()")
        if masks is not shared:
            check_mask_names(masks, [group])
        masks = [masks.get(name) for name in group["param_names"]]
    if not isinstance(masks, (list, tuple)):
        raise TypeError(
            f"mask must be a tensor, a list, a dict by name or None, got {type(masks).__name__}"
        )
    if len(masks) != len(params):
        raise ValueError(
            f"mask must have one tensor or None for each of {len(params)} parameters, "
            f"got {len(masks)}"
        )
    return [
        None if mask is None else _spread(f"mask[{first + i}]", mask, param)
        for i, (mask, param) in enumerate(zip(masks, params, strict=True))
    ]


def _spread(name: str, mask: Any, param: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = short(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} must be a boolean tensor, got {kind}")
    if mask.layout != torch.strided:
        raise TypeError(f"{name} must be dense (torch.strided), got {mask.layout}")
    if mask.device != param.device:
        raise ValueError(f"{name} must be on {param.device}, got {mask.device}")
    try:
        return mask.expand(param.shape).contiguous()
    except RuntimeError:
        raise ValueError(
            f"{name} must have a shape that broadcasts to {tuple(param.shape)}, "
            f"got {tuple(mask.shape)}"
        ) from None


def check_rounding(name: str, param: Tensor, setting: Setting) -> None:
    """Warn if stochastic rounding would add much to a step's noise."""
    noise = math.sqrt(setting.lr) * setting.noise_level
    if param.dtype not in _ULP or param.numel() == 0:
        return
    size = param.detach().float().square().mean().sqrt().item()
    if size == 0 or not math.isfinite(size):
        return
    ulp = 2.0 ** math.floor(math.log2(size)) * _ULP[param.dtype]
    if noise < 4 * ulp:
        warn(
            f"{name}: the noise of a step, {noise:.2g}, is below 4 units in the last place "
            f"({ulp:.2g}) of {short(param.dtype)} weights of size {size:.2g}: "
            "rounding='stochastic' heats this chain; raise lr or use rounding='exact'",
            PrecisionWarning,
        )


def own_state(
    state: Mapping[Tensor, dict[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    saved: Mapping[str, Any],
) -> None:
    """Put copies of the tensors of a state dict, in their own dtypes, into the state made of it.

    `Optimizer.load_state_dict` casts them to the dtype of their parameter, which would cut float32
    state beside low-precision weights, and where it need not cast, it shares them with whoever
    saved them.
    """
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    params = [p for group in groups for p in group["params"]]
    for i, param in zip(ids, params, strict=True):
        for name, value in saved["state"].get(i, {}).items():
            if isinstance(value, Tensor):
                state[param][name] = value.to(param.device, copy=True)
