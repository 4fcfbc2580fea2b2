"""Steps of checked tensors on a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core
from fastllc.kernels import cuda, streams
from fastllc.kernels.chains import Chains
from fastllc.kernels.checked import Checked
from fastllc.kernels.tables import Member, Setting, Sketch

__all__ = ["DeviceSegments"]


class DeviceSegments(Checked):
    """A fixed list of parameter tensors on a CUDA device, packed for native steps.

    `bind` and `step` are those of `Segments`, but nothing waits for the device: what a step sums
    stays there. It runs on torch's current stream, and uploads only what has changed since the
    last step, so that a step like the one before it can be captured into a CUDA graph.

    Parameters
    ----------
    members, chains, anchors
        As in `Checked`.
    rule : _core.Rule
        How they move.
    rows : Chains
        The chains that they are of.

    Attributes
    ----------
    nonfinite : Tensor, int64, [chain, tensor]
        Number of updated weights that are NaN or infinite after the last step that a chain moved.
    moments : Tensor, float64, [chain, tensor, moment]; or None
        As in `StepSums`; None before a step has been asked for them.
    sketches : Tensor, float64, [chain, component, bucket]; or None
    first : tuple
        The moments, nonfinite and sketches of the first chain, as far as the last step made them.

    Raises
    ------
    TypeError, ValueError
        If a tensor cannot be sampled, shares memory with another, or does not fit the others.
    RuntimeError
        If there are no kernels for the device, or a graph is captured.
    """

    def __init__(
        self,
        members: Sequence[Member],
        rule: _core.Rule,
        rows: Chains,
        chains: int | None = None,
        anchors: Sequence[int] | None = None,
    ) -> None:
        super().__init__(members, chains, anchors)
        module, device = cuda.load(self._device), self._device
        self.rows = rows
        self._guard = streams.guard(device)
        with self._guard:
            self._native = module.Step(
                int(rule), self._table, self._count, self._groups, device.index
            )
            counts, fields = (self._count, len(members)), len(_core.SETTING.names or ())
            self.nonfinite = streams.buffer(counts, torch.int64, device, "parameters")
            table = (self._groups, self._count, fields)
            self._settings = streams.buffer(table, torch.float64, device, "parameters")
        self._given: list[list[Setting]] = []
        self.moments: Tensor | None = None
        self.sketches: Tensor | None = None
        self._wanted: tuple[bool, Sketch | None] | None = None
        self._fixed: tuple[int, ...] = ()
        self._stream = streams.current_stream(device)

    def step(
        self,
        settings: Sequence[Sequence[Setting]],
        keys: Sequence[int] | NDArray[np.uint64],
        steps: Sequence[int] | NDArray[np.int64],
        *,
        active: NDArray[np.bool_] | None = None,
        thermostats: Sequence[float] | NDArray[np.float64] | None = None,
        moments: bool = False,
        sketch: Sketch | None = None,
    ) -> None:
        """Launch one fused step of every active chain; arguments are those of `Segments.step`.

        Raises
        ------
        RuntimeError
            Without a `bind` since the last step; or if a graph is captured and the device does not
            hold yet what the step needs.
        """
        if not self._bound:
            raise RuntimeError("step needs gradients: call bind before each step")
        with self._guard:
            if settings != self._given:
                rows = np.array(settings[: self._groups], np.float64)
                streams.upload(self._settings, rows, "settings")
                self._given = [list(row) for row in settings]
            self.rows.say(keys, steps, thermostats)
            if active is not None:
                self.rows.freeze(active)
            if (moments, sketch) != self._wanted:
                self._reserve(moments, sketch)
            stream = streams.current_stream(self._device)
            if stream != self._stream and not streams.capturing():
                self._hold(stream)
            self._native.run(stream, *self._fixed)
            self.rows.counted()
            self._close()

    def _reserve(self, moments: bool, sketch: Sketch | None) -> None:
        """Make room for what a step leaves behind."""
        dim = sketch.dim if sketch else 0

        def room(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
            return streams.buffer(shape, dtype, self._device, "save_metrics or sketch_dim")

        if moments and self.moments is None:
            self.moments = room((*self.nonfinite.shape, len(_core.MOMENTS)))
        shape = (self._count, len(_core.COMPONENTS), dim)
        if sketch and (self.sketches is None or self.sketches.shape != shape):
            self.sketches = room(shape)
        self._workspace = room((max(1, self._native.workspace(moments, dim)),), torch.uint8)
        self._fixed = (
            self.rows.table.data_ptr(),
            self._settings.data_ptr(),
            self.nonfinite.data_ptr(),
            self.moments.data_ptr() if moments and self.moments is not None else 0,
            self.sketches.data_ptr() if sketch and self.sketches is not None else 0,
            dim,
            sketch.seed if sketch else 0,
            self._workspace.data_ptr(),
        )
        self._wanted = moments, sketch
        self.first = (
            self.moments[0] if moments and self.moments is not None else None,
            self.nonfinite[0],
            self.sketches[0] if sketch and self.sketches is not None else None,
        )

    def _hold(self, stream: int) -> None:
        """Keep torch from giving tables away before work on a new stream has read them."""
        tables = (self.rows.table, self._settings, self.nonfinite, self._workspace)
        for table in (*tables, self.moments, self.sketches):
            if table is not None:
                streams.hold(table)
        self._stream = stream
