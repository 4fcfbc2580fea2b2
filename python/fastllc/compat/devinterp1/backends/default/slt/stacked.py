"""All chains at once, on the engine, for callbacks that do not mind."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastllc.compat.devinterp1.backends.default.slt.chain import make_optimizer
from fastllc.compat.devinterp1.backends.default.slt.views import Views
from fastllc.compat.devinterp1.optim.telling import Telling
from fastllc.compat.devinterp1.samples import open_samples
from fastllc.compat.devinterp1.utils import EvaluateFn, split_results
from fastllc.engine.checkpoints import trainable
from fastllc.engine.choose import MAX_WEIGHTS, CannotStackError
from fastllc.engine.minibatch import to_device
from fastllc.engine.sampling import Sampling
from fastllc.errors import DivergenceError, DivergenceWarning
from fastllc.samplers.preconditioned import RMSpropSGLD

__all__ = ["sample_stacked", "sees"]


def sees(callback: Any) -> str | None:
    """Return what a callback looks at: "losses", "views" or "stacks" of chains; or None.

    That is a model in place.
    """
    if getattr(callback, "eval_field", "loss") != "loss":
        return None
    found: str | None = getattr(type(callback).__call__, "sees", None)
    return found


def sample_stacked(
    model: nn.Module,
    loader: DataLoader[Any],
    callbacks: Sequence[Callable[..., Any]],
    evaluate: EvaluateFn,
    sampling_method: Callable[..., torch.optim.Optimizer],
    optimizer_kwargs: dict[str, Any],
    *,
    num_draws: int,
    num_chains: int,
    num_burnin_steps: int,
    num_steps_bw_draws: int,
    init_loss: float,
    grad_accum_steps: int,
    seed: int | Sequence[int] | None,
    device: torch.device,
    verbose: bool,
    optimize_over: dict[str, Tensor] | None,
) -> list[int | None] | None:
    """Run all chains at once; see `sample`.

    Callbacks of losses are called afterwards, chain after chain, as if chains had run so.

    Returns
    -------
    list of int or None, or None
        For each chain the draw at which its loss was not a number, None if it stayed one; or None
        if chains cannot be stacked, or it does not pay: no callback has been called then.
    """
    if (
        num_chains == 1
        or any(sees(callback) is None for callback in callbacks)
        or type(loader).__iter__ is not DataLoader.__iter__  # whatever yields batches, in 1.x
        or loader.num_workers
        or sum(p.numel() for p in trainable(model).values()) > MAX_WEIGHTS
        or not math.isfinite(init_loss)
    ):
        return None
    model = deepcopy(model).to(device).train()
    if _counts(model, evaluate, to_device(next(iter(loader)), device)):
        return None
    sampler = make_optimizer(sampling_method, model, optimizer_kwargs, optimize_over, callbacks)
    if not (isinstance(sampler, Telling) and _stackable(sampler)):
        return None
    sampler.hush()

    def make(view: nn.Module, seeing: Sequence[Callable[..., Any]]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what was warned above
            return make_optimizer(sampling_method, view, optimizer_kwargs, optimize_over, seeing)

    group = sampler.param_groups[0]
    batch_size = getattr(loader, "batch_size", None) or 1
    steps = num_burnin_steps + num_draws * num_steps_bw_draws
    samples = open_samples(loader, steps * num_chains * grad_accum_steps * batch_size)
    sampling = Sampling(
        sampler=lambda params, **settings: sampler,
        lr=float(group["lr"]),
        nbeta=float(group["nbeta"]),
        localization=float(group["localization"]),
        num_chains=num_chains,
        num_draws=num_draws,
        num_burnin_steps=num_burnin_steps,
        num_steps_bw_draws=num_steps_bw_draws,
        batch_size=samples.batch_size,
        shared_batches=samples.shared,
        accumulation=grad_accum_steps,
        init_loss=float(init_loss),
        seed=None if seed is None else _one_seed(seed),
        engine="vectorised",
        progress=verbose,
    )
    in_turn, at_once = (
        [callback for callback in callbacks if sees(callback) == what]
        for what in ("views", "stacks")
    )
    views = Views(in_turn, at_once, model, make, sampling.schedule)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)  # `sample` says which were lost
        try:
            trace = sampling.run(
                model,
                samples.data,
                evaluate=lambda of, batch: split_results(evaluate(of, samples.repack(batch)))[0],
                spectator=views if in_turn or at_once else None,
            )
        except CannotStackError:
            return None
        except DivergenceError as error:
            trace = error.trace  # type: ignore[assignment]  # the run's own has one
    losses = torch.from_numpy(trace["steps"].to_dataset()["loss"].values).float()
    return _tell(callbacks, losses[:, sampling.schedule.first_draw :: num_steps_bw_draws])


def _tell(callbacks: Sequence[Callable[..., Any]], losses: Tensor) -> list[int | None]:
    """Call callbacks of losses, [chain, draw], until those are not numbers; return where."""
    told = [callback for callback in callbacks if sees(callback) == "losses"]
    lost: list[int | None] = []
    for chain, row in enumerate(losses):
        gone = row.isnan().nonzero()[:1].flatten().tolist()
        lost.append(gone[0] if gone else None)
        for draw, loss in enumerate(row[: lost[-1]]):
            for callback in told:
                callback(chain=chain, draw=draw, loss=loss)
    return lost


def _stackable(sampler: Telling) -> bool:
    """Whether it is anchored where its parameters are, and its settings are all that it does."""
    group = sampler.param_groups[0]
    if group.get("own_priors"):
        return False
    if isinstance(sampler, RMSpropSGLD) and "dws" in sampler.told:  # by its own running mean
        return False
    anchored = all(
        state["w0"].equal(param) for param, state in sampler.state.items() if "w0" in state
    )
    return anchored and group["lr"] > 0 and group["nbeta"] > 0


@torch.no_grad()
def _counts(model: nn.Module, evaluate: EvaluateFn, data: Any) -> bool:
    """Whether calls change numbers that a model keeps: chains that are stacked call it together."""

    def numbers() -> list[Any]:
        values = (value for module in model.modules() for value in vars(module).values())
        return [value for value in values if isinstance(value, (int, float))]

    before = numbers()
    evaluate(model, data)
    return numbers() != before


def _one_seed(seed: int | Sequence[int]) -> int:
    """Return the seed of a run, below 2**63, from one or those of its chains."""
    if isinstance(seed, int):
        return seed
    entropy = np.random.SeedSequence([int(each) for each in seed])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))
