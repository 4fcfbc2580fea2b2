"""Many chains on a device: one launch moves them all, and nothing waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastllc.kernels import Chains, DeviceSegments, Member, send
from fastllc.samplers.metrics import Metrics, metrics_of_sums
from fastllc.samplers.stack import Stack

__all__ = ["DeviceStack"]


class DeviceStack(Stack):
    """A `Stack` on a CUDA device, which stops the chains that it loses by itself; see `alive`."""

    _launched: DeviceSegments | None = None
    _chains: Chains | None = None
    _scales: Tensor | None = None

    def step(
        self, grads: Sequence[Tensor | None], step: int, active: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Launch a step of the active chains; parameters without a gradient stay.

        Returns
        -------
        ndarray of bool, shape [K]
            All True: which chains have been lost, `alive` tells.
        """
        launched = self._launched = self._bound(grads, step, self._launched, self._launch)
        launched.step(
            self._settings,
            self._keys,
            np.full(len(self._keys), step, np.int64),
            active=active,
            thermostats=self._thermostats,
            moments=self._saving,
        )
        return np.ones(len(self._keys), np.bool_)

    def alive(self) -> Tensor | None:
        """Return which chains still move, [K] on the device; None before the first step."""
        return None if self._chains is None else self._chains.column("active") > 0

    def metrics(self) -> Metrics:
        """Return the `Metrics` of the last step, each of shape [K], on the device."""
        assert self._launched is not None
        sums = self._launched
        assert sums.moments is not None
        if self._scales is None:
            groups = [self._members[i].group for i in self._moving]
            factors = np.ascontiguousarray(self._factors[:, groups].swapaxes(1, 2))
            self._scales = send(factors, sums.moments.device)
        return metrics_of_sums(sums.moments, sums.nonfinite, *self._scales)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside weights and settings; waits for it."""
        saved = super().state_dict()
        if self._chains is not None:
            rows = Chains.rows(self._chains.fetch().wait()[0])
            saved["thermostats"] = rows["thermostat"].tolist()
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        super().load_state_dict(saved)
        self._launched = self._chains = None

    def _launch(self, members: list[Member]) -> DeviceSegments:
        if self._chains is None:
            self._chains = Chains(len(self._keys), members[0].w.device, self._rows)
        self._scales = None
        return DeviceSegments(
            members, self._kind.rule, self._chains, chains=len(self._keys), anchors=self._rows
        )
