"""A run kept in a folder while it is computed: arrays in Zarr, and where to go on from."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
import xarray as xr

from fastllc.engine.fingerprint import Fingerprint, differences, machine
from fastllc.engine.layout import Array, Variable
from fastllc.errors import warn

__all__ = ["Position", "Store"]

_ABOUT, _POSITION, _LOCK = "run.json", "position.pt", "fastllc.lock"

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
    """A run in a folder, for one process at a time until it is complete.

    The folder is a Zarr group, which xarray opens. Beside its arrays there are ``run.json``, what
    the run is made of; ``position.pt``, from where it goes on; and ``fastllc.lock``, which says
    that the folder is ours to write. A chunk of an array and the position replace what was there
    in one instant. Arrays are written before the position, and what lies behind the position is
    written again: killed at any moment, the run goes on as if it had never stopped. A folder
    without a position was left while it was made, and is made anew.

    Parameters
    ----------
    path : path
        The folder; made if there is none.
    made_of : mapping
        The fingerprint of the run.
    seed : int
        Of the run, if it is not in the folder already.

    Attributes
    ----------
    about : dict
        ``fingerprint``, ``machine``, ``seed``, and what `create` adds.
    position : Position or None
        How far the run in the folder has come; None if there is none yet.

    Raises
    ------
    ImportError
        If zarr is not installed.
    ValueError
        If the folder holds another run, or something else.
    OSError
        If it cannot be read or written, or another process writes there.
    """

    def __init__(self, path: str | os.PathLike[str], made_of: Fingerprint, seed: int) -> None:
        self._zarr = _import_zarr()
        self.path = Path(path)
        self.position: Position | None = None
        self.about: dict[str, Any] = {
            "fingerprint": {"seed": str(seed), **made_of},
            "machine": machine(),
            "seed": seed,
        }
        self._last = time.monotonic()
        self._cost = 0.0
        self._tried = False
        self._lock: IO[str] | None = None
        with _naming(self.path):
            self._read(made_of)
            if self.complete:
                return
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock = _locked(self.path / _LOCK)
                self._read(made_of)  # what another process may just have written
                self._tidy()
                self._compare_machines()
            except BaseException:
                self.close()
                raise

    @property
    def complete(self) -> bool:
        """Whether all boxes are done."""
        return self.position is not None and self.position.box == self.about["num_boxes"]

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
            What a later run must know beside the fingerprint; ``num_boxes`` at least.
        """
        with _naming(self.path), _quiet():
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
                    # Readers take what equals the fill value for missing, and integers for floats.
                    fill_value=v.fill if empty else None,
                )
                array.attrs["_ARRAY_DIMENSIONS"] = list(v.dims)
                if not empty:
                    array[...] = v.fill
            self._zarr.consolidate_metadata(self.path, zarr_format=2)
            self.about |= about
            (self.path / _ABOUT).write_text(json.dumps(self.about, indent=1))
        self.save(lambda: Position(0, 0, {}))

    def __getitem__(self, name: str) -> Array:
        """Return an array by its path."""
        return _Kept(self._array(name), self.path)

    def chunk(self, name: str) -> int:
        """Return how many items of an array along the time belong together."""
        array = self._array(name)
        dims = array.attrs["_ARRAY_DIMENSIONS"]
        return int(array.chunks[len(dims) - 1 - ("sample" in dims)])

    def due(self) -> bool:
        """Whether so much time has passed that it is worth saving."""
        return time.monotonic() - self._last > max(_MIN_SECONDS, self._cost / _MAX_SHARE)

    def save(self, reach: Callable[[], Position]) -> None:
        """Remember where the run goes on.

        Parameters
        ----------
        reach : callable
            Writes everything that lies before, and then returns how far the run has come.
        """
        start = time.monotonic()
        position = reach()
        with _naming(self.path):
            partial = self.path / f"{_POSITION}.partial"
            with partial.open("wb") as file:
                _save(position._asdict(), file)
            if position.state and not self._tried:
                _try(partial)
                self._tried = True
            os.replace(partial, self.path / _POSITION)
        self.position = position
        self._last = time.monotonic()
        self._cost = self._last - start

    def finish(self) -> None:
        """Say in the attributes that nothing is missing, unless they do."""
        with _naming(self.path), _quiet():
            root = self._zarr.open_group(self.path, mode="r", zarr_format=2)
            if root.attrs["interrupted"]:
                root = self._zarr.open_group(
                    self.path, mode="r+", zarr_format=2, use_consolidated=False
                )
                root.attrs["interrupted"] = 0
                self._zarr.consolidate_metadata(self.path, zarr_format=2)

    def tree(self) -> xr.DataTree:
        """Open the folder; arrays are read when they are used."""
        return xr.open_datatree(self.path, engine="zarr")

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.close()

    def _array(self, name: str) -> Any:
        return self._zarr.open_array(self.path / name, mode="r+", zarr_format=2)

    def _read(self, made_of: Fingerprint) -> None:
        """Find what an earlier run has left."""
        if not (self.path / _POSITION).exists():
            ours = not self.path.is_dir() or (self.path / _LOCK).exists()
            if not ours and any(self.path.iterdir()):
                raise ValueError(
                    f"store must be a new folder or that of a run, got {self.path} with other files"
                )
            return
        with _whole(self.path / _ABOUT) as file:
            about = json.loads(file.read_text())
        kept, here = about["fingerprint"], machine()
        alike = about["machine"] == here
        if found := differences(kept, {"seed": kept["seed"], **made_of}, alike=alike):
            raise ValueError(
                f"store must hold the run that is asked for, got {self.path} of another: "
                f"{'; '.join(found)}"
            )
        with _whole(self.path / _POSITION) as file:
            self.about, self.position = about, Position(**_load(file))

    def _tidy(self) -> None:
        """Remove what a process that was killed had not finished, and nothing else."""
        for entry in self.path.rglob("*.partial"):
            if entry.is_file():
                entry.unlink()
        if self.position is None:
            for entry in self.path.iterdir():
                if (entry / ".zgroup").exists() or (entry / ".zarray").exists():
                    shutil.rmtree(entry)
                elif entry.name in (_ABOUT, ".zgroup", ".zattrs", ".zmetadata"):
                    entry.unlink()

    def _compare_machines(self) -> None:
        if self.position is not None and self.about["machine"] != machine():
            found = differences(self.about["machine"], machine())
            warn(
                "the run goes on elsewhere than it began, so that its bits may not be those of an "
                f"uninterrupted one: {'; '.join(found)}"
            )


