"""Our samplers in the place of devinterp 2's, as long as somebody wants them there."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from types import TracebackType
from typing import Any, NamedTuple

from torch import Tensor

from fastllc import kernels
from fastllc.compat.devinterp2.samplers import FusedRMSprop, FusedSGLD, FusedSGNHT
from fastllc.errors import warn
from fastllc.kernels import MAX_SKETCH

__all__ = ["Acceleration", "accelerate"]

_KNOWN = ("2.0.1",)
_GROUP_KEYS = {"params", "mask", "lr", "nbeta", "noise_level", "bounding_box_size"}


_active: list[Acceleration] = []  # of which each may end before the others
_constructors: list[tuple[Any, Callable[..., None]]] = []  # devinterp's own


class _OriginalWantedError(Exception):
    """What is asked for is none of our samplers."""


class _Fused(NamedTuple):
    """Which sampler to make, and of what."""

    kind: Any
    groups: list[dict[str, Any]]
    settings: dict[str, Any]


class Acceleration:
    """What `accelerate` returns: in effect until `restore`, or the end of a ``with`` block.

    Attributes
    ----------
    active : bool
    """

    @property
    def active(self) -> bool:
        """Whether it is in effect."""
        return self in _active

    def install(self) -> None:
        """Put our samplers in place, unless another has."""
        if not _active:
            for name, find in (("sgmcmc", _sgmcmc), ("sgld", _sgld), ("sgnht", _sgnht)):
                module = importlib.import_module(f"devinterp.optim.{name}")
                original = getattr(module, name.upper())
                _constructors.append((original, original.__init__))
                original.__init__ = _switching(original, find)
        _active.append(self)

    def restore(self) -> None:
        """Put devinterp's own samplers back, with the last that is in effect.

        Those that were made meanwhile stay what they are.
        """
        if self.active:
            _active.remove(self)
        if not _active:
            while _constructors:
                original, constructor = _constructors.pop()
                original.__init__ = constructor

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()


def accelerate() -> Acceleration:
    """Make the installed devinterp 2 use our samplers, wherever it or its user makes one.

    ``SGMCMC`` with its factory methods ``sgld``, ``rmsprop_sgld`` and ``sgnht``, ``SGLD`` and
    ``SGNHT`` become fused samplers when they are made, also under names that were imported before:
    with masks in groups, ``save_metrics``, ``sketch_dim`` and ``sketch_seed``, ``get_metrics``,
    ``iter_group_metrics``, ``get_sketches`` and ``noise_generator``. So do those inside ``llc``,
    ``bif``, ``susceptibilities`` and ``sample``. What no fused step can do stays devinterp's own:
    priors with centers elsewhere, preconditioners and subclasses of one's own, and tensors on
    devices without a native kernel.

    Draws are of the same law, not the same numbers; buckets and signs of sketches are others, and
    ``unscaled_grad`` is over weights that a mask lets move. ``SGMCMC.sgnht`` has the momentum that
    devinterp's lacks.

    Returns
    -------
    Acceleration
        In effect at once; `Acceleration.restore`, or the end of a ``with`` block, ends it.

    Raises
    ------
    ImportError
        If devinterp is not installed, or in a version that this one does not know.

    Examples
    --------
    >>> from fastllc.compat.devinterp2 import accelerate
    >>> acceleration = accelerate()  # doctest: +SKIP
    >>> with accelerate():  # doctest: +SKIP
    ...     results = llc(model, dataset, lr=1e-4, n_beta=30.0)
    """
    try:
        found = version("devinterp")
    except PackageNotFoundError as error:
        raise ImportError("accelerate needs devinterp 2: pip install devinterp") from error
    if found not in _KNOWN:
        raise ImportError(
            f"accelerate knows devinterp {' and '.join(_KNOWN)}, got {found}; for 1.x see "
            "fastllc.compat.devinterp1"
        )
    made = Acceleration()
    made.install()
    return made


def _switching(original: Any, find: Callable[..., _Fused]) -> Callable[..., None]:
    """Return a constructor that makes one of our samplers where it can."""
    constructor: Callable[..., None] = original.__init__
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        params = given.arguments["params"] = _listed(given.arguments["params"])
        fused = None
        with suppress(_OriginalWantedError):
            if type(self) is original:
                rest = {k: v for k, v in given.arguments.items() if k not in ("self", "params")}
                fused = find(_groups(params), **rest)
        if fused is None:
            constructor(*given.args, **given.kwargs)
            return
        self.__class__ = fused.kind
        self.__init__(fused.groups, **fused.settings)

    return __init__


def _listed(params: Any) -> list[Any]:
    """Return parameters or groups of them as lists that can be read again."""
    if isinstance(params, (Tensor, dict)):
        params = [params]
    return [
        {**p, "params": [p["params"]] if isinstance(p["params"], Tensor) else list(p["params"])}
        if isinstance(p, dict)
        else p
        for p in params
    ]


def _groups(params: list[Any]) -> list[dict[str, Any]]:
    """Return groups with boolean masks, one for each parameter."""
    if not params or not isinstance(params[0], dict):
        params = [{"params": params}]
    found = []
    for group in params:
        tensors = group["params"]
        if not tensors or not all(isinstance(p, Tensor) and kernels.has_kernel(p) for p in tensors):
            raise _OriginalWantedError
        if group.keys() - _GROUP_KEYS:
            raise _OriginalWantedError
        found.append({**group, "mask": _masks(group.get("mask"), tensors)})
    return found


def _masks(mask: Any, params: list[Tensor]) -> list[Tensor] | None:
    if mask is None:
        return None
    masks = [mask] * len(params) if isinstance(mask, Tensor) else list(mask)
    if [getattr(m, "shape", None) for m in masks] != [p.shape for p in params]:
        raise _OriginalWantedError  # which says what is wrong
    if not all(((m == 0) | (m == 1)).all() for m in masks):
        raise _OriginalWantedError
    return [m.to(p.device).bool() for m, p in zip(masks, params, strict=True)]


def _common(groups: list[dict[str, Any]], mask: Any, **settings: Any) -> dict[str, Any]:
    """Return settings that all our samplers have; `mask` is that of groups without one."""
    for group in groups:
        if group["mask"] is None:
            group["mask"] = _masks(mask, group["params"])
    for each in (settings, *groups):
        for name in ("lr", "nbeta", "noise_level", "localization", "weight_decay"):
            if not (isinstance(number := each.get(name, 0.0), Real) and float(number) >= 0):
                raise _OriginalWantedError
        if (box := each.get("bounding_box_size")) is not None and not box > 0:
            raise _OriginalWantedError
    dim, seed = settings.get("sketch_dim"), settings.get("sketch_seed", 0)
    if dim is not None and not (1 <= dim <= MAX_SKETCH and seed >= 0):
        raise _OriginalWantedError
    return settings


def _warned(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings, and warn of them as the constructors of ``SGLD`` and ``SGNHT`` do."""
    if settings["nbeta"] == 1.0:
        warn("nbeta set to 1: learning coefficients need another")
    if settings.get("noise_level", 1.0) != 1.0:
        warn("noise_level other than 1 does not sample the posterior")
    return settings


