"""What all samplers share: torch.optim manners around one native step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import is_
from typing import Any, ClassVar, NamedTuple

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
from fastllc.errors import DivergenceWarning, warn
from fastllc.kernels import Member, Segments, Setting, Sketch
from fastllc.samplers.metrics import Metrics, Part, metrics_of
from fastllc.samplers.readings import Readings, check_same, equal
from fastllc.samplers.settings import COMMON, Common, common_setting, needs_anchor
from fastllc.samplers.sketches import SHARED, Sketches, check_sketch, sketches_of
from fastllc.samplers.state import LOW, check_rounding, missing_state, own_state, spread_masks
from fastllc.seeds import draw_key

__all__ = ["Sampler"]


class _Summed(NamedTuple):
    """What the last step summed, of which metrics are made when they are asked for."""

    moments: NDArray[np.float64]  # [tensor][moment]
    nonfinite: NDArray[np.int64]
    members: list[Member]
    settings: list[Setting]
    saving: list[bool]


class Sampler(Optimizer):
    """Base of the samplers: groups, anchors, seeds and the state that resumes bit for bit.

    A sampler is a rule of csrc/rules.h, the names of its state tensors, and how the settings of a
    group become a row of the table that native code reads.

    Each group holds, beside its settings, what the noise is addressed by: ``seed``, ``step``
    (steps taken), ``first_param`` (id of its first parameter) and ``noise_format``. ``seed`` and
    ``step`` are the same in all groups. ``state[p]`` has the anchor ``w0``, kept where something
    needs it, the state of the rule with the step in which it was ``born``, and the ``residual`` of
    a low-precision weight. All of it travels in the state dict.
    """

    rule: ClassVar[_core.Rule]
    state_names: ClassVar[tuple[str, ...]] = ()  # of the tensors that the rule keeps
    shared_names: ClassVar[tuple[str, ...]] = ()  # of group keys with one value for all groups

    _summed: _Summed | None
    _sketches: NDArray[np.float64] | None

    def __init__(self, params: ParamsT, own: dict[str, Any], common: Common) -> None:
        if isinstance(params, (set, frozenset)):
            raise TypeError("params must be in an order that does not change, got a set")
        unknown = sorted(set(common) - set(COMMON))
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected argument {unknown[0]!r}")
        self._forget([*own, *COMMON])
        super().__init__(params, {**own, **COMMON, **common})

    @classmethod
    def setting(cls, group: Mapping[str, Any]) -> Setting:
        """Return the checked settings of a group."""
        return common_setting(group)

    @classmethod
    def scales(cls, setting: Setting) -> tuple[float, float]:
        """Return what multiplies drift and standard normal in a step."""
        return 0.5 * setting.lr, setting.lr**0.5 * setting.noise_level

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
            for name in ("seed", "step", *SHARED, *self.shared_names):
                value = earlier[0][name]
                given = param_group.setdefault(name, value)
                if not equal(given, value):
                    raise ValueError(
                        f"{name} must be that of the other groups, {value}, got {given}"
                    )
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
        self._forget(self.defaults)

    def _admit(self, group: dict[str, Any]) -> None:
        """Check a new group and anchor its parameters."""
        setting = self.setting(group)
        check_sketch(group)
        if group["seed"] is not None:
            group["seed"] = check_int("seed", group["seed"], 64)
        if not group["params"]:
            raise ValueError("params must not be empty, got a group without parameters")
        if group["first_param"] + len(group["params"]) > kernels.MAX_PARAMS:
            raise ValueError(f"params must be at most {kernels.MAX_PARAMS} tensors")
        everything = [p for g in self.param_groups for p in g["params"]]
        for i, param in enumerate(group["params"]):
            name = f"params[{group['first_param'] + i}]"
            memory.check_tensor(name, param)
            if param.device != everything[0].device:
                raise ValueError(
                    f"{name} must be on {everything[0].device} like params[0], got {param.device}"
                )
            if group["rounding"] == "stochastic":
                check_rounding(name, param, setting)
        memory.check_disjoint(dict.fromkeys(everything))
        if (masks := spread_masks(group)) is not None:
            group["mask"] = [mask if mask is None else mask.clone() for mask in masks]
        if not kernels.has_kernel(everything[0]):
            warn(
                f"no native kernel for {everything[0].device}: steps run the PyTorch reference, "
                "which gives the same noise but is slow"
            )
        if needs_anchor(setting) or group["save_metrics"]:
            for param in group["params"]:
                anchor = param.detach().clone(memory_format=torch.contiguous_format)
                self.state[param]["w0"] = anchor

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
        groups, readings = self.param_groups, self._readings
        step, seed = readings.counters(groups)
        readings.read(groups)
        settings, saving, sketch = readings.settings, readings.saving, readings.sketch
        thermostat = self._read_thermostat(settings) if self.shared_names else 0.0
        grads = self._bind(step)
        if noise_generator is not None:
            key = draw_key(noise_generator)
        elif seed is None:
            key = seed = draw_key()
        else:
            key = seed
        if self._fresh is not None:
            self._keep(self._fresh)
        moments = any(saving)
        self._summed = self._sketches = None
        counts: NDArray[np.int64] | None = None
        sums: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None
        if self._segments is not None:
            finite = self._segments.step(
                [[setting] for setting in settings],
                [key],
                [step],
                thermostats=[thermostat],
                moments=moments,
                sketch=sketch,
            )
            if sketch and self._segments.sketches is not None:
                self._sketches = self._segments.sketches[0]
            sums = self._segments.sums.moments[0], self._segments.sums.nonfinite[0]
            counts = None if finite else sums[1]
            if "thermostat" in groups[0]:
                thermostat = self._segments.thermostats[0]
        elif self._members:
            sums, thermostat = self._reference_step(grads, settings, key, step, thermostat, sketch)
            counts = sums[1]
        if moments and sums:
            self._summed = _Summed(*sums, self._members, settings, saving)
        readings.write(groups, step + 1, seed)
        if "thermostat" in groups[0]:
            for group in groups:
                group["thermostat"] = thermostat
        if counts is not None and counts.any():
            self._flag(counts.tolist(), step)
        return loss

    def _read_thermostat(self, settings: list[Setting]) -> float:
        """Return the thermostat, which is one for all groups, before the step."""
        for name in self.shared_names:
            check_same(name, self.param_groups)
        thermostat = self.param_groups[0]["thermostat"]
        return (
            settings[0].friction if thermostat is None else check_number("thermostat", thermostat)
        )

    def get_metrics(self) -> Metrics:
        """Return the `Metrics` of the last step, over the groups with ``save_metrics``.

        Raises
        ------
        RuntimeError
            If no group has ``save_metrics``, or before the first step.
        """
        return metrics_of(part for _, _, part in self._parts())

    def iter_group_metrics(self) -> Iterator[Metrics]:
        """Yield the `Metrics` of each group with ``save_metrics``; see `get_metrics`."""
        parts = self._parts()
        for index, group in enumerate(self.param_groups):
            if group["save_metrics"]:
                yield metrics_of(part for _, at, part in parts if at == index)

    def iter_param_metrics(self) -> Iterator[tuple[Tensor, Metrics]]:
        """Yield each parameter that moved, with its `Metrics`; see `get_metrics`."""
        for param, _, part in self._parts():
            yield param, metrics_of([part])

    def get_sketches(self) -> Sketches:
        """Return the `Sketches` of the last step.

        Raises
        ------
        RuntimeError
            Without ``sketch_dim``, or before the first step.
        """
        if all(group["sketch_dim"] is None for group in self.param_groups):
            raise RuntimeError("get_sketches needs sketch_dim")
        if self._sketches is None:
            raise RuntimeError("get_sketches needs a step with gradients first")
        return sketches_of(self._sketches)

    def _parts(self) -> list[tuple[Tensor, int, Part]]:
        """Return each parameter, its group and what was summed over it in the last step."""
        if not any(group["save_metrics"] for group in self.param_groups):
            raise RuntimeError("get_metrics needs save_metrics=True")
        if self._summed is None:
            raise RuntimeError("get_metrics needs a step with gradients first")
        moments, nonfinite, members, settings, saving = self._summed
        return [
            (m.w, m.group, Part(row, int(count), setting, *self.scales(setting)))
            for row, count, m in zip(moments, nonfinite, members, strict=True)
            if saving[m.group]
            for setting in [settings[m.group]]
        ]

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
        loaded: list[dict[str, Any]] = []
        # After the hooks that others have registered, which may change what is loaded.
        with self.register_load_state_dict_pre_hook(lambda _, given: loaded.append(given)):
            super().load_state_dict(state_dict)
        own_state(self.state, self.param_groups, loaded[0])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle or a state dict, one of an earlier version too."""
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # which torch puts there: no sampler has it
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._forget(self.defaults)

    def _forget(self, names: Iterable[str]) -> None:
        """Derive everything that is cached from the groups anew."""
        settings = [name for name in names if name not in ("mask", "seed", "thermostat")]
        self._readings = Readings(settings, self.setting, self._check_anchors)
        self._summed = self._sketches = None
        self._forget_plan()

    def _forget_plan(self) -> None:
        self._members: list[Member] = []
        self._involved: list[Any] = []
        self._born = 0
        self._fresh: list[dict[str, Any]] | None = None
        self._segments: Segments | None = None

    def _check_anchors(self, group: Mapping[str, Any], setting: Setting, saving: bool) -> None:
        if (needs_anchor(setting) or saving) and not all(
            "w0" in self.state.get(param, ()) for param in group["params"]
        ):
            raise ValueError(
                "localization, bounding_box_size and save_metrics need an anchor, which is only "
                "kept if one of them was set when the group was added"
            )

    def _bind(self, step: int) -> list[Tensor]:
        """Collect the gradients and check all tensors; return the gradients."""
        involved, grads = self._look()
        known = self._involved
        if len(involved) != len(known) or not all(map(is_, involved, known)):
            self._forget_plan()
            self._plan(step)
            if self._members and kernels.has_kernel(self._members[0].w):
                self._segments = Segments(self._members, self.rule)
        if step < self._born:
            raise ValueError(
                f"step must be at least {self._born}, in which state of a parameter was born, "
                f"got {step}"
            )
        if self._segments is not None:
            self._segments.bind(grads)
        else:
            for member, grad in zip(self._members, grads, strict=True):
                memory.check_like(f"params[{member.id}].grad", grad, member.w)
        return grads

    def _look(self) -> tuple[list[Any], list[Tensor]]:
        """Return all objects that a plan is made of, and the gradients."""
        involved: list[Any] = []
        grads: list[Tensor] = []
        for group in self.param_groups:
            mask = group["mask"]
            involved += mask, group["rounding"]
            if type(mask) is list:
                involved += mask
            for param in group["params"]:
                if (grad := param.grad) is not None:
                    involved.append(param)
                    grads.append(grad)
        involved += self.state
        for state in self.state.values():
            if isinstance(state, dict):
                involved += state.values()
        return involved, grads

    def _plan(self, step: int) -> None:
        """Make members of the parameters that have gradients, with the state that steps need.

        What is new of it comes into the sampler's state in `_keep`, once nothing can be refused.
        """
        self._fresh = []
        for index, group in enumerate(self.param_groups):
            masks = spread_masks(group) or [None] * len(group["params"])
            exact = group["rounding"] == "exact"
            for i, (param, mask) in enumerate(zip(group["params"], masks, strict=True)):
                if param.grad is None:
                    continue
                number = group["first_param"] + i
                state = self.state.get(param, {})
                new: dict[str, Any] = missing_state(state, param, self.state_names, exact=exact)
                if self.state_names and ("born" not in state or new.keys() & self.state_names):
                    new["born"] = step
                self._fresh.append(new)
                state = {**state, **new}
                self._members.append(
                    Member(
                        param,
                        id=number,
                        group=index,
                        w0=state.get("w0"),
                        mask=mask,
                        residual=state.get("residual") if exact and param.dtype in LOW else None,
                        born=check_int(f"born[{number}]", state.get("born", 0), 32),
                        **{name: state[name] for name in self.state_names},
                    )
                )
        self._born = max((m.born for m in self._members), default=0) if self.state_names else 0

    def _keep(self, fresh: list[dict[str, Any]]) -> None:
        """Take up the state that a plan has made, and remember what the plan was made of."""
        for member, new in zip(self._members, fresh, strict=True):
            if new:
                self.state[member.w].update(new)
            if member.residual is None:  # of an earlier rounding
                self.state.get(member.w, {}).pop("residual", None)
        self._fresh = None
        self._involved, _ = self._look()

    @torch.no_grad()
    def _reference_step(
        self,
        grads: list[Tensor],
        settings: list[Setting],
        key: int,
        step: int,
        thermostat: float,
        sketch: Sketch | None,
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.int64]], float]:
        """Take a step in plain PyTorch; return moments, non-finite counts and the thermostat."""
        done = [
            reference.advance(
                self.rule, m, grad, settings[m.group], key, step, thermostat, sketch=sketch
            )
            for m, grad in zip(self._members, grads, strict=True)
        ]
        for member, after in zip(self._members, done, strict=True):
            member.w.copy_(after.w)
            for name in ("momentum", "square_avg", "residual"):
                if (target := getattr(member, name)) is not None:
                    target.copy_(getattr(after, name))
        if self.rule == _core.Rule.sgnht:
            thermostat += reference.thermostat_change(
                [
                    (settings[m.group].lr, a.kinetic, a.updated)
                    for m, a in zip(self._members, done, strict=True)
                ]
            )
        if sketch:
            tables = [after.sketches.cpu() for after in done if after.sketches is not None]
            self._sketches = torch.stack(tables).sum(0).numpy()
        moments = np.stack([after.moments.numpy() for after in done])
        return (moments, np.array([after.nonfinite for after in done])), thermostat

    def _flag(self, counts: list[int], step: int) -> None:
        """Tell of non-finite weights, once."""
        if self.nonfinite_step is not None:
            return
        for group in self.param_groups:
            group["nonfinite_step"] = step
        where = ", ".join(
            f"params[{member.id}] ({count} of {member.w.numel()})"
            for member, count in zip(self._members, counts, strict=True)
            if count
        )
        warn(
            f"step {step} left NaN or infinite weights in {where}; lower lr or nbeta, or set "
            "bounding_box_size",
            DivergenceWarning,
        )


_untraced_step = _disable_dynamo(Sampler.step)
# In a function of its own, so that torch sees hooks and profiler as with any optimizer.
_hooked_step = Optimizer.profile_hook_step(Sampler._step)
