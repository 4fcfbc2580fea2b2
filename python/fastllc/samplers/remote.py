"""What a sampler knows of a chain on a device that it does not wait for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from fastllc import _core
from fastllc.errors import DivergenceWarning, warn
from fastllc.kernels import UNSTOPPABLE, Chains, DeviceSegments, Fetched
from fastllc.samplers.groups import Grouped
from fastllc.samplers.plan import Plan

__all__ = ["Remote"]

# How often the device is asked whether the chain is lost: to ask takes half a small step.
_STEPS_BW_LOOKS = 64


class Remote(Grouped):
    """A `Grouped` whose chain may be on a device, which counts its steps and moves its thermostat.

    The groups have what the device was told last; `_settle` waits for it, and puts there what it
    has come to. In between the device is looked at now and then, without waiting, for weights that
    are not finite.
    """

    rule: ClassVar[_core.Rule]
    state_names: ClassVar[tuple[str, ...]] = ()  # of the tensors that the rule keeps

    def _forget(self, names: Iterable[str]) -> None:
        super()._forget(names)
        self._plan = Plan(self.rule, self.state_names)
        self._fetched: Fetched | None = None
        self._until_look = _STEPS_BW_LOOKS

    @property
    def chain(self) -> Chains | None:
        """The row of the chain on its CUDA device; None on others, and before the first step."""
        return self._plan.chain

    def _attend(self, chain: Chains) -> None:
        """Do before a step what is due, without waiting for the device."""
        if chain.captured and self._plan.changed(self.param_groups, self.state):
            self._settle()  # state that is born now must know in which step
        self._until_look -= 1
        if self._until_look > 0 or self._lost_at is not None or chain.recording():
            return
        self._until_look = _STEPS_BW_LOOKS
        segments = self._plan.segments
        if self._fetched is None and isinstance(segments, DeviceSegments):
            self._fetched = chain.fetch(segments.nonfinite)
        elif self._fetched is not None and self._fetched.arrived():
            self._learn(chain, self._fetched)
            self._fetched = None

    def _settle(self) -> None:
        """Wait for the device, and take up where the chain is."""
        chain, segments = self._plan.chain, self._plan.segments
        if chain is None or not isinstance(segments, DeviceSegments):
            return
        groups = self.param_groups
        step, seed = self._readings.counters(groups)
        untouched, captured = chain.said("step") == [step], chain.captured
        same = "thermostat" in groups[0] and groups[0]["thermostat"] is chain.said("thermostat")[0]
        fetched = chain.fetch(segments.nonfinite)
        chain.known(Chains.rows(fetched.wait()[0]))
        if captured and untouched:
            (step,) = chain.said("step")
            self._readings.write(groups, step, seed)
        if same:
            for group in groups:
                (group["thermostat"],) = chain.said("thermostat")
        self._learn(chain, fetched)

    def _learn(self, chain: Chains, fetched: Fetched) -> None:
        """Tell of a chain that the device has stopped; from now on it goes on as on the CPU."""
        table, counts = fetched.wait()
        (row,) = Chains.rows(table)
        if row["active"] or self._lost_at is not None:
            return
        self._flag(counts.tolist()[0], int(row["step"]) - 1)
        step, _ = self._readings.counters(self.param_groups)
        chain.activate(UNSTOPPABLE, [step])

    @property
    def nonfinite_step(self) -> int | None:
        """The step, from 0, after which a weight first was NaN or infinite; None: there is none.

        On a CUDA device this waits for the steps under way.
        """
        self._settle()
        return self._lost_at

    @property
    def _lost_at(self) -> int | None:
        found: int | None = self.param_groups[0].get("nonfinite_step")
        return found

    def _flag(self, counts: list[int], step: int) -> None:
        """Tell of non-finite weights, once."""
        if self._lost_at is not None:
            return
        for group in self.param_groups:
            group["nonfinite_step"] = step
        where = ", ".join(
            f"params[{member.id}] ({count} of {member.w.numel()})"
            for member, count in zip(self._plan.members, counts, strict=True)
            if count
        )
        warn(
            f"step {step} left NaN or infinite weights in {where}; lower lr or nbeta, or set "
            "bounding_box_size",
            DivergenceWarning,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters are anchored where they are now.

        Raises
        ------
        TypeError, ValueError
            If a setting is out of range or a tensor cannot be sampled; no group is added then.
        """
        self._settle()
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return settings and state, from which the next step follows; see `load_state_dict`."""
        self._settle()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        found: dict[str, Any] = super().__getstate__()
        return found
