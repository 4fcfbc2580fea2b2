"""A run kept in a folder while it is computed: arrays in Zarr, and where to go on from."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xarray as xr

from fastllc.engine.fingerprint import differences
from fastllc.engine.layout import Array, Variable

__all__ = ["Position", "Store"]

_ABOUT, _POSITION = "run.json", "position.pt"

# Saving takes at most this share of the time, and no run is asked more often than this.
_MAX_SHARE = 0.05
_MIN_SECONDS = 1.0


class Position(NamedTuple):
    """How far a run has come.

    Attributes
    ----------
    box, step : the box under way, and its next step; the number of boxes, if all are done
    state : what the chains of the box depend on
    """

    box: int
    step: int
    state: dict[str, Any]


class Store:
    """A run in a folder.

    The folder is a Zarr group, which xarray opens. Beside its arrays there are ``run.json``, what
    the run is made of, and ``position.pt``, from where it goes on; both replace what was there in
    one instant. Arrays are written before the position, and what lies behind the position is
    written again: killed at any moment, the run goes on as if it had never stopped.

    Parameters
    ----------
    path : path
        The folder; made if there is none.
    made_of : mapping of str to str
        The fingerprint of the run.
    seed : int
        Of the run, if it is not in the folder already.

    Attributes
    ----------
    about : dict
        ``fingerprint``, ``seed``, and what `create` adds.
    position : Position or None
        How far the run in the folder has come; None if there is none yet.

    Raises
    ------
    ImportError
        If zarr is not installed.
    ValueError
        If the folder holds another run, or something else.
    OSError
        If it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], made_of: Mapping[str, str], seed: int) -> None:
        self._zarr = _import_zarr()
        self.path = Path(path)
        self.position: Position | None = None
        self.about: dict[str, Any] = {"fingerprint": dict(made_of), "seed": seed}
        self._last = time.monotonic()
        self._cost = 0.0
        if (self.path / _ABOUT).exists():
            self.about = json.loads((self.path / _ABOUT).read_text())
            found = differences(self.about["fingerprint"], made_of)
            if found:
                raise ValueError(
                    f"store must hold the run that is asked for, got {self.path} of another: "
                    f"{'; '.join(found)}"
                )
            self.position = Position(**torch.load(self.path / _POSITION, weights_only=True))
        elif self.path.exists() and any(self.path.iterdir()):
            raise ValueError(f"store must be a new folder or that of a run, got {self.path}")

    def create(
        self,
        variables: Mapping[str, Variable],
        fixed: Mapping[str, xr.Dataset],
        leading: tuple[int, ...],
        **about: Any,
    ) -> None:
        """Write everything that is known before the first step.

        Parameters
        ----------
        variables, fixed
            As `Memory` takes them.
        leading : tuple of int
            Sizes of a chunk along the leading dimensions.
        **about
            What a later run must know beside the fingerprint.
        """
        # In a folder beside it, which becomes the store in one instant.
        final, self.path = self.path, self.path.with_name(self.path.name + ".partial")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        for group, dataset in fixed.items():
            dataset.to_zarr(
                self.path,
                group=group.strip("/") or None,
                mode="a",
                zarr_format=2,  # the third leaves strings to each implementation
                consolidated=False,
            )
        root = self._zarr.open_group(self.path, mode="a", zarr_format=2)
        for name, v in variables.items():
            empty = v.dtype == "float32"
            array = root.create_array(
                name,
                shape=v.shape,
                chunks=(*leading, v.chunk, *v.shape[len(leading) + 1 :])[: len(v.shape)],
                dtype=v.dtype,
                fill_value=v.fill if empty else None,
                overwrite=True,
            )
            array.attrs["_ARRAY_DIMENSIONS"] = list(v.dims)
            if not empty:
                array[...] = v.fill
        self.about |= about
        (self.path / _ABOUT).write_text(json.dumps(self.about, indent=1))
        self.save(Position(0, 0, {}))
        os.replace(self.path, final)
        self.path = final

    def __getitem__(self, name: str) -> Array:
        """Return an array by its path."""
        found: Array = self._zarr.open_array(self.path / name, mode="r+", zarr_format=2)
        return found

    def chunk(self, name: str) -> int:
        """Return how many items of an array along the time belong together."""
        array: Any = self[name]
        behind = len(array.attrs["_ARRAY_DIMENSIONS"]) - (
            "sample" in array.attrs["_ARRAY_DIMENSIONS"]
        )
        return int(array.chunks[behind - 1])

    def due(self) -> bool:
        """Whether so much time has passed that it is worth saving."""
        return time.monotonic() - self._last > max(_MIN_SECONDS, self._cost / _MAX_SHARE)

    def save(self, position: Position) -> None:
        """Remember where the run goes on: everything before has been written."""
        start = time.monotonic()
        partial = self.path / f"{_POSITION}.partial"
        torch.save(position._asdict(), partial)
        os.replace(partial, self.path / _POSITION)
        self._last = time.monotonic()
        self._cost = self._last - start

    def tree(self) -> xr.DataTree:
        """Open the folder; large arrays are read when they are used."""
        return xr.open_datatree(self.path, engine="zarr", consolidated=False)


def _import_zarr() -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError("store needs zarr: pip install 'fastllc[store]'", name="zarr") from error
    return zarr