class _Kept:
    """An array of a store; what goes wrong with it is said of the store."""

    def __init__(self, array: Any, path: Path) -> None:
        self.shape: tuple[int, ...] = array.shape
        self._array = array
        self._path = path

    def __getitem__(self, index: Any) -> Any:
        return self._array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        with _naming(self._path):
            self._array[index] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Let zarr list a folder with files that are no arrays; readers do not, of whole metadata."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Object at .* is not recognized", UserWarning)
        yield


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the store in errors of files."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"store must be a folder that can be read and written, got {path}: {error.strerror}. "
            "What was saved there before is kept",
        ) from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Name a file that cannot be made sense of, such as the loss of power leaves."""
    try:
        yield path
    except OSError:
        raise
    except Exception as error:  # of torch.load anything
        raise ValueError(
            f"store must hold a run that can be read, got {path} that is damaged "
            f"({type(error).__name__}): remove the folder to begin anew"
        ) from error


def _locked(path: Path) -> IO[str]:
    """Open a file that no other process has open; a process that ends lets go of it."""
    file = path.open("a")
    try:
        # Unlike flock, not shared with the workers of a DataLoader, which may outlive a killed run.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise BlockingIOError(error.errno, "another process writes there") from error
    except OSError:
        pass  # a file system without locks
    return file


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # which torch takes for an error of its own
            raise error.__context__ from None
        raise


def _load(path: Path) -> dict[str, Any]:
    # Nothing that runs code: folders are passed on.
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def _try(path: Path) -> None:
    """Read what was saved, which shows too late otherwise that it cannot be read."""
    try:
        _load(path)
    except pickle.UnpicklingError as error:
        raise TypeError(
            "sampler must keep its state in tensors and plain values for a store, got another kind"
        ) from error


def _import_zarr() -> Any:
    try:
        import zarr

        zarr.create_array  # noqa: B018  there since version 3
    except (ImportError, AttributeError) as error:
        raise ImportError(
            "store needs zarr 3, and Python 3.11 or newer: pip install 'fastllc[store]'",
            name="zarr",
        ) from error
    return zarr
