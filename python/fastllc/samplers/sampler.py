"""What all samplers share: torch.optim manners around one native step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from operator import is_, itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.autograd.profiler as profiler
from numpy.typing import NDArray
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.compiler import is_dynamo_compiling
from torch.optim.optimizer import (
    Optimizer,
    ParamsT,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from fastllc import _core, kernels, memory, reference
from fastllc.checks import check_int, check_number
from fastllc.errors import DivergenceWarning
from fastllc.kernels import Segments, Setting
from fastllc.samplers.metrics import Metrics, metrics_from_moments
from fastllc.seeds import draw_key

__all__ = ["Sampler"]


class _Member(NamedTuple):
    """One parameter that takes part in a step."""

    param: Tensor
    w0: Tensor | None
    id: int
    group: int


class _Summed(NamedTuple):
    """What the last step summed, of which `get_metrics` makes what it returns."""

    moments: Iterable[Tensor] | NDArray[np.float64]
    members: list[_Member]
    settings: list[Setting]
    saving: list[bool]


class Sampler(Optimizer):
    """Base of the samplers: groups, anchors, seeds and the state that resumes bit for bit.

    Each group holds, beside its settings, what the noise is addressed by: ``seed``, ``step``
    (steps taken), ``first_param`` (id of its first parameter) and ``noise_format``. ``seed`` and
    ``step`` are the same in all groups. ``state[p]["w0"]`` is the anchor, kept where something
    needs it. All of it travels in the state dict.
    """

    _counted: tuple[int, int | None]  # step and seed as the last step left them in all groups

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        if isinstance(params, (set, frozenset)):
            raise TypeError("params must be in an order that does not change, got a set")
        self._summed: _Summed | None = None
        self._forget()
        super().__init__(params, defaults)

    @_disable_dynamo
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters are anchored where they are now.

        Raises
        ------
        TypeError, ValueError
            If a setting is out of range or a tensor cannot be sampled; no group is added then.
        """
        param_group = dict(param_group)  # what is filled in stays out of the caller's
        earlier = list(self.param_groups)
        if earlier:
            shared = {"seed": earlier[0]["seed"], "step": earlier[0]["step"]}
            for name, value in shared.items():
                if param_group.get(name, value) != value:
                    raise ValueError(
                        f"{name} must be that of the other groups, {value}, got {param_group[name]}"
                    )
            param_group.update(shared)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            group.setdefault("step", 0)
            group["first_param"] = sum(len(g["params"]) for g in earlier)
            group["noise_format"] = _core.NOISE_FORMAT
            self._admit(group)
        except BaseException:
            self.param_groups.pop()
            raise
        self._forget()

    def _admit(self, group: dict[str, Any]) -> None:
        """Check a new group and anchor its parameters."""
        setting = _setting(group)
        _check(setting)
        if group["seed"] is not None:
            group["seed"] = check_int("seed", group["seed"], 64)
        if not group["params"]:
            raise ValueError("params must not be empty, got a group without parameters")
        if group["first_param"] + len(group["params"]) > kernels.MAX_PARAMS:
            raise ValueError(f"params must be at most {kernels.MAX_PARAMS} tensors")
        everything = [p for g in self.param_groups for p in g["params"]]
        for i, param in enumerate(group["params"]):
            memory.check_tensor(f"params[{group['first_param'] + i}]", param)
            if param.device != everything[0].device:
                raise ValueError(
                    f"params[{group['first_param'] + i}] must be on {everything[0].device} like "
                    f"params[0], got {param.device}"
                )
        memory.check_disjoint(dict.fromkeys(everything))
        if _needs_anchor(setting) or group["save_metrics"]:
            for param in group["params"]:
                anchor = param.detach().clone(memory_format=torch.contiguous_format)
                self.state[param]["w0"] = anchor
        if not kernels.has_kernel(everything[0]):
            warnings.warn(
                f"no native kernel for {everything[0].device}: steps run the PyTorch reference, "
                "which gives the same noise but is slow",
                stacklevel=5,
            )

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        noise_generator: torch.Generator | None = None,
    ) -> Any:
        """Take one step with the gradients in ``p.grad``; parameters without one stay.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients; called first, with gradients enabled.
        noise_generator : torch.Generator, optional
            A CPU generator; the key of this step's noise is drawn from it.

        Returns
        -------
        The closure's result, or None.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If a gradient or setting is unfit. No weight has changed then.
        OverflowError
            After 2**32 steps.

        Warns
        -----
        DivergenceWarning
            When a weight has become NaN or infinite, at the first step after which it has.
        """
        if is_dynamo_compiling():  # elsewhere the detour would cost 0.7 us
            return _untraced_step(self, closure, noise_generator=noise_generator)
        # torch wraps every step for hooks and the profiler, which costs half of a small step:
        # only where there are any.
        hooks = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or profiler._is_profiler_enabled
        )
        advance = _hooked_step if hooks else Sampler._step
        return advance(self, closure, noise_generator=noise_generator)

    step.hooked = True  # type: ignore[attr-defined]

    def _step(
        self, closure: Callable[[], Any] | None, *, noise_generator: torch.Generator | None
    ) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        step, seed = self._counters()
        self._read_settings()
        settings = self._settings
        grads = self._bind()
        if noise_generator is not None:
            key = draw_key(noise_generator)
        elif seed is None:
            key = seed = draw_key()
        else:
            key = seed
        moments = any(self._saving)
        counts: list[int] = []
        rows: Iterable[Tensor] | NDArray[np.float64] = ()
        if self._segments is not None:
            columns = [[setting] for setting in settings]
            if not self._segments.step(columns, [key], [step], moments=moments):
                counts = self._segments.sums.nonfinite[0].tolist()
            rows = self._segments.sums.moments[0]
        elif self._members:
            counts, rows = self._reference_step(grads, settings, key, step, moments)
        following = step + 1
        for group in self.param_groups:
            group["seed"], group["step"] = seed, following
        self._counted = following, seed
        self._summed = _Summed(rows, self._members, settings, self._saving) if moments else None
        if any(counts):
            self._flag(counts, step)
        return loss

    def get_metrics(self) -> Metrics:
        """Return the `Metrics` of the last step, over the groups with ``save_metrics``.

        Raises
        ------
        RuntimeError
            If no group has ``save_metrics``, or before the first step.
        """
        if not any(group["save_metrics"] for group in self.param_groups):
            raise RuntimeError("get_metrics needs save_metrics=True")
        if not self._summed or not self._summed.members:
            raise RuntimeError("get_metrics needs a step with gradients first")
        moments, members, settings, saving = self._summed
        return metrics_from_moments(
            (row, settings[member.group])
            for row, member in zip(moments, members, strict=True)
            if saving[member.group]
        )

    @property
    def nonfinite_step(self) -> int | None:
        """The step, from 0, after which a weight first was NaN or infinite; None: there is none."""
        found: int | None = self.param_groups[0].get("nonfinite_step")
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; the next step is the one that would have followed.

        Raises
        ------
        ValueError
            If the groups do not match, or the state was saved with another noise format.
        """
        for group in state_dict["param_groups"]:
            if group.get("noise_format") != _core.NOISE_FORMAT:
                raise ValueError(
                    f"noise_format must be {_core.NOISE_FORMAT}, that of this version, "
                    f"got {group.get('noise_format')}"
                )
        super().load_state_dict(state_dict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a state dict."""
        super().__setstate__(state)
        self._summed = None
        self._forget()

    def _forget(self) -> None:
        """Derive everything that is cached from the groups anew."""
        self._counted = -1, None  # no group's
        self._constants: list[tuple[Any, ...]] = []
        self._settings: list[Setting] = []
        self._saving: list[bool] = []
        self._forget_plan()

    def _forget_plan(self) -> None:
        self._members: list[_Member] = []
        self._identity: list[int] = []
        self._segments: Segments | None = None

    def _counters(self) -> tuple[int, int | None]:
        """Return step and seed, which must be those of every group."""
        step, seed = self._counted
        for group in self.param_groups:
            if group["step"] is not step or group["seed"] is not seed:
                step, seed = self._check_counters()
                break
        if step > kernels.MAX_STEP:
            raise OverflowError(f"step must be below 2**32, got {step}")
        return step, seed

    def _check_counters(self) -> tuple[int, int | None]:
        first = self.param_groups[0]
        for name, bits in (("step", 33), ("seed", 64)):
            if first[name] is not None or name == "step":
                check_int(name, first[name], bits)
            for group in self.param_groups[1:]:
                if group[name] != first[name]:
                    raise ValueError(
                        f"{name} must be the same in all groups, got {first[name]} and "
                        f"{group[name]}"
                    )
        return first["step"], first["seed"]

    def _read_settings(self) -> None:
        """Read the settings of the groups; what has changed since the last step is checked."""
        groups = self.param_groups
        if self._same_values():
            return
        settings = [_setting(group) for group in groups]
        saving = [bool(group["save_metrics"]) for group in groups]
        if settings != self._settings or saving != self._saving:
            for group, setting, save_metrics in zip(groups, settings, saving, strict=True):
                _check(setting)
                if (_needs_anchor(setting) or save_metrics) and not all(
                    "w0" in self.state[param] for param in group["params"]
                ):
                    raise ValueError(
                        "localization, bounding_box_size and save_metrics need an anchor, which "
                        "is only kept if one of them was set when the group was added"
                    )
            self._settings, self._saving = settings, saving
        values = [_values(group) for group in groups]
        # The same objects have the same values only if they cannot change, as a tensor can.
        constant = all(type(value) in _CONSTANT for row in values for value in row)
        self._constants = values if constant else []

    def _same_values(self) -> bool:
        """Whether the groups hold the very objects that were read last.

        Objects, since a tensor may equal a float that it does not round to.
        """
        if len(self.param_groups) != len(self._constants):
            return False
        for row, group in enumerate(self.param_groups):
            if not all(map(is_, _values(group), self._constants[row])):
                return False
        return True

    def _bind(self) -> list[Tensor]:
        """Collect the gradients and check all tensors; return the gradients."""
        params: list[Tensor] = []
        grads: list[Tensor] = []
        for group in self.param_groups:
            for param in group["params"]:
                if (grad := param.grad) is not None:
                    params.append(param)
                    grads.append(grad)
        state = self.state
        anchors = [s.get("w0") for s in state.values() if isinstance(s, dict)]
        identity = [*map(id, params), *map(id, state), *map(id, anchors)]
        if identity != self._identity:
            self._forget_plan()
            members = [
                _Member(param, state[param].get("w0"), group["first_param"] + i, index)
                for index, group in enumerate(self.param_groups)
                for i, param in enumerate(group["params"])
                if param.grad is not None
            ]
            if members and kernels.has_kernel(members[0].param):
                self._segments = Segments(*zip(*members, strict=True))  # type: ignore[arg-type]
            self._members, self._identity = members, identity
        if self._segments is not None:
            self._segments.bind(grads)
        else:
            for member, grad in zip(self._members, grads, strict=True):
                memory.check_like(f"params[{member.id}].grad", grad, member.param)
        return grads

    @torch.no_grad()
    def _reference_step(
        self, grads: list[Tensor], settings: list[Setting], key: int, step: int, moments: bool
    ) -> tuple[list[int], list[Tensor]]:
        """Take a step in plain PyTorch; return non-finite counts and moments of each member."""
        following, rows = [], []
        for (w, w0, param, group), grad in zip(self._members, grads, strict=True):
            z = reference.standard_normal(
                w.numel(), seed=key, step=step, param=param, dtype=w.dtype, device=w.device
            ).view(w.shape)
            following.append(reference.sgld_step(w, grad, w0, z, settings[group]))
            if moments:
                rows.append(reference.moments(w, grad, w0, z))
        for member, w in zip(self._members, following, strict=True):
            member.param.copy_(w)
        return [int((~w.isfinite()).sum()) for w in following], rows

    def _flag(self, counts: list[int], step: int) -> None:
        """Tell of non-finite weights, once."""
        if self.nonfinite_step is not None:
            return
        for group in self.param_groups:
            group["nonfinite_step"] = step
        where = ", ".join(
            f"params[{member.id}] ({count} of {member.param.numel()})"
            for member, count in zip(self._members, counts, strict=True)
            if count
        )
        warnings.warn(
            f"step {step} left NaN or infinite weights in {where}; lower lr or nbeta, or set "
            "bounding_box_size",
            DivergenceWarning,
            stacklevel=4,
        )


_values = itemgetter(*Setting._fields, "save_metrics")
_CONSTANT = frozenset({float, int, bool, type(None)})


def _needs_anchor(setting: Setting) -> bool:
    return setting.localization > 0 or math.isfinite(setting.bounding_box_size)


def _setting(group: dict[str, Any]) -> Setting:
    box = group["bounding_box_size"]
    return Setting(
        check_number("lr", group["lr"]),
        check_number("nbeta", group["nbeta"]),
        check_number("localization", group["localization"]),
        check_number("weight_decay", group["weight_decay"]),
        check_number("noise_level", group["noise_level"]),
        math.inf if box is None else check_number("bounding_box_size", box),
    )


def _check(setting: Setting) -> None:
    for name, value in zip(Setting._fields[:-1], setting, strict=False):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and >= 0, got {value}")
    if not setting.bounding_box_size > 0:
        raise ValueError(f"bounding_box_size must be None or > 0, got {setting.bounding_box_size}")


_untraced_step = _disable_dynamo(Sampler.step)
# In a function of its own, so that torch sees hooks and profiler as with any optimizer.
_hooked_step = Optimizer.profile_hook_step(Sampler._step)
