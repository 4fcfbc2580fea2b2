"""What all samplers share: torch.optim manners around one native step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.autograd.profiler as profiler
from torch import Tensor
from torch._compile import _disable_dynamo
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


class Sampler(Optimizer):
    """Base of the samplers: groups, anchors, seeds and the state that resumes bit for bit.

    Each group holds, beside its settings, what the noise is addressed by: ``seed``, ``step``
    (steps taken), ``first_param`` (id of its first parameter) and ``noise_format``. ``seed`` and
    ``step`` are the same in all groups. ``state[p]["w0"]`` is the anchor, kept where something
    needs it. All of it travels in the state dict.
    """

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        if isinstance(params, (set, frozenset)):
            raise TypeError("params must be in an order that does not change, got a set")
        self._members: list[_Member] = []
        self._identity: list[int] = []
        self._segments: Segments | None = None
        self._checked: list[tuple[Setting, bool]] = []
        self._moments: list[tuple[Tensor, Setting]] = []
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

    @_disable_dynamo
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
        groups = self.param_groups
        step, seed = self._counters()
        settings = self._settings()
        grads = self._bind()
        if noise_generator is not None:
            key = draw_key(noise_generator)
        elif seed is None:
            key = seed = draw_key()
        else:
            key = seed
        moments = any(group["save_metrics"] for group in groups)
        counts: list[int] = []
        rows: Iterable[Tensor] = ()
        if self._segments is not None:
            columns = [[setting] for setting in settings]
            if not self._segments.step(columns, [key], [step], moments=moments):
                counts = self._segments.sums.nonfinite[0].tolist()
            if moments:
                rows = torch.from_numpy(self._segments.sums.moments[0].copy())
        elif self._members:
            counts, rows = self._reference_step(grads, settings, key, step, moments)
        for group in groups:
            group["seed"], group["step"] = seed, step + 1
        self._moments = [
            (row, settings[member.group])
            for member, row in zip(self._members, rows, strict=False)
            if groups[member.group]["save_metrics"]
        ]
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
        if not self._moments:
            raise RuntimeError("get_metrics needs a step with gradients first")
        return metrics_from_moments(self._moments)

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
        self._moments = []
        self._forget()

    def _forget(self) -> None:
        """Derive everything that is cached from the groups anew."""
        self._checked = []
        self._forget_plan()

    def _forget_plan(self) -> None:
        self._members, self._identity, self._segments = [], [], None

    def _counters(self) -> tuple[int, int | None]:
        """Return step and seed, which must be those of every group."""
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
        if first["step"] > kernels.MAX_STEP:
            raise OverflowError(f"step must be below 2**32, got {first['step']}")
        return first["step"], first["seed"]

    def _settings(self) -> list[Setting]:
        """Return the settings of the groups; what has changed since the last step is checked."""
        groups = self.param_groups
        settings = [(_setting(group), bool(group["save_metrics"])) for group in groups]
        if settings != self._checked:
            for group, (setting, save_metrics) in zip(groups, settings, strict=True):
                _check(setting)
                if (_needs_anchor(setting) or save_metrics) and not all(
                    "w0" in self.state[param] for param in group["params"]
                ):
                    raise ValueError(
                        "localization, bounding_box_size and save_metrics need an anchor, which "
                        "is only kept if one of them was set when the group was added"
                    )
            self._checked = settings
        return [setting for setting, _ in settings]

    def _bind(self) -> list[Tensor]:
        """Collect the gradients and check all tensors; return the gradients."""
        state = self.state
        params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        identity = [id(tensor) for p in params for tensor in (p, state[p].get("w0"))]
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
        grads: list[Tensor] = [p.grad for p in params]
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


# In a function of its own, so that torch sees hooks and profiler as with any optimizer.
_hooked_step = Optimizer.profile_hook_step(Sampler._step)
