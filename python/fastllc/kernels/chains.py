"""The rows of chains that a device keeps: it counts their steps and stops those that are lost."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastllc import _core
from fastllc.kernels import streams

__all__ = ["FROZEN", "MOVING", "UNSTOPPABLE", "Chains"]

# A chain that moves is FROZEN by the device in the step that leaves a weight NaN or infinite; its
# step has been counted then. An UNSTOPPABLE one goes on.
FROZEN, MOVING, UNSTOPPABLE = 0, 1, 2
_FIELDS: tuple[str, ...] = _core.CHAIN.names or ()


class Chains:
    """K rows of ``_core.CHAIN`` on a device, which outlive the tables of the tensors that move.

    What the device holds is predicted, and nothing is uploaded that is there already: keys stay,
    steps are one more after each step. Captured steps are counted by the device alone, and so are
    thermostats; what the host says of them counts when it changes.

    Parameters
    ----------
    count : int
        K.
    device : torch.device
        A CUDA device.
    anchors : sequence of int, optional
        The row of the anchors of each chain.

    Attributes
    ----------
    table : Tensor, int64, [K, 5]
        The rows, on the device.
    captured : bool
        Whether a step has been captured, so that the device may be further than anybody knows.
    recorded : bool
        Whether the last step was captured, and not taken.
    """

    def __init__(
        self, count: int, device: torch.device, anchors: Sequence[int] | None = None
    ) -> None:
        rows = np.zeros(count, _core.CHAIN)
        rows["active"] = MOVING
        rows["anchor"] = 0 if anchors is None else anchors
        self.table = streams.buffer((count, len(_FIELDS)), torch.int64, device, "chains")
        streams.upload(self.table, rows.view(np.int64).reshape(count, -1), "chains")
        self._said: dict[str, Any] = {}
        self._active: NDArray[np.bool_] | None = None
        self.captured = self.recorded = False

    def said(self, name: str) -> Any:
        """Return what the host has said of a column, or knows."""
        return self._said.get(name)

    def say(
        self,
        keys: Sequence[int] | NDArray[np.uint64],
        steps: Sequence[int] | NDArray[np.int64],
        thermostats: Sequence[float] | NDArray[np.float64] | None = None,
    ) -> None:
        """Tell the device what is to be in its rows, where that is not what it will be anyway."""
        said = self._said
        if not _equal(keys, said.get("key")):
            self._upload("key", np.array(keys, np.uint64))
        if not _equal(steps, said.get("step")):
            self._upload("step", np.array(steps, np.int64))
        if thermostats is not None and not _identical(thermostats, said.get("thermostat")):
            self._upload("thermostat", np.array(thermostats, np.float64))
            said["thermostat"] = thermostats
        said["key"], said["step"] = keys, steps

    def counted(self) -> None:
        """Take note that the device has counted a step, or will in replays."""
        self.recorded = streams.capturing()
        if self.recorded:
            self.captured = True
            return
        steps = self._said["step"]
        self._said["step"] = (
            steps + 1 if isinstance(steps, np.ndarray) else [step + 1 for step in steps]
        )

    def freeze(self, active: NDArray[np.bool_]) -> None:
        """Stop the chains that are not active, beside those that the device has stopped."""
        if self._active is None:
            self._active = np.ones(len(active), np.bool_)
        if np.array_equal(active, self._active):
            return
        self._active = active.copy()
        kept = torch.empty_like(self.column("active"))
        streams.upload(kept, active.astype(np.int64), "which chains move")
        self.column("active").mul_(kept)

    def activate(self, how: int, steps: Sequence[int]) -> None:
        """Set all chains in motion, from the given steps on."""
        self._upload("active", np.full(len(self.table), how))
        self._upload("step", np.array(steps, np.int64))
        self._said["step"] = list(steps)

    def recording(self) -> bool:
        """Whether steps are captured into a graph at the moment."""
        with streams.guard(self.table.device):
            return streams.capturing()

    def column(self, name: str) -> Tensor:
        """Return a column of the table, [K], on the device."""
        column = self.table[:, _FIELDS.index(name)]
        return column.view(torch.float64) if name == "thermostat" else column

    def fetch(self, *beside: Tensor) -> streams.Fetched:
        """Send the rows, and tensors beside them, to the host; see `rows`."""
        return streams.Fetched([self.table, *beside])

    def known(self, rows: NDArray[np.void]) -> None:
        """Take note of what the device's rows are now."""
        self._said["step"] = rows["step"].tolist()
        self._said["thermostat"] = rows["thermostat"].tolist()

    def _upload(self, name: str, values: NDArray[Any]) -> None:
        streams.upload(self.table[:, _FIELDS.index(name)], values.view(np.int64), name)

    @staticmethod
    def rows(table: Tensor) -> NDArray[np.void]:
        """Return the rows of a table that has come to the host.

        Examples
        --------
        >>> Chains.rows(torch.tensor([[7, 3, 1, 0, 0]]))["step"]
        array([3])
        """
        return table.numpy().view(_core.CHAIN).reshape(-1)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):  # of one chain: 0.1 us instead of 4
        return a == b
    return b is not None and (a is b or np.array_equal(a, b))


def _identical(a: Any, b: Any) -> bool:
    """Whether these are the very numbers; equal ones may have been set anew."""
    if isinstance(a, list) and isinstance(b, list):
        return all(map(is_, a, b))
    return a is b
