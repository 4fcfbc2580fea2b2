"""Losses, batches and temperatures as devinterp 1 scripts take them."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fastllc.compat.devinterp1.samples import minibatches
from fastllc.engine.minibatch import to_device

__all__ = [
    "USE_TPU_BACKEND",
    "EvalResults",
    "EvaluateFn",
    "Outputs",
    "cycle",
    "default_nbeta",
    "evaluate",
    "evaluate_ce",
    "evaluate_mse",
    "get_init_loss_full_batch",
    "get_init_loss_multi_batch",
    "get_init_loss_one_batch",
    "get_seeded_dataloader",
    "make_evaluate",
    "np",
    "plot_trace",
    "prepare_input",
    "set_seed",
    "split_results",
    "torch",
]

USE_TPU_BACKEND = False  # there is none


class Outputs(NamedTuple):
    """What an evaluate function may return."""

    loss: Tensor


EvalResults: TypeAlias = Outputs | dict[str, Tensor] | tuple[Tensor, ...] | Tensor
EvaluateFn: TypeAlias = Callable[[nn.Module, Any], EvalResults]


def default_nbeta(dataloader: DataLoader[Any] | int, grad_accum_steps: int = 1) -> float:
    """Inverse temperature b / log b of devinterp 1, with the samples b of a step.

    `fastllc.default_nbeta` is that of the WBIC, n / log n with all n samples.

    Parameters
    ----------
    dataloader : DataLoader or int
        What tells the batch size, or that itself.
    grad_accum_steps : int
        Minibatches a step.

    Returns
    -------
    float
        b / log b, dimensionless; 1 for a single sample.

    Raises
    ------
    NotImplementedError
        For anything else, such as a loader that does not know how large its batches are.

    Warns
    -----
    UserWarning
        If there is a single sample, for which it is undefined.

    Examples
    --------
    >>> round(default_nbeta(32), 3)
    9.233
    """
    if not isinstance(dataloader, (DataLoader, int)):
        raise NotImplementedError(
            f"dataloader must be a DataLoader or an int, got {type(dataloader).__name__}"
        )
    size = dataloader if isinstance(dataloader, int) else _batch_size(dataloader)
    samples = size * grad_accum_steps
    if samples <= 1:
        warnings.warn(  # noqa: B028 - called with the message alone, as scripts mock it
            "default nbeta is undefined for batch_size * grad_accum_steps == 1, "
            "falling back to default value of 1"
        )
        return 1
    return samples / math.log(samples)


def _batch_size(loader: DataLoader[Any]) -> int:
    size: int | None = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    if size is None:
        raise NotImplementedError("dataloader must have a batch_size, or be an int, got None")
    return size


def prepare_input(
    data: Any, device: Any, is_deepspeed_enabled: bool = False, accelerator: Any = None
) -> Any:
    """Move all tensors of a batch to a device.

    Raises
    ------
    NotImplementedError
        With ``is_deepspeed_enabled``.

    Examples
    --------
    >>> prepare_input({"x": [torch.zeros(1)]}, "cpu")
    {'x': [tensor([0.])]}
    """
    if is_deepspeed_enabled:
        raise NotImplementedError("is_deepspeed_enabled must be False, got True")
    return to_device(data, torch.device(device))


def split_results(results: Any) -> tuple[Tensor, Any]:
    """Return the loss, and what else an evaluate function returned.

    Raises
    ------
    ValueError
        If there is no loss in it.

    Examples
    --------
    >>> split_results((torch.tensor(1.0), {"output": 2}))
    (tensor(1.), ({'output': 2},))
    """
    if isinstance(results, Tensor):
        return results, None
    if isinstance(results, dict):
        return results.pop("loss"), results
    if isinstance(results, tuple):
        return results[0], results[1:] or results
    loss = getattr(results, "loss", None)
    if loss is not None:
        return loss, results
    raise ValueError(
        f"evaluate must return a loss, or a dict, tuple or object with one, "
        f"got {type(results).__name__}"
    )


def get_seeded_dataloader(dataloader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """Return a loader of the same data in their own order, with a generator of this seed."""
    generator = torch.Generator().manual_seed(int(seed))
    return DataLoader(dataloader.dataset, dataloader.batch_size, generator=generator)


def get_init_loss_one_batch(
    dataloader: DataLoader[Any],
    model: nn.Module,
    evaluate: EvaluateFn,
    device: Any,
    seed: int | None = None,
) -> float:
    """Loss of the first batch, in train mode; see `get_init_loss_multi_batch`."""
    return _mean_loss(dataloader, 1, model, evaluate, device, seed)


def get_init_loss_multi_batch(
    dataloader: DataLoader[Any],
    n_batches: int,
    model: nn.Module,
    evaluate: EvaluateFn,
    device: Any,
    seed: int | None = None,
) -> float:
    """Mean loss of the first batches, each of the same weight. It leaves the model in train mode.

    Parameters
    ----------
    dataloader : DataLoader
        The data; with `seed` they come in their own order.
    n_batches : int
        At most so many.
    model : nn.Module
        Moved to `device`.
    evaluate : callable
        ``evaluate(model, batch)``.
    device : torch.device or str
        Where to evaluate.
    seed : int, optional
        Of the loader's generator.

    Returns
    -------
    float
        The mean loss.

    Examples
    --------
    >>> data = torch.utils.data.TensorDataset(torch.zeros(4, 1), torch.ones(4, 1))
    >>> model = nn.Linear(1, 1, bias=False)
    >>> get_init_loss_multi_batch(DataLoader(data, 2), 2, model, evaluate_mse, "cpu")
    1.0
    """
    return _mean_loss(dataloader, n_batches, model, evaluate, device, seed)


def get_init_loss_full_batch(
    dataloader: DataLoader[Any],
    model: nn.Module,
    evaluate: EvaluateFn,
    device: Any,
    seed: int | None = None,
) -> float:
    """Mean loss of all batches, in train mode; see `get_init_loss_multi_batch`."""
    return _mean_loss(dataloader, None, model, evaluate, device, seed)


@torch.no_grad()
def _mean_loss(
    loader: DataLoader[Any],
    limit: int | None,
    model: nn.Module,
    evaluate: EvaluateFn,
    device: Any,
    seed: int | None,
) -> float:
    if seed is not None:
        loader = get_seeded_dataloader(loader, seed)
    model = model.to(device)
    model.train()
    losses = [
        split_results(evaluate(model, prepare_input(data, device)))[0].item()
        for data in islice(minibatches(loader), limit)
    ]
    return sum(losses) / len(losses)


def evaluate(criterion: Callable[..., Tensor], model: nn.Module, data: Any) -> Any:
    """Return the criterion of a model's outputs and targets, and those outputs."""
    inputs, targets = data
    outputs = model(inputs)
    return criterion(outputs, targets), {"output": outputs}


