"""A run that is about to start: everything that is decided before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastllc.engine.attributes import attributes
from fastllc.engine.checkpoints import Checkpoints, trainable
from fastllc.engine.choose import Choice
from fastllc.engine.data import Batches
from fastllc.engine.initial import Initial
from fastllc.engine.inplace import InPlaceWalkers
from fastllc.engine.layout import Axes
from fastllc.engine.objective import Objective
from fastllc.engine.observables import Observed
from fastllc.engine.products import ByOneDNN
from fastllc.engine.sampling import Sampling
from fastllc.engine.study import Box, Chain, Study
from fastllc.engine.vectorised import VectorisedWalkers
from fastllc.engine.walkers import Spectator, Walkers

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """Everything that is decided before the first step.

    Attributes
    ----------
    settings : the grid
    products : in what gradients are computed, if that is faster
    corrected : whether Metropolis' test of `MALA` corrects the steps
    load : puts the model to weights
    watch : called at each draw with each chain that moves and its w - w0, [d]
    spectator : looks at all chains at each draw
    """

    sampling: Sampling
    objective: Objective
    checkpoints: Checkpoints
    batches: Batches
    settings: list[dict[str, float]]
    study: Study
    axes: Axes
    observables: dict[str, Observed]
    initial: Initial
    choice: Choice
    products: ByOneDNN | None
    corrected: bool
    load: Callable[[Mapping[str, Tensor]], None]
    watch: Callable[[Chain, Tensor], None] | None
    spectator: Spectator | None

    @property
    def paired(self) -> bool:
        """Whether minibatches have their loss at w* beside them."""
        return self.initial.samples is not None

    @property
    def multiplier(self) -> str:
        """Whose the matrix products of gradients are."""
        return "torch" if self.products is None else "oneDNN"

    @property
    def whole(self) -> bool:
        """Whether every step sees all samples."""
        batches = self.batches
        if self.sampling.replacement or batches.num_samples is None or batches.batch_size is None:
            return False
        a_pass, rest = divmod(batches.num_samples, batches.batch_size)
        return rest == 0 and self.sampling.accumulation % a_pass == 0

    def attributes(self) -> dict[str, Any]:
        """Return what the run is made with."""
        given = self.sampling.init_loss
        return attributes(
            self.sampling,
            seed=self.study.seed,
            batch_size=self.batches.batch_size,
            num_samples=self.batches.num_samples,
            engine=self.choice.engine,
            engine_reason=self.choice.reason,
            chunk_size=self.choice.chunk,
            products=self.multiplier,
            corrected=self.corrected,
            init_loss="paired" if self.paired else "full" if isinstance(given, str) else given,
            **({} if self.axes.grid else self.settings[0]),
        )

    def walkers(self, box: Box) -> Walkers:
        """Put the chains of a box to their start."""
        chains = self.study.chains(box)
        if self.choice.engine == "vectorised":
            return VectorisedWalkers(
                self.objective,
                self.checkpoints,
                box.checkpoints,
                [c.checkpoint - box.checkpoints.start for c in chains],
                [self.choice.blueprints[c.setting] for c in chains],
                [self.study.key(c) for c in chains],
                compiled=self.sampling.compile,
                captured=self.sampling.capture,
                products=self.products,
            )
        (chain,) = chains
        start = self.checkpoints[chain.checkpoint]
        self.load(start)
        params = trainable(self.objective.model)
        key = self.study.key(chain)
        sampler = self.sampling.make_sampler(params, key, self.settings[chain.setting])
        return InPlaceWalkers(self.objective, params, sampler, start, key, self.products)

    def written(self, step: int) -> dict[str, int]:
        """Return how many values there are of each series before a step."""
        schedule = self.sampling.schedule
        found = {"steps/loss": step}
        if self.paired:
            found["steps/baseline"] = step
        for name in self.sampling.metrics:
            found[f"metrics/{name}"] = schedule.draws_before(step)
        for name, observed in self.observables.items():
            found[f"observables/{name}/loss"] = schedule.draws_before(step, observed.every)
        return found
