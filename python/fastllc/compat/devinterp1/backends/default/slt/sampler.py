"""`sample` of devinterp 1: all chains at once where callbacks let it, one after another else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing import cpu_count, get_context
from torch.utils.data import DataLoader

from fastllc.compat.devinterp1.backends.default.slt.chain import sample_single_chain
from fastllc.compat.devinterp1.backends.default.slt.stacked import sample_stacked
from fastllc.compat.devinterp1.optim.sgld import SGLD
from fastllc.compat.devinterp1.slt.callback import validate_callbacks
from fastllc.compat.devinterp1.slt.llc import LLCEstimator, OnlineLLCEstimator
from fastllc.compat.devinterp1.utils import EvaluateFn, get_init_loss_multi_batch
from fastllc.errors import DivergenceWarning, warn

__all__ = ["sample", "sample_single_chain"]


def sample(
    model: nn.Module,
    loader: DataLoader[Any],
    callbacks: Sequence[Callable[..., Any]],
    evaluate: EvaluateFn | None = None,
    sampling_method: Callable[..., torch.optim.Optimizer] = SGLD,
    optimizer_kwargs: dict[str, Any] | None = None,
    num_draws: int = 100,
    num_chains: int = 10,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    init_loss: Any = None,
    grad_accum_steps: int = 1,
    cores: int | Sequence[Any] | None = 1,
    seed: int | Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    verbose: bool = True,
    optimize_over_per_model_param: dict[str, Tensor] | None = None,
    gpu_idxs: list[int] | None = None,
    batch_size: int = 1,
    use_amp: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Sample chains from a model's weights, and show every draw to callbacks.

    The model is put in train mode; chains run on copies of it. They are stacked and run at once if
    all callbacks are marked `of_losses` or `any_order`, as those here are, the model is small, and
    ``vmap`` takes it; then draws are those of the same law, not the same numbers. Otherwise they
    run one after another, or in `cores` processes.

    Parameters
    ----------
    model : nn.Module
        Where chains start.
    loader : DataLoader
        Minibatches.
    callbacks : sequence of callable
        Such as `SamplerCallback`; derived ones after their bases.
    evaluate : callable, optional
        ``evaluate(model, batch)``: a loss, or a dict, tuple or object with one. None calls the
        model with the batch.
    sampling_method : callable
        `SGLD`, `SGNHT`, `SGMCMC.sgld` or anything that makes an optimizer.
    optimizer_kwargs : dict
        Its settings; ``nbeta`` among them.
    num_draws, num_chains, num_burnin_steps, num_steps_bw_draws : int
        As in `fastllc.Sampling`.
    init_loss : float, optional
        That of the estimators; None takes the mean of ``num_chains * grad_accum_steps`` batches.
    grad_accum_steps : int
        Minibatches whose gradients are averaged in a step.
    cores : int or list, optional
        Processes, for chains that are not stacked; None: at most 4. Evaluate, loader and callbacks
        are pickled then (``pip install cloudpickle``), and only tensors come back.
    seed : int or list of int, optional
        Of all chains, or of each.
    device : torch.device or str
        Where chains run.
    verbose : bool
        Whether to show progress.
    optimize_over_per_model_param : dict of str to Tensor, optional
        1 where a weight is sampled, for all parameters by name.
    gpu_idxs : list of int, optional
        GPUs that processes take in turn.
    batch_size : int
        Not used.
    use_amp : bool
        Whether losses are computed in float16 where torch thinks fit, on a GPU.

    Returns
    -------
    dict
        The results of all callbacks.

    Raises
    ------
    ValueError
        If callbacks are in a wrong order, or there is not a seed for each chain.
    AssertionError
        If ``nbeta`` is not set, or ``temperature`` is set in one place and ``nbeta`` in another.
    RuntimeError
        If no chain keeps a loss that is a number, and coefficients are estimated.

    Warns
    -----
    DivergenceWarning
        Names the chains that were left out, since their losses were not numbers.

    Examples
    --------
    >>> import warnings
    >>> from fastllc.compat.devinterp1.utils import evaluate_mse
    >>> data = torch.utils.data.TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> llc = LLCEstimator(num_chains=2, num_draws=5, init_loss=None, nbeta=10.0)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     results = sample(
    ...         nn.Linear(2, 1),
    ...         DataLoader(data, 32, shuffle=True),
    ...         [llc],
    ...         evaluate_mse,
    ...         optimizer_kwargs={"lr": 1e-4, "nbeta": 10.0},
    ...         num_draws=5,
    ...         num_chains=2,
    ...         verbose=False,
    ...     )
    >>> results["loss/trace"].shape
    (2, 5)
    """
    if num_burnin_steps < num_draws:
        warn(
            "You are taking more draws than burn-in steps: learning coefficients may be too small. "
            "See whether the loss has settled before the first draw."
        )
    if num_draws > len(loader):
        warn(
            "You are taking more sample batches than there are dataloader batches available: "
            "the loader is read again and again."
        )
    evaluate = evaluate or _call
    if init_loss is None:
        init_loss = get_init_loss_multi_batch(
            loader,
            num_chains * grad_accum_steps,
            model,
            evaluate,
            device,
            seed if seed is None or isinstance(seed, int) else seed[0],
        )
    for callback in callbacks:
        if isinstance(callback, (LLCEstimator, OnlineLLCEstimator)):
            callback.init_loss = init_loss
    settings = _settings(optimizer_kwargs or {}, callbacks)
    validate_callbacks(callbacks)
    device = torch.device(device)
    if use_amp and device.type == "cpu":
        warn("Automatic Mixed Precision (AMP) is not supported on CPU devices: it is not used.")
        use_amp = False
    processes = min(cpu_count(), 4) if cores is None else cores
    processes = processes if isinstance(processes, int) else len(processes)
    if gpu_idxs is not None and (device.type != "cuda" or processes < len(gpu_idxs)):
        raise AssertionError("gpu_idxs needs a CUDA device, and cores as many as GPUs at least")
    if seed is not None:
        warn("You are using seeded runs: what data and model draw by themselves is not seeded.")
    common = {
        "num_draws": num_draws,
        "num_burnin_steps": num_burnin_steps,
        "num_steps_bw_draws": num_steps_bw_draws,
        "init_loss": init_loss,
        "grad_accum_steps": grad_accum_steps,
        "verbose": verbose,
    }
    seeds = _seeds(seed, num_chains)
    lost = None
    if not use_amp and gpu_idxs is None:
        lost = sample_stacked(
            model,
            loader,
            callbacks,
            evaluate,
            sampling_method,
            settings,
            num_chains=num_chains,
            seed=seed,
            device=device,
            optimize_over=optimize_over_per_model_param,
            **{**common, "init_loss": float(init_loss)},
        )
    if lost is None:
        devices = [device] if gpu_idxs is None else [torch.device("cuda", i) for i in gpu_idxs]
        chains = [
            {
                "ref_model": model,
                "loader": loader,
                "evaluate": evaluate,
                "optimizer_kwargs": settings,
                "sampling_method": sampling_method,
                "chain": chain,
                "seed": own,
                "device": devices[chain % len(devices)],
                "optimize_over_per_model_param": optimize_over_per_model_param,
                "callbacks": callbacks,
                "use_amp": use_amp,
                **common,
            }
            for chain, own in enumerate(seeds)
        ]
        if processes > 1:
            with get_context("spawn").Pool(processes) as pool:
                lost = pool.map(_unpickle_and_run, [_pickled(chain) for chain in chains])
        else:
            lost = [sample_single_chain(**chain) for chain in chains]
    _lose(callbacks, lost)
    results = {}
    for callback in callbacks:
        if hasattr(callback, "finalize"):
            callback.finalize()
    for callback in callbacks:
        if hasattr(callback, "get_results"):
            results.update(callback.get_results())
    return results


