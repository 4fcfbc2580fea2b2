"""Many chains of one kind of sampler, stacked: one native step moves them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastllc.kernels import Checked, Member, Segments, Setting
from fastllc.samplers.judge import Judge
from fastllc.samplers.metrics import Metrics, metrics_of_sums
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.settings import needs_anchor
from fastllc.samplers.state import missing_state, spread_masks

__all__ = ["Blueprint", "Stack", "blueprint"]

Bound = TypeVar("Bound", bound=Checked)


class Blueprint(NamedTuple):
    """What a sampler that was made for one chain says about it.

    Attributes
    ----------
    kind : its class
    settings : of each parameter group
    scales : the factors of drift and noise of each group
    thermostat : where it starts; 0 without one
    groups, masks, exact, anchored : for each parameter the index of its group, its mask, whether it
        keeps what low precision cannot hold, and whether something needs its anchor
    saving : whether steps keep their metrics
    """

    kind: type[Sampler]
    settings: list[Setting]
    scales: list[tuple[float, float]]
    thermostat: float
    groups: list[int]
    masks: list[Tensor | None]
    exact: list[bool]
    anchored: list[bool]
    saving: bool


def blueprint(sampler: Sampler) -> Blueprint:
    """Read a sampler that has not stepped yet.

    Examples
    --------
    >>> import torch
    >>> from fastllc.samplers.sgld import SGLD
    >>> blueprint(SGLD([torch.zeros(2)], lr=0.5)).scales
    [(0.25, 0.7071067811865476)]
    """
    groups = sampler.param_groups
    settings = [sampler.setting(group) for group in groups]
    sizes = [len(group["params"]) for group in groups]
    saving = any(group["save_metrics"] for group in groups)
    has_thermostat = "thermostat" in groups[0]
    return Blueprint(
        kind=type(sampler),
        settings=settings,
        scales=[sampler.scales(setting) for setting in settings],
        thermostat=settings[0].friction if has_thermostat else 0.0,
        groups=[i for i, size in enumerate(sizes) for _ in range(size)],
        masks=[
            m for g, n in zip(groups, sizes, strict=True) for m in spread_masks(g) or [None] * n
        ],
        exact=[g["rounding"] == "exact" for g in groups for _ in g["params"]],
        anchored=[
            needs_anchor(setting) or saving
            for setting, n in zip(settings, sizes, strict=True)
            for _ in range(n)
        ],
        saving=saving,
    )


class Stack:
    """K chains over parameters stacked as [K, *shape], each with settings and noise of its own.

    Parameters
    ----------
    blueprints : sequence of Blueprint
        Of each chain; they differ in their settings alone.
    weights : sequence of Tensor
        Parameters, [K, *shape] each, contiguous; they are moved in place.
    anchors : sequence of Tensor
        w0 of each parameter, [A, *shape].
    rows : sequence of int
        Which row of the anchors is that of each chain.
    keys : sequence of int
        Keys of the noise.

    Attributes
    ----------
    judge : Judge
        Of their steps.

    Examples
    --------
    >>> import torch
    >>> from fastllc.samplers.sgld import SGLD
    >>> w = torch.ones(2, 3)
    >>> plan = blueprint(SGLD([torch.ones(3)], lr=0.5, noise_level=0.0))
    >>> stack = Stack([plan, plan], [w], [w[:1]], rows=[0, 0], keys=[1, 2])
    >>> stack.step([torch.ones(2, 3)], 0, np.array([True, False])).tolist()
    [True, True]
    >>> w[:, 0].tolist()
    [0.75, 1.0]
    """

    def __init__(
        self,
        blueprints: Sequence[Blueprint],
        weights: Sequence[Tensor],
        anchors: Sequence[Tensor],
        rows: Sequence[int],
        keys: Sequence[int],
    ) -> None:
        first = blueprints[0]
        self._kind, self._saving = first.kind, first.saving
        self._settings = [
            [plan.settings[group] for plan in blueprints] for group in range(len(first.settings))
        ]
        # [factor][group][chain]: nbeta, localization, weight_decay, and the scales
        self._factors = np.array(
            [
                [(*plan.settings[g][1:4], *plan.scales[g]) for plan in blueprints]
                for g in range(len(first.settings))
            ]
        ).transpose(2, 0, 1)
        self._keys = np.array(keys, np.uint64)
        self._rows = rows
        self._thermostats = np.array([plan.thermostat for plan in blueprints], np.float64)
        self._members = [
            Member(
                w,
                id=i,
                group=first.groups[i],
                w0=w0 if any(plan.anchored[i] for plan in blueprints) else None,
                mask=first.masks[i],
                **state,  # type: ignore[arg-type]
            )
            for i, (w, w0) in enumerate(zip(weights, anchors, strict=True))
            for state in [missing_state({}, w, first.kind.state_names, exact=first.exact[i])]
        ]
        self.judge = Judge(self._members, self._settings, rows, keys)
        self._born: list[int | None] = [None] * len(self._members)
        self._segments: Segments | None = None
        self._moving: list[int] = []

    def step(
        self, grads: Sequence[Tensor | None], step: int, active: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Advance the active chains by one step; parameters without a gradient stay.

        Returns
        -------
        ndarray of bool, shape [K]
            Whether all weights that moved are finite; of chains that are not active, True.
        """
        segments = self._segments = self._bound(grads, step, self._segments, self._open)
        finite = segments.step(
            self._settings,
            self._keys,
            np.full(len(self._keys), step, np.int64),
            active=active,
            thermostats=self._thermostats,
            moments=self._saving,
        )
        self._thermostats = np.array(segments.thermostats)
        if finite:
            return np.ones(len(self._keys), np.bool_)
        return ~segments.sums.nonfinite.any(axis=1) | ~active

    def metrics(self) -> Metrics:
        """Return the `Metrics` of the last step, each of shape [K]."""
        assert self._segments is not None
        sums = self._segments.sums
        groups = [self._members[i].group for i in self._moving]
        return metrics_of_sums(
            sums.moments, sums.nonfinite, *self._factors[:, groups].swapaxes(1, 2)
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside weights and settings."""
        state = [{name: getattr(m, name) for name in _names(m)} for m in self._members]
        return {
            "state": state,
            "born": list(self._born),
            "thermostats": self._thermostats.tolist(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for member, state in zip(self._members, saved["state"], strict=True):
            for name in _names(member):
                getattr(member, name).copy_(state[name])
        self._born = list(saved["born"])
        self._thermostats = np.array(saved["thermostats"])
        self._segments = None

    def _open(self, members: list[Member]) -> Segments:
        return Segments(members, self._kind.rule, chains=len(self._keys), anchors=self._rows)

    def _bound(
        self,
        grads: Sequence[Tensor | None],
        step: int,
        opened: Bound | None,
        open_: Callable[[list[Member]], Bound],
    ) -> Bound:
        """Return the tensors that move, with their gradients: `opened`, if it is of the same."""
        moving = [i for i, grad in enumerate(grads) if grad is not None]
        if opened is None or moving != self._moving:
            for i in moving:
                if self._born[i] is None:
                    self._born[i] = step
            self._moving = moving
            opened = open_([self._members[i]._replace(born=self._born[i] or 0) for i in moving])
        opened.bind([grads[i] for i in moving])  # type: ignore[misc]
        return opened


def _names(member: Member) -> list[str]:
    kept = ("momentum", "square_avg", "residual")
    return [name for name in kept if getattr(member, name) is not None]