def _sgmcmc(
    groups: list[dict[str, Any]],
    *,
    prior: Any,
    preconditioner: Any,
    preconditioner_kwargs: dict[str, Any] | None,
    mask: Any,
    **settings: Any,
) -> _Fused:
    """Return the sampler that a prior and a preconditioner amount to."""
    localization, weight_decay = _pull(prior)
    kind, own = _precondition(preconditioner, preconditioner_kwargs or {})
    pulled = {"localization": localization, "weight_decay": weight_decay}
    return _Fused(kind, groups, {**_common(groups, mask, **settings, **pulled), **own})


def _sgld(groups: list[dict[str, Any]], **settings: Any) -> _Fused:
    warn("SGLD has been deprecated. SGMCMC.sgld is its newer name.", DeprecationWarning)
    settings["bounding_box_size"] = settings["bounding_box_size"] or None
    return _Fused(FusedSGLD, groups, _warned(_common(groups, None, **settings)))


def _sgnht(
    groups: list[dict[str, Any]],
    *,
    save_noise: bool,
    save_mala_vars: bool,
    metrics: Any,
    **settings: Any,
) -> _Fused:
    if save_noise or save_mala_vars or metrics or any(group["mask"] for group in groups):
        raise _OriginalWantedError
    warn("SGNHT has been deprecated. SGMCMC.sgnht is its newer name.", DeprecationWarning)
    settings["bounding_box_size"] = settings["bounding_box_size"] or None
    return _Fused(FusedSGNHT, groups, _warned(_common(groups, None, **settings)))


def _pull(prior: Any) -> tuple[float, float]:
    """Return localization and weight decay of a prior."""
    from devinterp.optim.prior import CompositePrior, GaussianPrior, UniformPrior

    if isinstance(prior, Real):
        return float(prior), 0.0
    if prior == "initial":
        return 1.0, 0.0
    localization = weight_decay = 0.0
    for each in prior.priors if type(prior) is CompositePrior else [prior]:
        if each is None or type(each) is UniformPrior:
            continue
        if type(each) is not GaussianPrior or each.center not in (None, "initial"):
            raise _OriginalWantedError
        if each.center is None:
            weight_decay += each.localization
        else:
            localization += each.localization
    return localization, weight_decay


def _precondition(given: Any, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the sampler of a preconditioner, and its settings."""
    from devinterp.optim import preconditioner as theirs

    if arguments and given in (None, "identity"):
        raise _OriginalWantedError  # which says that there are none
    if given is None or given == "identity" or type(given) is theirs.IdentityPreconditioner:
        return FusedSGLD, {}
    if given == "rmsprop":
        given = theirs.RMSpropPreconditioner(**arguments)
    if type(given) is theirs.RMSpropPreconditioner and 0 <= given.alpha < 1 and given.eps > 0:
        return FusedRMSprop, {"alpha": given.alpha, "eps": given.eps, "convention": "devinterp"}
    if type(given) is theirs.NHTPreconditioning and given.diffusion_factor > 0:
        return FusedSGNHT, {"diffusion_factor": given.diffusion_factor}
    raise _OriginalWantedError
