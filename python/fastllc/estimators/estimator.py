"""What all estimators share: settings, a run, and the trace that they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import xarray as xr
from torch import nn

from fastllc.engine.checkpoints import Weights
from fastllc.engine.data import Data
from fastllc.engine.objective import Evaluate, LossFn
from fastllc.engine.sampling import Sampling

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Estimator", "Value", "value"]

Value: TypeAlias = "float | xr.DataArray"
"""A number; for several checkpoints or settings an array over them."""


def value(found: xr.DataArray) -> Value:
    """Return a number where there is one alone.

    Examples
    --------
    >>> value(xr.DataArray(1.5))
    1.5
    """
    return found if found.ndim else float(found)


@dataclass(kw_only=True, eq=False)
class Estimator(Sampling):
    """Base of the estimators: `Sampling`, and what is read of its trace.

    Attributes
    ----------
    trace_ : xarray.DataTree
        See `fastllc.sample`.
    """

    trace_: xr.DataTree = field(init=False, repr=False)

    def fit(
        self,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        data: Data,
        loss_fn: LossFn | None = None,
        *,
        evaluate: Evaluate | None = None,
        checkpoints: Sequence[Weights] | Mapping[str, Weights] | None = None,
    ) -> Self:
        """Sample, and read the result from the trace.

        Parameters, what is raised and warned of are those of `fastllc.sample`.

        Returns
        -------
        Estimator
            This object, with the results in the attributes that end in ``_``.
        """
        sampling = self._sampling(model, data, loss_fn, evaluate, checkpoints)
        self.trace_ = sampling.run(model, data, loss_fn, evaluate=evaluate, checkpoints=checkpoints)
        self._read(self.trace_)
        return self

    def _sampling(
        self,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        data: Data,
        loss_fn: LossFn | None,
        evaluate: Evaluate | None,
        checkpoints: Sequence[Weights] | Mapping[str, Weights] | None,
    ) -> Sampling:
        """Return the settings to run with."""
        return self

    def _read(self, trace: xr.DataTree) -> None:
        """Read the results."""

    def _fitted(self) -> xr.DataTree:
        if not hasattr(self, "trace_"):
            raise AttributeError(f"this {type(self).__name__} has no trace yet: call fit first")
        return self.trace_
