"""Fused samplers that answer as those of devinterp 2 do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastllc.samplers.metrics import Metrics
from fastllc.samplers.momentum import SGNHT
from fastllc.samplers.preconditioned import RMSpropSGLD
from fastllc.samplers.sampler import Sampler
from fastllc.samplers.sgld import SGLD

__all__ = ["FusedRMSprop", "FusedSGLD", "FusedSGNHT"]


class _Answering(Sampler):
    """A sampler whose metrics and sketches are devinterp's own objects."""

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        noise_generator: torch.Generator | None = None,
    ) -> Any:
        """Take one step; a generator on another device seeds one on the CPU."""
        if noise_generator is not None and noise_generator.device.type != "cpu":
            where = noise_generator.device
            seed = torch.randint(2**62, (), generator=noise_generator, device=where)
            noise_generator = torch.Generator().manual_seed(int(seed))
        return super().step(closure, noise_generator=noise_generator)

    step.hooked = True  # type: ignore[attr-defined]

    @property
    def save_metrics(self) -> bool:
        """Whether steps keep their metrics."""
        return bool(self.param_groups[0]["save_metrics"])

    @property
    def save_sketches(self) -> bool:
        """Whether steps keep their sketches."""
        return self.param_groups[0]["sketch_dim"] is not None

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return next(self.get_params()).device

    def get_params(self) -> Iterator[Tensor]:
        """Yield all parameters."""
        for group in self.param_groups:
            yield from group["params"]

    def get_metrics(self) -> Any:
        """Return the metrics of the last step, over all groups."""
        return _answer(super().get_metrics(), sum(map(_count, self.param_groups)))

    def iter_group_metrics(self) -> Iterator[Any]:
        """Yield the metrics of each group."""
        for group, found in zip(self.param_groups, super().iter_group_metrics(), strict=True):
            yield _answer(found, _count(group))

    def get_sketches(self) -> Any:
        """Return the sketches of the last step."""
        from devinterp.optim.sketch import SketchBuffer

        return SketchBuffer(**super().get_sketches()._asdict())


class FusedSGLD(_Answering, SGLD):
    """`fastllc.SGLD` in the place of devinterp's ``SGMCMC`` and ``SGLD``."""


class FusedRMSprop(_Answering, RMSpropSGLD):
    """`fastllc.RMSpropSGLD` in the place of devinterp's ``SGMCMC``."""


class FusedSGNHT(_Answering, SGNHT):
    """`fastllc.SGNHT` in the place of devinterp's ``SGMCMC`` and ``SGNHT``."""


def _count(group: dict[str, Any]) -> int:
    """Return how many weights of a group moved in the last step."""
    masks = group["mask"] or [None] * len(group["params"])
    return sum(
        p.numel() if mask is None else int(mask.count_nonzero())
        for p, mask in zip(group["params"], masks, strict=True)
        if p.grad is not None
    )


def _answer(found: Metrics, numel: int) -> Any:
    from devinterp.optim import metrics

    names = metrics.Metrics.NORM_FIELDS + metrics.Metrics.DOT_FIELDS
    values = torch.stack([getattr(found, name) for name in names]).float()[:, None]
    return metrics.Metrics(**dict(zip(names, values, strict=True)), numel=numel)
