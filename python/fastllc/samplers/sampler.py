"""What all samplers share: torch.optim manners around one native step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.autograd.profiler as profiler
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.compiler import is_dynamo_compiling
from torch.optim.optimizer import (
    Optimizer,
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from fastllc.checks import check_number
from fastllc.kernels import DeviceSegments, Member, Setting
from fastllc.samplers.advance import Outcome, device_step, native_step, reference_step
from fastllc.samplers.metrics import Metrics, Part, metrics_of
from fastllc.samplers.readings import check_same
from fastllc.samplers.remote import Remote
from fastllc.samplers.sketches import Sketches, sketches_of
from fastllc.seeds import draw_key

__all__ = ["Sampler"]


class _Last(NamedTuple):
    """The last step, of which metrics and sketches are made when they are asked for."""

    outcome: Outcome
    members: list[Member]
    settings: list[Setting]
    saving: list[bool]


class Sampler(Remote):
    """Base of the samplers: a step, and what it was made of.

    A sampler is a rule of csrc/rules.h, the names of its state tensors, and how the settings of a
    group become a row of the table that native code reads.
    """

    _last: _Last | None

    def _forget(self, names: Iterable[str]) -> None:
        super()._forget(names)
        self._last = None

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
            When a weight has become NaN or infinite, at the first step after which it has; on CUDA
            devices some steps later, since nothing waits for them: there the chain has stopped.
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
        if hooks:
            return _hooked_step(self, closure, noise_generator=noise_generator)
        return self._step(closure, noise_generator=noise_generator)

    step.hooked = True  # type: ignore[attr-defined]

    def _step(
        self, closure: Callable[[], Any] | None, *, noise_generator: torch.Generator | None
    ) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        _, outcome = self._advance(noise_generator)
        if outcome is not None and not outcome.finite:
            self._flag(outcome.nonfinite.tolist(), self.param_groups[0]["step"] - 1)
        return loss

    def _advance(self, noise_generator: torch.Generator | None) -> tuple[int, Outcome | None]:
        """Move the parameters that have gradients; return the key, and what became of them."""
        groups, readings, plan = self.param_groups, self._readings, self._plan
        if plan.chain is not None:
            self._attend(plan.chain)
        step, seed = readings.counters(groups)
        readings.read(groups)
        settings, saving, sketch = readings.settings, readings.saving, readings.sketch
        thermostat = self._read_thermostat(settings) if self.shared_names else 0.0
        grads = plan.bind(groups, self.state, step, settings)
        if plan.renewed:  # an anchor may have gone with a state that was cleared
            readings.check(groups)
        if noise_generator is not None:
            key = draw_key(noise_generator)
        elif seed is None:
            key = seed = draw_key()
        else:
            key = seed
        plan.keep(groups, self.state)
        moments = any(saving)
        outcome: Outcome | None = None
        self._last = None
        if isinstance(plan.segments, DeviceSegments):
            outcome = device_step(
                plan.segments, settings, key, step, thermostat, moments=moments, sketch=sketch
            )
        elif plan.segments is not None:
            outcome = native_step(
                plan.segments, settings, key, step, thermostat, moments=moments, sketch=sketch
            )
        elif plan.members:
            outcome = reference_step(
                self.rule, plan.members, grads, settings, key, step, thermostat, sketch
            )
        readings.write(groups, step + 1, seed)
        if plan.chain is not None and plan.chain.recorded:  # in a graph, and not taken yet
            readings.write(groups, step, seed)
        if outcome is None:
            return key, None
        if moments or sketch:
            self._last = _Last(outcome, plan.members, settings, saving)
        if "thermostat" in groups[0]:
            for group in groups:
                group["thermostat"] = outcome.thermostat
        return key, outcome

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
        if self._last is None or self._last.outcome.sketches is None:
            raise RuntimeError("get_sketches needs a step with gradients first")
        return sketches_of(self._last.outcome.sketches)

    def _parts(self) -> list[tuple[Tensor, int, Part]]:
        """Return each parameter, its group and what was summed over it in the last step."""
        if not any(group["save_metrics"] for group in self.param_groups):
            raise RuntimeError("get_metrics needs save_metrics=True")
        if self._last is None or not any(self._last.saving):
            raise RuntimeError("get_metrics needs a step with gradients first")
        outcome, members, settings, saving = self._last
        assert outcome.moments is not None
        return [
            (m.w, m.group, Part(row, count, setting, *self.scales(setting)))
            for row, count, m in zip(outcome.moments, outcome.nonfinite, members, strict=True)
            if saving[m.group]
            for setting in [settings[m.group]]
        ]


_untraced_step = _disable_dynamo(Sampler.step)


# In a function of its own, so that torch sees hooks and profiler as with any optimizer.
@Optimizer.profile_hook_step
def _hooked_step(
    self: Sampler,
    closure: Callable[[], Any] | None,
    *,
    noise_generator: torch.Generator | None,
) -> Any:
    return self._step(closure, noise_generator=noise_generator)
