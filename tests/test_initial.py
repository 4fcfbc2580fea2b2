"""Losses at w*: the mean over all data, and that of the very samples that each step sees."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from engine import assert_close, losses, run
from fastllc import llc, sample
from fastllc.engine.study import Chain, Study
from fastllc.engine.tensors import TensorBatches
from zoo import CASES, Case, N, case, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
BY_TENSORS = [name for name in CASES if name != "rows"]


def baseline(trace):
    return trace["steps/baseline"].values


def exact(made, batch, model=None):
    x, y = batch
    with torch.no_grad():
        return made.loss_fn(_logits((model or made.model)(x)), y).float().mean().item()


def _logits(outputs):
    if isinstance(outputs, dict):
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)


@ENGINES
@pytest.mark.parametrize("name", BY_TENSORS)
@pytest.mark.parametrize("how", ["independent", "shared", "replacement"])
def test_baselines_are_the_losses_of_the_same_minibatches_at_the_start(name, engine, how):
    made = case(name)
    given = {} if how == "independent" else {f"{how}_batches" if how == "shared" else how: True}
    trace = run(made, engine=engine, **given)
    study = Study((1, 1, 3), seed=1, shared_batches=how == "shared")
    batches = TensorBatches(made.data, 5, torch.device("cpu"), replacement=how == "replacement")
    rtol = 2**-6 if name == "bfloat16" else 1e-5
    for chain in range(3):
        stream = batches.stream([study.data_key(Chain(0, 0, chain))])
        wanted = [exact(made, next(stream).batch) for _ in range(5)]
        np.testing.assert_allclose(baseline(trace)[chain], wanted, rtol=rtol)
    # No chain has moved before its first step.
    np.testing.assert_allclose(losses(trace)[:, 0], baseline(trace)[:, 0], rtol=rtol)
    assert trace.attrs["init_loss"] == "paired"
    np.testing.assert_allclose(float(trace["init_loss"]), exact(made, made.data), rtol=rtol)


@pytest.mark.parametrize("engine", ["auto", "inplace"])
def test_losses_that_differentiate_by_themselves_are_paired_too(engine):
    """As the residual of a differential equation does, by either of torch's ways."""

    def by_func(model, batch):
        slopes = torch.func.vmap(torch.func.grad(lambda x: model(x).sum()))(batch[0])
        return ((slopes - batch[0]) ** 2).mean(1)

    def by_autograd(model, batch):
        with torch.enable_grad():
            x = batch[0].detach().requires_grad_()
            (slopes,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            return ((slopes - x) ** 2).mean(1)

    made = case("mlp")
    traces = [
        run(
            Case(made.model, made.data, None, evaluate),
            engine=engine,
            observables={"all": made.data},
        )
        for evaluate in (by_func, by_autograd)
    ]
    np.testing.assert_allclose(losses(traces[0])[:, 0], baseline(traces[0])[:, 0], rtol=1e-5)
    assert_close(*traces, 1e-5)


@ENGINES
def test_baselines_of_checkpoints_and_accumulated_minibatches_are_their_own(engine):
    models = [case("mlp", seed).model for seed in range(3)]
    made = case("mlp")
    trace = run(made._replace(model=models), engine=engine, accumulation=2, lr=[1e-3, 1e-2])
    batches = TensorBatches(made.data, 5, torch.device("cpu"))
    study = Study((3, 2, 3), seed=1)
    for at in np.ndindex(3, 2, 3):
        stream = batches.stream([study.data_key(Chain(*at))])
        wanted = [
            np.mean([exact(made, next(stream).batch, models[at[0]]) for _ in range(2)])
            for _ in range(5)
        ]
        np.testing.assert_allclose(baseline(trace)[at], wanted, rtol=1e-5)
    wanted = [exact(made, made.data, model) for model in models]
    np.testing.assert_allclose(trace["init_loss"], wanted, rtol=1e-5)


def test_baselines_are_unbiased():
    """Their mean over many minibatches is the loss over all data, within its standard error."""
    made = case("mlp")
    trace = run(made, num_chains=4, num_draws=1000, lr=1e-6, replacement=True)
    draws = baseline(trace).ravel().astype(float)
    error = draws.std(ddof=1) / len(draws) ** 0.5  # with replacement all are independent
    assert abs(draws.mean() - float(trace["init_loss"])) < 4 * error
    assert error < 0.01 * float(trace["init_loss"])


def summed(outputs, targets):
    return cross_entropy(outputs, targets, reduction="sum")


def spread(outputs, targets):
    """Contrasts samples of a batch with each other, as contrastive losses do."""
    return cross_entropy(outputs, targets) + outputs.var(0, correction=0).sum()


def batchwise(outputs, targets):
    return cross_entropy(outputs, targets) * (1.0 + (outputs.shape[0] > 1))


UNPAIRED = {
    "sum": lambda: case("mlp")._replace(loss_fn=summed),
    "contrast": lambda: case("mlp")._replace(loss_fn=spread),
    "depends on size": lambda: case("mlp")._replace(loss_fn=batchwise),
    "weighted": lambda: case("mlp")._replace(
        loss_fn=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0]))
    ),
    "loader": lambda: case("mlp")._replace(data=DataLoader(TensorDataset(*case("mlp").data), 5)),
    "dataset": lambda: case("mlp")._replace(
        data=torch.utils.data.Subset(TensorDataset(*case("mlp").data), range(N))
    ),
}