def make_evaluate(criterion: Callable[..., Tensor]) -> EvaluateFn:
    """Return an evaluate function from a criterion of outputs and targets.

    Examples
    --------
    >>> data = torch.ones(2, 1), torch.zeros(2, 1)
    >>> make_evaluate(F.mse_loss)(nn.Identity(), data)[0]
    tensor(1.)
    """
    return partial(evaluate, criterion)


evaluate_ce = partial(evaluate, F.cross_entropy)
evaluate_mse = partial(evaluate, F.mse_loss)


def set_seed(seed: int, device: Any = None) -> None:
    """Seed the random states of torch, numpy and Python."""
    seed = int(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it is this state that scripts mean


def cycle(iterable: Iterable[Any], limit: int | None = None) -> Iterator[Any]:
    """Yield from an iterable again and again, each time read anew, up to a limit.

    Examples
    --------
    >>> list(cycle("ab", 3))
    ['a', 'b', 'a']
    """
    endless = (item for _ in count() for item in iterable)
    return islice(endless, limit)


def plot_trace(
    trace: Any,
    y_axis: str,
    x_axis: str = "step",
    title: str | None = None,
    plot_mean: bool = True,
    plot_std: bool = True,
    fig_size: tuple[float, float] = (12, 9),
    true_lc: float | None = None,
) -> None:
    """Show the values of chains over draws, with their mean and standard deviation.

    Parameters
    ----------
    trace : ndarray, shape [chain, draw]
        The values.
    y_axis, x_axis, title : str
        What is written on them.
    plot_mean, plot_std : bool
        Whether the mean of the chains and a band around it are drawn.
    fig_size : (float, float)
        Width and height in inches.
    true_lc : float, optional
        Where a dashed line is drawn.
    """
    import matplotlib.pyplot as plt

    trace = np.asarray(trace)
    _, axes = plt.subplots(figsize=fig_size)
    draws = np.arange(trace.shape[1])
    if true_lc:
        axes.axhline(true_lc, color="r", linestyle="dashed")
    for i, values in enumerate(trace):
        axes.plot(draws, values, linewidth=1, label=f"chain {i}")
    mean, std = trace.mean(axis=0), trace.std(axis=0)
    if plot_mean:
        axes.plot(draws, mean, color="black", linestyle="--", linewidth=2, label="mean", zorder=3)
    if plot_std:
        axes.fill_between(draws, mean - std, mean + std, color="gray", alpha=0.3, zorder=2)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.set(title=title or f"{y_axis} values over sampling draws", xlabel=x_axis, ylabel=y_axis)
    plt.tight_layout()
    plt.show()
