"""What a stored run was made of, so that it is only ever continued as the same run."""

from __future__ import annotations

import hashlib
import math
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fastllc import _core
from fastllc.engine.attributes import describe, plain, settings_of
from fastllc.engine.checkpoints import Checkpoints, trainable
from fastllc.engine.data import Batches
from fastllc.engine.minibatch import Batch
from fastllc.engine.objective import Objective
from fastllc.engine.observables import Observed
from fastllc.engine.rng import seeded_rng
from fastllc.engine.sampling import Sampling
from fastllc.engine.tensors import TensorBatches

__all__ = ["Fingerprint", "differences", "digest", "fingerprint", "machine"]

Fingerprint: TypeAlias = "Mapping[str, str | float]"
"""What decides a run, by name; numbers are known up to rounding."""

# A loss on this machine, and what it may be on another, in low precision too.
_ROUNDING_HERE, _ROUNDING = 1e-5, 1e-2


def digest(batch: Batch) -> str:
    """Hash all tensors of nested batches: names, bytes, shapes and dtypes.

    Examples
    --------
    >>> digest([torch.zeros(2)]) == digest((torch.zeros(2),))
    True
    >>> digest({"a": torch.zeros(2)}) == digest({"b": torch.zeros(2)})
    False
    """
    found = hashlib.blake2b(digest_size=16)

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            found.update(f"{item.dtype}{tuple(item.shape)}".encode())
            flat = item.detach().cpu().contiguous().reshape(-1)
            found.update(flat.view(torch.uint8).numpy().data)
        elif isinstance(item, Mapping):
            for name, value in sorted(item.items(), key=lambda pair: str(pair[0])):
                found.update(repr(name).encode())
                add(value)
        elif isinstance(item, (tuple, list)):
            for value in item:
                add(value)

    add(batch)
    return found.hexdigest()


def fingerprint(
    sampling: Sampling,
    objective: Objective,
    loss: Any,
    checkpoints: Checkpoints,
    batches: Batches,
    observables: Mapping[str, Observed],
    sampler: torch.optim.Optimizer,
    load: Callable[[Mapping[str, Tensor]], None],
) -> dict[str, str | float]:
    """Return what decides a run.

    A seed that was not given is left out. What no name tells of a model and a loss, such as the
    code of a lambda, shows in the loss of a minibatch at a point beside w*.

    Parameters
    ----------
    sampling, objective, checkpoints, batches, observables
        Of the run.
    loss : callable
        What the caller gave as the loss.
    sampler : torch.optim.Optimizer
        That of a chain at the first setting.
    load : callable
        Puts the model to weights.
    """
    model = objective.model
    names = list(trainable(model))
    found: dict[str, str | float] = {
        **{name: _named(value) for name, value in settings_of(sampling).items()},
        "version": f"{_core.VERSION}, noise format {_core.NOISE_FORMAT}",
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "model": f"{type(model).__name__} that trains {digest(dict.fromkeys(names))[:8]}",
        "loss": _named(describe(loss)),
        "batch_size": str(batches.batch_size),
        "num_samples": str(batches.num_samples),
    }
    for index, name in enumerate(checkpoints.names):
        found[f"weights of {name}"] = digest(checkpoints[index])
    if sampling.seed is None:
        del found["seed"]
    if sampling.mask is not None:
        found["mask"] = digest(sampling.mask)
    found |= _own_settings(sampler)
    for name, observed in observables.items():
        found[f"observables[{name!r}]"] = f"{digest(observed.batches)}, every {observed.every}"
    batch = _first(batches)
    if isinstance(batches, TensorBatches):
        found["data"] = digest(batches.tensors)
    else:
        found["data"] = digest(batch)
        if digest(_first(batches)) != found["data"]:
            return found | {"data": "not the same when read twice"}
    losses = [{"": _loss_beside(objective, checkpoints[0], batch, load)} for _ in range(2)]
    again = "not the same when computed twice"
    return found | {"loss beside w*": again if differences(*losses) else losses[0][""]}


def machine() -> dict[str, str]:
    """Describe what the last bits of a run depend on, beside its fingerprint.

    Examples
    --------
    >>> machine()["threads"] == str(torch.get_num_threads())
    True
    """
    processor = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else processor
    return {
        "threads": str(torch.get_num_threads()),
        "processor": processor,
        "build": f"{_core.COMPILER}, {_core.isa()}",
    }


def differences(kept: Fingerprint, now: Fingerprint, *, alike: bool = True) -> list[str]:
    """Say where two fingerprints differ.

    Parameters
    ----------
    kept, now : mapping
        The fingerprints.
    alike : bool
        Whether numbers were computed on machines that are alike.

    Examples
    --------
    >>> differences({"lr": "0.1", "seed": "0"}, {"lr": "0.2", "seed": "0"})
    ['lr (kept 0.1, now 0.2)']
    """
    tolerance = _ROUNDING_HERE if alike else _ROUNDING

    def same(a: str | float, b: str | float) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b))
        return a == b

    pairs = {
        name: (kept.get(name, "none"), now.get(name, "none")) for name in sorted({*kept, *now})
    }
    return [f"{name} (kept {a}, now {b})" for name, (a, b) in pairs.items() if not same(a, b)]


def _named(value: object) -> str:
    """Describe a value without the address that objects have in one process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _own_settings(sampler: torch.optim.Optimizer) -> dict[str, str]:
    """Return what a sampler is set to beside what `Sampling` sets."""
    known = {"params", *(f.name for f in fields(Sampling))}
    return {
        f"{name} of group {i}": _named(plain(value))
        for i, group in enumerate(sampler.param_groups)
        for name, value in group.items()
        if name not in known
    }


def _first(batches: Batches) -> Batch:
    with closing(batches.stream([0])) as stream:
        return next(stream).batch


def _loss_beside(
    objective: Objective,
    weights: Mapping[str, Tensor],
    batch: Batch,
    load: Callable[[Mapping[str, Tensor]], None],
) -> float:
    generator = torch.Generator().manual_seed(0)
    moved = dict(weights)
    for name in trainable(objective.model):
        w = weights[name]
        noise = torch.randn(w.shape, generator=generator).to(w)
        moved[name] = w + noise * (0.1 * w.float().std(correction=0) + 0.01).to(w)
    with seeded_rng(0, next(iter(weights.values())).device), torch.no_grad():
        load(moved)
        found = objective(batch).double().item()
    load(weights)
    return float(found)
