"""Steps of checked tensors on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fastllc import _core
from fastllc.kernels.checked import Checked
from fastllc.kernels.tables import Member, Setting, Sketch, StepSums

__all__ = ["Segments"]


class Segments(Checked):
    """A fixed list of parameter tensors on the CPU, packed for native steps of one or many chains.

    `bind` checks the gradients of a step and takes their addresses; `step` runs it.

    Parameters
    ----------
    members, chains, anchors
        As in `Checked`; on the CPU.
    rule : _core.Rule, optional
        How they move.

    Raises
    ------
    TypeError, ValueError
        If a tensor cannot be sampled, shares memory with another, or does not fit the others.

    Examples
    --------
    >>> w = torch.zeros(3)
    >>> segments = Segments([Member(w, id=0)])
    >>> segments.bind([torch.ones(3)])
    >>> segments.step([[Setting(0.1, noise_level=0.0)]], keys=[0], steps=[0])
    True
    >>> w
    tensor([-0.0500, -0.0500, -0.0500])
    """

    def __init__(
        self,
        members: Sequence[Member],
        rule: _core.Rule = _core.Rule.sgld,
        chains: int | None = None,
        anchors: Sequence[int] | None = None,
    ) -> None:
        super().__init__(members, chains, anchors)
        self._chains = np.ones(self._count, _core.CHAIN)
        self._chains["anchor"] = 0 if anchors is None else anchors
        self._settings = np.zeros((self._groups, self._count), _core.SETTING)
        self._given: list[list[Setting]] = []
        self._sums = StepSums(
            np.zeros((self._count, len(members), len(_core.MOMENTS))),
            np.zeros((self._count, len(members)), np.int64),
        )
        self._native = _core.StepTables(
            rule, self._table, self._chains, self._settings, *self._sums
        )
        self._sketch: Sketch | None = None
        self._sketches: NDArray[np.float64] | None = None

    def step(
        self,
        settings: Sequence[Sequence[Setting]],
        keys: Sequence[int] | NDArray[np.uint64],
        steps: Sequence[int] | NDArray[np.int64],
        *,
        active: Sequence[bool] | NDArray[np.bool_] | None = None,
        thermostats: Sequence[float] | NDArray[np.float64] | None = None,
        moments: bool = False,
        sketch: Sketch | None = None,
    ) -> bool:
        """Advance every active chain by one fused step, in place, with the bound gradients.

        Parameters
        ----------
        settings : sequence of sequence of Setting
            ``settings[group][chain]``.
        keys, steps : sequence of int
            Noise key (64 bits) and step (32 bits) of each chain.
        active : sequence of bool, optional
            Chains that are False are neither read nor written.
        thermostats : sequence of float, optional
            The friction that each chain's thermostat has come to; `thermostats` tells what it is
            afterwards.
        moments : bool
            Whether to sum the moments too.
        sketch : Sketch, optional
            How to sketch the step too; see `sketches`.

        Returns
        -------
        bool
            Whether all weights of the active chains are finite; `sums` tells which are not.

        Raises
        ------
        RuntimeError
            Without a `bind` since the last step.
        """
        if not self._bound:
            raise RuntimeError("step needs gradients: call bind before each step")
        if settings != self._given:
            self._settings[...] = settings[: len(self._settings)]
            self._given = [list(row) for row in settings]
        self._chains["key"] = keys
        self._chains["step"] = steps
        if active is not None:
            self._chains["active"] = active
        if thermostats is not None:
            self._chains["thermostat"] = thermostats
        if sketch != self._sketch:
            shape = (self._count, len(_core.COMPONENTS), sketch.dim) if sketch else None
            self._sketches = None if shape is None else np.zeros(shape)
            self._native.sketch(self._sketches, sketch.seed if sketch else 0)
            self._sketch = sketch
        nonfinite = self._native.run(moments, torch.get_num_threads())
        self._close()
        return nonfinite == 0

    @property
    def sums(self) -> StepSums:
        """What the last step summed; the next one writes over it."""
        return self._sums

    @property
    def sketches(self) -> NDArray[np.float64] | None:
        """Sketches of the last step by (chain, component, bucket); the next one writes over them.

        Components are those of ``_core.COMPONENTS``; None if the step was not sketched.
        """
        return self._sketches

    @property
    def thermostats(self) -> list[float]:
        """The thermostat of each chain after the last step."""
        found: list[float] = self._chains["thermostat"].tolist()
        return found
