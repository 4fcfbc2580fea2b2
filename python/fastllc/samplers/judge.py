"""Steps of stacked chains, judged as by the Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from fastllc.kernels import Member, Setting
from fastllc.reference.precision import read
from fastllc.samplers.acceptance import Energy, LogUniforms, Point, decide, log_acceptance

__all__ = ["Judge"]


class Judge:
    """Judge of K chains of `SGLD` or `MALA` that step at once.

    Parameters
    ----------
    members : sequence of Member
        Parameters, [K, *shape] each.
    settings : sequence of sequence of Setting
        Of each group and chain.
    rows : sequence of int
        Which row of the anchors is that of each chain.
    keys : sequence of int
        Of the chains' noise.

    Examples
    --------
    >>> w, flat = torch.zeros(2, 3), [torch.zeros(2, 3)]
    >>> judge = Judge([Member(w, id=0)], [[Setting(0.1)] * 2], rows=[0, 0], keys=[1, 2])
    >>> before, kept = judge.point(torch.zeros(2), flat).copied(), judge.kept()
    >>> w += 1
    >>> after = judge.point(torch.tensor([0.0, 1e3]), flat)
    >>> judge.correct(kept, before, after, step=0).tolist()
    [1.0, 0.0]
    >>> w[:, 0].tolist()
    [1.0, 0.0]
    """

    def __init__(
        self,
        members: Sequence[Member],
        settings: Sequence[Sequence[Setting]],
        rows: Sequence[int],
        keys: Sequence[int],
    ) -> None:
        self._members, self._settings, self._rows = members, settings, list(rows)
        self._log_uniforms = LogUniforms(keys)
        self._moving: list[Member] = []

    def point(self, losses: Tensor, grads: Sequence[Tensor | None]) -> Point:
        """Return where the chains are; parameters without a gradient stay."""
        moving = [(m, g) for m, g in zip(self._members, grads, strict=True) if g is not None]
        self._moving = [m for m, _ in moving]
        return Point(losses, [read(m.w, m.residual) for m, _ in moving], [g for _, g in moving])

    def acceptance(self, before: Point, after: Point) -> Tensor:
        """Return how probably MALA would have accepted a step of `SGLD`, [K].

        See `fastllc.mala_acceptance`.
        """
        return self._log_acceptance(before, after).clamp(max=0).exp()

    def kept(self) -> list[tuple[Tensor, Tensor]]:
        """Return weights and residuals, each with a copy of it, from which `correct` restores."""
        tensors = [t for m in self._members for t in (m.w, m.residual) if t is not None]
        return [(tensor, tensor.clone()) for tensor in tensors]

    def correct(
        self, kept: Sequence[tuple[Tensor, Tensor]], before: Point, after: Point, step: int
    ) -> Tensor:
        """Put those chains back whose step is refused; return the probabilities, [K]."""
        log, log_uniforms = self._log_acceptance(before, after), self._log_uniforms.at(step)
        probabilities, accepted = decide(log, log_uniforms, after)
        refused = ~accepted
        for tensor, copy in kept:
            tensor[refused] = copy[refused]
        return probabilities

    def _log_acceptance(self, before: Point, after: Point) -> Tensor:
        lr, nbeta, localization, weight_decay, noise_level = self._numbers
        energies = [
            Energy(
                lr[m.group],
                localization[m.group],
                weight_decay[m.group],
                noise_level[m.group],
                m.w0 if m.w0 is None or len(m.w0) == 1 else m.w0[self._rows],
                m.mask,
            )
            for m in self._moving
        ]
        return log_acceptance(before, after, nbeta[0], energies)

    @cached_property
    def _numbers(self) -> Tensor:
        """The first five settings, [setting, group, chain], where the chains are."""
        found = [[row[:5] for row in group] for group in self._settings]
        device = self._members[0].w.device
        return torch.tensor(found, dtype=torch.float64, device=device).permute(2, 0, 1)
