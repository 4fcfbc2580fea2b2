"""What devinterp 1 tells of a step: norms, noise and drifts, kept by hooks around the fused one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from fastllc.kernels import real_dtype
from fastllc.noise import standard_normal
from fastllc.samplers.advance import Outcome
from fastllc.samplers.sampler import Sampler

__all__ = ["Part", "Telling", "masks_of", "norm", "warn_nbeta"]


class Part(NamedTuple):
    """What a step makes of one parameter, before it moves.

    Attributes
    ----------
    at : its place in its group
    param : the parameter
    mask : where it is sampled; None: everywhere
    distance : w - w0
    drift : nbeta grad + localization (w - w0) + weight_decay w
    """

    at: int
    param: Tensor
    mask: Tensor | None
    distance: Tensor
    drift: Tensor

    def masked(self, values: Tensor) -> Tensor:
        """Return `values` where the parameter is sampled, zero elsewhere."""
        return values if self.mask is None else values * self.mask


class Telling(Sampler):
    """A sampler that keeps of each step what its `told` names.

    Its groups take ``optimize_over``, what is sampled of their parameters: one tensor for all, or
    one for each.
    """

    told: frozenset[str] = frozenset()
    tellable: ClassVar[frozenset[str]] = frozenset()
    _hooks: Sequence[RemovableHandle] = ()
    _key: int | None = None  # of the last step's noise
    stacked = False  # whether chains are the first dimension of its parameters

    def tell(self, names: Iterable[str]) -> None:
        """Keep these from now on.

        Raises
        ------
        ValueError
            For a name that is not tellable.
        """
        asked = frozenset(names)
        if unknown := asked - self.tellable:
            raise ValueError(
                f"Invalid metrics: {sorted(unknown)}. Valid metrics are: {sorted(self.tellable)}"
            )
        if asked and not self.told:
            self._hooks = [
                self.register_step_pre_hook(lambda *_: self.before()),
                self.register_step_post_hook(lambda *_: self.after()),
            ]
        self.told |= asked

    def hush(self) -> None:
        """Keep nothing from now on."""
        for hook in self._hooks:
            hook.remove()
        self.told = frozenset()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see `Telling`."""
        group = dict(param_group)
        over = group.pop("optimize_over", None)
        params = group["params"] = _listed(group["params"])
        if over is not None:
            tensors = [p[1] if isinstance(p, tuple) else p for p in params]
            group["mask"] = masks_of(over, tensors)
        super().add_param_group(group)
        self.param_groups[-1]["optimize_over"] = over
        for param in self.param_groups[-1]["params"]:
            state = self.state[param]
            state["initial_param"] = state.get("w0")

    def _advance(self, noise_generator: torch.Generator | None) -> tuple[int, Outcome | None]:
        self._key, outcome = super()._advance(noise_generator)
        return self._key, outcome

    @torch.no_grad()
    def before(self) -> None:
        """Take down what the step is about to do."""
        self._seen = [list(self._look(group)) for group in self.param_groups]
        for index, (group, parts) in enumerate(zip(self.param_groups, self._seen, strict=True)):
            self.tell_before(index, group, parts)

    @torch.no_grad()
    def after(self) -> None:
        """Take down what it did."""
        for index, (group, parts) in enumerate(zip(self.param_groups, self._seen, strict=True)):
            self.tell_after(index, group, parts)

    def tell_before(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        """Keep what is told of a group's drift."""

    def tell_after(self, index: int, group: dict[str, Any], parts: list[Part]) -> None:
        """Keep what is told of a group's noise and new weights."""

    def of_each(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Return a function of values, or where chains are stacked of those of each."""
        return torch.func.vmap(function)(values) if self.stacked else function(values)

    def noises(self, group: Mapping[str, Any], parts: Sequence[Part]) -> list[Tensor]:
        """Return the noise of the last step, of deviation ``noise_level``, by its address."""
        return [
            group["noise_level"]
            * standard_normal(
                param.shape,
                seed=group["seed"] if self._key is None else self._key,  # None: a view's
                step=group["step"] - 1,
                param=group["first_param"] + at,
                dtype=real_dtype(param.dtype),
                device=param.device,
            )
            for at, param, *_ in parts
        ]

    def _look(self, group: Mapping[str, Any]) -> Iterable[Part]:
        for at, param in enumerate(group["params"]):
            if param.grad is None:
                continue
            w, w0 = param.detach(), self.state[param]["initial_param"]
            distance = torch.zeros_like(w) if w0 is None else w - w0
            drift = group["nbeta"] * param.grad + group["localization"] * distance
            if group["weight_decay"] != 0:
                drift += group["weight_decay"] * w
            mask = group["mask"][at] if group["mask"] else None
            yield Part(at, param, mask, distance, drift)


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, Tensor) else list(params)


def masks_of(over: Any, params: Sequence[Any]) -> list[Tensor]:
    """Return ``optimize_over`` as one boolean mask for each parameter.

    Raises
    ------
    ValueError
        If it has other values than 0 and 1, or is not one for each parameter.

    Examples
    --------
    >>> masks_of(torch.tensor([1, 0]), [torch.zeros(2)])
    [tensor([ True, False])]
    """
    masks = [over] * len(params) if isinstance(over, Tensor) else list(over)
    if len(masks) != len(params):
        raise ValueError(
            f"optimize_over must be one tensor, or one for each of {len(params)} parameters, "
            f"got {len(masks)}"
        )
    found = [torch.as_tensor(mask, device=p.device) for mask, p in zip(masks, params, strict=True)]
    for i, mask in enumerate(found):
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(f"optimize_over[{i}] must hold 0 and 1 alone, got {mask}")
    return [mask.bool() for mask in found]


def warn_nbeta(nbeta: Any) -> str | None:
    """Return what to warn of an inverse temperature; None: nothing."""
    if isinstance(nbeta, Tensor) or nbeta != 1.0:
        return None
    return "nbeta set to 1: learning coefficients need one like utils.default_nbeta(dataloader)"


def norm(tensors: Iterable[Tensor | None]) -> Tensor:
    """Return the norm of all of them together.

    Examples
    --------
    >>> norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    squares = [tensor.detach().square().sum() for tensor in tensors if tensor is not None]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
