"""What a run was made with, in types that every file format can hold."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from fastllc.engine.sampling import Sampling
from fastllc.info import build_info

__all__ = ["attributes", "settings_of"]

# How it was shown and kept, and what the observables' groups say, is no part of what was sampled.
_LEFT_OUT = ("progress", "store", "observables", "mask")


def settings_of(sampling: Sampling) -> dict[str, Any]:
    """Return the settings that decide what is sampled, as plain values.

    Examples
    --------
    >>> settings_of(Sampling(lr=0.5))["lr"]
    0.5
    """
    found = {f.name: getattr(sampling, f.name) for f in fields(Sampling)}
    found = {name: plain(value) for name, value in found.items() if name not in _LEFT_OUT}
    found["sampler"] = describe(sampling.sampler)
    found["mask"] = "none" if sampling.mask is None else ", ".join(sorted(sampling.mask))
    return found


def attributes(sampling: Sampling, **found: Any) -> dict[str, str | int | float | list[Any]]:
    """Return settings, what became of them, and the build.

    Examples
    --------
    >>> attributes(Sampling(), seed=3)["seed"]
    3
    """
    build = {f"build_{name}": value for name, value in build_info().items()}
    return {
        name: plain(value) for name, value in {**settings_of(sampling), **found, **build}.items()
    }


def describe(function: Any) -> str:
    """Name a sampler, with what a `functools.partial` sets.

    Examples
    --------
    >>> describe(functools.partial(print, sep="-"))
    "print(sep='-')"
    """
    if isinstance(function, functools.partial):
        arguments = [repr(a) for a in function.args]
        arguments += [f"{name}={value!r}" for name, value in function.keywords.items()]
        return f"{describe(function.func)}({', '.join(arguments)})"
    return str(getattr(function, "__qualname__", repr(function)))


def plain(value: object) -> Any:
    """Return `value` as a number, a string or a list of these."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return str(dict(value))
    return "none" if value is None else str(value)
