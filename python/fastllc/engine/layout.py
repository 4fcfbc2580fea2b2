"""What a trace holds: names, dimensions and types of its arrays, and where they are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Array", "Arrays", "Axes", "Memory", "Variable"]


class Array(Protocol):
    """As much of an array as the engine needs; numpy's and Zarr's have it."""

    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> Any:
        """Read."""

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write."""


class Axes(NamedTuple):
    """The leading dimensions of a trace: those of checkpoints and settings only if asked for."""

    checkpoints: list[Any] | None
    settings: list[dict[str, float]]
    grid: bool
    num_chains: int

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the leading dimensions."""
        asked = {"checkpoint": self.checkpoints is not None, "setting": self.grid, "chain": True}
        return tuple(name for name, wanted in asked.items() if wanted)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the leading dimensions."""
        sizes = {
            "checkpoint": len(self.checkpoints or ()),
            "setting": len(self.settings),
            "chain": self.num_chains,
        }
        return tuple(sizes[name] for name in self.dims)

    def place(self, ranges: Sequence[slice]) -> tuple[slice, ...]:
        """Return where a (checkpoint, setting, chain) box lies in an array."""
        every = ("checkpoint", "setting", "chain")
        return tuple(r for name, r in zip(every, ranges, strict=True) if name in self.dims)

    def coords(self) -> xr.Dataset:
        """Return the coordinates of the root."""
        coords: dict[str, Any] = {"chain": np.arange(self.num_chains)}
        if self.checkpoints is not None:
            coords["checkpoint"] = self.checkpoints
        if self.grid:
            coords["setting"] = np.arange(len(self.settings))
        for name in self.settings[0]:
            values = [setting[name] for setting in self.settings]
            coords[name] = ("setting", values) if self.grid else values[0]
        return xr.Dataset(coords=coords)


class Variable(NamedTuple):
    """One array of a trace.

    Attributes
    ----------
    dims, shape, dtype : as in xarray
    fill : what it holds where nothing has been written
    chunk : how many items along the dimension behind the leading ones belong together
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: float = math.nan
    chunk: int = 1


class Arrays(Protocol):
    """Where the arrays of a run are kept."""

    def __getitem__(self, name: str) -> Array:
        """One array, by its path."""

    def chunk(self, name: str) -> int:
        """How many items of an array along the time belong together."""

    def finish(self) -> None:
        """Say in the attributes that nothing is missing."""

    def tree(self) -> xr.DataTree:
        """Everything as one labelled tree."""


class Memory:
    """Arrays in memory.

    Parameters
    ----------
    variables : mapping of str to Variable
        By path, such as ``"steps/loss"``.
    fixed : mapping of str to xarray.Dataset
        Coordinates and constants, by group; attributes of the root.

    Examples
    --------
    >>> memory = Memory({"steps/loss": Variable(("step",), (2,))}, {})
    >>> memory["steps/loss"][0] = 1.0
    >>> memory.tree()["steps/loss"].values
    array([ 1., nan], dtype=float32)
    """

    def __init__(self, variables: Mapping[str, Variable], fixed: Mapping[str, xr.Dataset]) -> None:
        self._variables = variables
        self._fixed = fixed
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.full(v.shape, v.fill, v.dtype) for name, v in variables.items()
        }

    def __getitem__(self, name: str) -> Array:
        """Return an array by its path."""
        return self._arrays[name]

    def chunk(self, name: str) -> int:
        """Return how many items of an array along the time belong together."""
        return self._variables[name].chunk

    def finish(self) -> None:
        """Say in the attributes that nothing is missing."""
        self._fixed["/"].attrs["interrupted"] = 0

    def tree(self) -> xr.DataTree:
        """Return everything as one tree, which shares the arrays."""
        groups = dict(self._fixed)
        for path, variable in self._variables.items():
            group, _, name = path.rpartition("/")
            known = groups.get(group or "/", xr.Dataset())
            groups[group or "/"] = known.assign({name: (variable.dims, self._arrays[path])})
        return xr.DataTree.from_dict(groups)