def _call(model: nn.Module, data: Any) -> Any:
    return model(data)


def _settings(
    optimizer_kwargs: dict[str, Any], callbacks: Sequence[Callable[..., Any]]
) -> dict[str, Any]:
    """Return the sampler's settings, with the older name of nbeta replaced."""
    settings = dict(optimizer_kwargs)
    for callback in callbacks:
        temperature = getattr(callback, "temperature", None)
        nbeta = getattr(callback, "nbeta", None)
        if "nbeta" in settings and temperature is not None:
            raise AssertionError("nbeta is set in optimizer_kwargs, temperature in a callback")
        if "temperature" in settings and nbeta is not None and temperature is None:
            raise AssertionError("temperature is set in optimizer_kwargs, nbeta in a callback")
    if settings.keys() & {"nbeta", "temperature"}:
        warn("If you're setting nbeta in optimizer_kwargs, set it in the callbacks, too.")
    if "temperature" in settings:
        if "nbeta" in settings:
            raise AssertionError("nbeta and temperature are both set in optimizer_kwargs")
        settings["nbeta"] = settings.pop("temperature")
    if "nbeta" not in settings:
        raise AssertionError("Set nbeta in optimizer_kwargs")
    return settings


def _seeds(seed: int | Sequence[int] | None, num_chains: int) -> list[int | None]:
    """Return the seed of each chain."""
    if seed is None:
        return [None] * num_chains
    if isinstance(seed, int):
        return [int(own) for own in np.random.SeedSequence(seed).generate_state(num_chains)]
    if len(seed) != num_chains:
        raise ValueError("Length of seed list must match number of chains")
    return [int(own) for own in seed]


def _pickled(chain: dict[str, Any]) -> dict[str, Any]:
    """Pickle what plain pickle may refuse; callbacks share their tensors as they are."""
    import cloudpickle

    hard = {name: chain[name] for name in ("evaluate", "loader", "ref_model", "sampling_method")}
    rest = {name: value for name, value in chain.items() if name not in hard}
    return {**rest, "pickled": cloudpickle.dumps(hard)}


def _unpickle_and_run(chain: dict[str, Any]) -> int | None:
    import cloudpickle

    return sample_single_chain(**cloudpickle.loads(chain.pop("pickled")), **chain)


def _lose(callbacks: Sequence[Callable[..., Any]], lost: Sequence[int | None]) -> None:
    """Tell callbacks and the caller of the chains whose losses are not numbers.

    Raises
    ------
    RuntimeError
        If those are all, and coefficients are estimated.
    """
    gone = {chain: draw for chain, draw in enumerate(lost) if draw is not None}
    if not gone:
        return
    estimated = any(isinstance(each, (LLCEstimator, OnlineLLCEstimator)) for each in callbacks)
    if len(gone) == len(lost) and estimated:
        chain, draw = next(iter(gone.items()))
        raise RuntimeError(f"NaN detected in loss at chain {chain}, draw {draw}")
    for callback in callbacks:
        if hasattr(callback, "lose"):
            for chain, draw in gone.items():
                callback.lose(chain, draw)
    names = ", ".join(f"chain {chain} at draw {draw}" for chain, draw in gone.items())
    warn(
        f"{len(gone)} of {len(lost)} chains diverged and are left out ({names}): lower lr",
        DivergenceWarning,
    )