@pytest.mark.parametrize("name", UNPAIRED)
def test_without_a_mean_over_samples_there_are_no_baselines(name):
    made = UNPAIRED[name]()
    trace = run(made)
    assert "baseline" not in trace["steps"]
    assert trace.attrs["init_loss"] == "full"


def test_batch_norm_in_training_mode_has_no_baselines():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    trace = run(Case(model, (normal(N, 3), tokens(N, high=2)), cross_entropy), engine="inplace")
    assert "baseline" not in trace["steps"]


@pytest.mark.parametrize("given", ["full", 0.25, 3])
def test_what_is_not_asked_for_is_not_paired(given):
    trace = run(case("mlp"), init_loss=given)
    assert "baseline" not in trace["steps"]
    assert trace.attrs["init_loss"] == given
    wanted = exact(case("mlp"), case("mlp").data) if given == "full" else given
    assert float(trace["init_loss"]) == pytest.approx(wanted, rel=1e-6)


def test_the_whole_of_the_data_needs_no_baseline():
    trace = run(case("mlp"), batch_size=N)
    assert "baseline" not in trace["steps"]
    with_replacement = run(case("mlp"), batch_size=N, replacement=True)
    assert "baseline" in with_replacement["steps"]


def test_low_precision_is_paired_to_its_rounding():
    trace = run(case("mlp"), autocast=torch.bfloat16)
    np.testing.assert_allclose(losses(trace)[:, 0], baseline(trace)[:, 0], rtol=2**-7)


def test_samples_weigh_the_same_in_the_mean_whatever_the_batches():
    made = case("mlp")
    wanted = exact(made, made.data)
    for size in (1, 5, 7, 24):
        for data in (made.data, DataLoader(TensorDataset(*made.data), size)):
            given = {"batch_size": size} if data is made.data else {}
            trace = run(made._replace(data=data), init_loss="full", **given)
            assert float(trace["init_loss"]) == pytest.approx(wanted, rel=1e-6)


def test_pairing_cuts_the_variance():
    """Small steps, noisy minibatches: what the minibatch does to both losses drops out."""
    x = normal(2000, 8)
    y = x @ normal(8, 1, seed=3) + normal(2000, 1, seed=4)
    with torch.no_grad():
        model = nn.Linear(8, 1, bias=False)
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    made = Case(model, (x, y), mse_loss)
    settings = {
        "nbeta": 100.0,
        "lr": 1e-3,
        "localization": 10.0,
        "num_chains": 32,
        "num_draws": 200,
        "num_burnin_steps": 100,
        "batch_size": 20,
        "replacement": True,  # else over whole epochs the minibatches' own losses cancel
    }
    trace = run(made, **settings)
    draws = trace["steps/loss"].values[:, 100:].astype(float)
    paired = 100.0 * (draws - baseline(trace)[:, 100:]).mean(1)
    full = 100.0 * (draws - float(trace["init_loss"])).mean(1)
    assert paired.var(ddof=1) < 0.2 * full.var(ddof=1)
    # The same expectation: their difference is that of baselines and their mean.
    difference = full - paired
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / 32**0.5
    assert llc(trace).llc == pytest.approx(paired.mean(), rel=1e-6)


def test_a_minimum_that_is_not_finite_is_refused():
    made = case("mlp")
    x = made.data[0].clone()
    x[-1, 0] = torch.nan
    for init_loss in ("paired", "full"):
        with pytest.raises(ValueError, match=r"loss_fn must be finite at the model's own weights"):
            run(made._replace(data=(x, made.data[1])), init_loss=init_loss)


@pytest.mark.parametrize("width", [1, 2**18])
def test_small_batches_are_taken_together_while_that_needs_little_memory(width):
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.1))

        def forward(self, x):
            seen.append(len(x))
            return (self.w * x[:, :1]).exp().expand(-1, width).sin().mean(1)  # keeps its input

    x = normal(600, 1)
    fit = {"model": Watched(), "data": (x, x[:, 0]), "loss_fn": lambda o, t: (o - t) ** 2}
    settings = {"nbeta": 1.0, "num_draws": 1, "num_chains": 2, "progress": False, "seed": 0}
    one = sample(**fit, **settings, batch_size=1, engine="vectorised")
    # 64 MiB hold 64 samples that keep a quarter million numbers, and 63 that keep a little more.
    assert max(seen) == (256 if width == 1 else 63)
    seen.clear()
    many = sample(**fit, **settings, batch_size=300, engine="vectorised")
    assert max(seen) == 300
    np.testing.assert_allclose(one["init_loss"], many["init_loss"], rtol=1e-5)
