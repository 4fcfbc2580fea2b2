"""What goes wrong with chains, and how it is told."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DivergenceError", "DivergenceWarning", "PrecisionWarning", "warn"]


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn in the name of the line that called fastllc, however far up it is.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("too hot")
    >>> str(caught[0].message)
    'too hot'
    """
    level, frame = 2, sys._getframe(1)
    ours = ("fastllc", "torch")  # which calls some of our methods
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


class DivergenceWarning(RuntimeWarning):
    """A step left non-finite weights, or a chain was frozen because of them.

    Examples
    --------
    >>> issubclass(DivergenceWarning, RuntimeWarning)
    True
    """


class PrecisionWarning(RuntimeWarning):
    """Rounding to the weights' precision is not small beside the noise of a step.

    Examples
    --------
    >>> issubclass(PrecisionWarning, RuntimeWarning)
    True
    """


class DivergenceError(RuntimeError):
    """No chain is left: all have diverged.

    Attributes
    ----------
    trace : xarray.DataTree or None
        What there was of them.

    Examples
    --------
    >>> DivergenceError("all chains diverged").trace is None
    True
    """

    trace: xr.DataTree | None = None
