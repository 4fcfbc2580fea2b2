"""What a stored run was made of, so that it is only ever continued as the same run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastllc import _core
from fastllc.engine.attributes import describe, settings_of
from fastllc.engine.checkpoints import Checkpoints
from fastllc.engine.data import Batches
from fastllc.engine.minibatch import Batch, map_tensors
from fastllc.engine.observables import Observed
from fastllc.engine.sampling import Sampling

__all__ = ["differences", "digest", "fingerprint"]


def digest(*batches: Batch) -> str:
    """Hash all tensors of nested batches: their bytes, shapes and dtypes.

    Examples
    --------
    >>> digest(torch.zeros(2)) == digest((torch.zeros(2),))
    True
    >>> digest(torch.zeros(2)) == digest(torch.zeros(3))
    False
    """
    found = hashlib.blake2b(digest_size=16)

    def add(tensor: Tensor) -> Tensor:
        found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
        return tensor

    for batch in batches:
        map_tensors(add, batch)
    return found.hexdigest()


def fingerprint(
    sampling: Sampling,
    model: nn.Module,
    checkpoints: Checkpoints,
    batches: Batches,
    observables: Mapping[str, Observed],
    loss: Any,
) -> dict[str, str]:
    """Return what decides a run, by name, as strings to compare.

    A seed that was not given is left out, as are the number of threads and the processor.
    """
    names = [name for name, _ in model.named_parameters()]
    found = {
        "version": f"{_core.VERSION}, noise format {_core.NOISE_FORMAT}",
        "torch": str(torch.__version__),
        "model": f"{type(model).__name__} of {len(names)} parameters",
        "loss": describe(loss),
        "data": digest(*batches.full_pass())
        if batches.indexed or not hasattr(batches, "num_workers")
        else digest(next(iter(batches.stream([0]))).batch),
        "batch_size": str(batches.batch_size),
        "num_samples": str(batches.num_samples),
    }
    for index, name in enumerate(checkpoints.names):
        found[f"weights of {name}"] = digest(dict(sorted(checkpoints[index].items())))
    found |= {name: str(value) for name, value in settings_of(sampling).items()}
    found["mask"] = "none" if sampling.mask is None else digest(dict(sorted(sampling.mask.items())))
    for name, observed in observables.items():
        found[f"observables[{name!r}]"] = f"{digest(*observed.batches)}, every {observed.every}"
    if sampling.seed is None:
        del found["seed"]
    return found


def differences(kept: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say where two fingerprints differ.

    Examples
    --------
    >>> differences({"lr": "0.1", "seed": "0"}, {"lr": "0.2", "seed": "0"})
    ['lr (kept 0.1, now 0.2)']
    """
    names = sorted(set(kept) | set(now))
    return [
        f"{name} (kept {kept.get(name, 'none')}, now {now.get(name, 'none')})"
        for name in names
        if kept.get(name) != now.get(name)
    ]
