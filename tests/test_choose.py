"""Which engine runs, that it says why, and that trying leaves no trace."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from engine import assert_close, run
from fastllc import SGLD, RMSpropSGLD
from fastllc.engine import choose
from fastllc.peers import TorchSGLD
from zoo import Case, N, case, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = normal(N, 3), tokens(N, high=2)


class Mlp(nn.Module):
    """A net whose forward pass does as it is told."""

    def __init__(self, forward):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(2))
        self.how = forward

    def forward(self, x):
        return self.how(self, x)


def branches(net, x):
    y = net.layer(x)
    return y if y.sum() > 0 else 2 * y


def counts(net, x):
    net.calls += 1
    return net.layer(x)


def remembers(net, x):
    y = net.layer(x)
    net.mean.mul_(0.9).add_(y.detach().mean(0), alpha=0.1)
    return y - net.mean


def reads(net, x):
    return net.layer(x) * float(net.layer.weight.detach().norm())


def rolls(net, x):
    return net.layer(x) + torch.rand(())


def made(forward):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Case(Mlp(forward), DATA, cross_entropy)


def steady(kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Case(nn.Sequential(nn.Linear(3, 2), kind).train(), DATA, cross_entropy)


REFUSED = {
    "branches": made(branches),
    "in-place buffer": made(remembers),
    "reads numbers": made(reads),
    "rolls dice": made(rolls),
    "dropout": steady(nn.Dropout(0.5)),
    "batch norm": steady(nn.BatchNorm1d(2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_vmap_refuses_goes_in_place_with_the_reason(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace = run(REFUSED[name], num_draws=3)
    assert trace.attrs["engine"] == "inplace"
    assert trace.attrs["engine_reason"].startswith("vmap refuses the model or its data (")
    reason = trace.attrs["engine_reason"]
    with pytest.raises(ValueError, match=r"engine must be .* for this model and data") as error:
        run(REFUSED[name], engine="vectorised")
    assert reason in str(error.value)
    unsteady = {
        "dropout": "Dropout is in training mode",
        "batch norm": "BatchNorm1d is in training mode",
        "in-place buffer": "the loss differs from call to call",
    }.get(name)
    said = [str(w.message) for w in caught]
    if unsteady is None:
        assert said == []
    else:
        assert len(said) == 1
        assert said[0].startswith(f"{unsteady}: chains run in place")


def test_a_buffer_that_counts_calls_is_no_obstacle_and_stays():
    case = made(counts)
    trace = run(case)
    assert case.model.calls == 0
    assert_close(run(case, engine="inplace"), trace, 3e-6)


@pytest.mark.parametrize("kind", [nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.ReLU()])
def test_modules_that_are_steady_warn_of_nothing(kind):
    case = Case(nn.Sequential(nn.Linear(3, 2), kind), DATA, cross_entropy)
    assert run(case).attrs["engine"] == "vectorised"


def test_a_loss_that_vmap_gets_wrong_is_found_out():
    """A model that looks at the size of its weights knows that it is vectorised."""

    def cheats(net, x):
        return net.layer(x) * (2.0 if torch._C._functorch.is_batchedtensor(net.layer.weight) else 1)

    trace = run(made(cheats))
    assert trace.attrs["engine"] == "inplace"
    assert "another loss or gradient than the model itself" in trace.attrs["engine_reason"]


def test_a_gradient_that_vmap_gets_wrong_is_found_out():
    def cheats(net, x):
        y = net.layer(x)
        stacked = torch._C._functorch.is_batchedtensor(net.layer.weight)
        return y.detach() if not stacked else y

    case = made(lambda net, x: cheats(net, x) + 0 * net.layer(x))
    assert "another loss or gradient" in run(case).attrs["engine_reason"]


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_weights_kept_aside_are_found_out_where_the_loss_is_tiny_too(scale):
    """Stacked chains would walk without their loss: its gradient of 1e-8 passed for rounding."""
    case = made(lambda net, x: scale * (net.aside[0] @ x.T).T + net.layer.bias)
    case.model.aside = [case.model.layer.weight]
    with torch.no_grad():
        case.model.layer.bias.zero_()
        data = DATA[0], case.model(DATA[0])
    trace = run(Case(case.model, data, mse_loss))
    assert trace.attrs["engine"] == "inplace"


def loader(**how):
    return DataLoader(TensorDataset(*DATA), 6, shuffle=True, **how)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("settings", "engine", "reason"),
    [
        ({}, "vectorised", "3 of 3 chains at once"),
        ({"num_chains": 1}, "inplace", "there is one chain"),
        ({"num_chains": 1, "engine": "vectorised"}, "vectorised", "1 of 1 chains at once"),
        ({"chunk_size": 2}, "vectorised", "2 of 3 chains at once"),
        ({"engine": "inplace"}, "inplace", "as asked"),
        ({"sampler": TorchSGLD}, "inplace", "TorchSGLD is not a sampler of fastllc"),
        (
            {"sampler": lambda params, **how: SGLD(params[::-1], **how)},
            "inplace",
            "SGLD does not have the model's parameters in their order",
        ),
        (
            {"sampler": lambda params, **how: SGLD(params[:1], **how)},
            "inplace",
            "SGLD does not have the model's parameters in their order",
        ),
        (
            {
                "lr": [1e-4, 1e-3],
                "sampler": lambda params, lr, **how: (
                    SGLD(params, lr=lr, **how) if lr < 5e-4 else RMSpropSGLD(params, lr=lr, **how)
                ),
            },
            "inplace",
            "settings differ in the kind of sampler or its parameter groups",
        ),
    ],
)
def test_engine_and_reason_are_recorded(settings, engine, reason):
    trace = run(case("mlp"), **settings)
    assert (trace.attrs["engine"], trace.attrs["engine_reason"]) == (engine, reason)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_are_not_started_for_each_chain():
    with_workers = Case(case("mlp").model, loader(num_workers=1), cross_entropy)
    assert "would start them for each chain" in run(with_workers).attrs["engine_reason"]
    shared = run(with_workers, shared_batches=True)
    assert shared.attrs["engine"] == "vectorised"


def test_large_models_go_in_place():
    model = nn.Linear(1024, 1025)
    with torch.no_grad():
        model.weight.mul_(0.1)
    case = Case(model, (normal(4, 1024), normal(4, 1025)), mse_loss)
    reason = run(case, num_draws=1, batch_size=2).attrs["engine_reason"]
    assert reason == "1,050,625 weights keep the processor busy with one chain"


def test_a_subclass_with_a_step_of_its_own_is_the_users():
    class Mine(SGLD):
        def step(self, closure=None):
            return super().step(closure)

    assert "Mine is not a sampler" in run(case("mlp"), sampler=Mine).attrs["engine_reason"]


def test_samplers_of_others_walk_in_place_like_ours():
    """The peer is the same equation with other noise: without noise it is the same chain."""
    ours, theirs = (
        run(case("mlp"), engine="inplace", sampler=sampler, noise_level=0.0, num_draws=20)
        for sampler in (SGLD, TorchSGLD)
    )
    assert_close(theirs, ours, 1e-5)


def test_stacks_shrink_with_what_a_chain_holds(monkeypatch):
    """Weights four times (gradient, anchor, state), and what the backward pass keeps."""
    monkeypatch.setattr(choose, "_BUDGET", 2**20)

    def chunk(batch_size, width=2):
        model = nn.Sequential(nn.Linear(3, width), nn.Tanh())
        data = normal(4000, 3), normal(4000, width)
        trace = run(Case(model, data, mse_loss), batch_size=batch_size, num_chains=400, num_draws=1)
        assert trace.attrs["engine"] == "vectorised"
        return trace.attrs["chunk_size"]

    # A batch's inputs, outputs and targets: at least 3 + 2 + 2 numbers of 4 bytes a sample.
    small, large = chunk(100), chunk(1000)
    assert 5 * large < small <= 2**20 / (7 * 4 * 100)
    assert chunk(1, width=1000) <= 2**20 / (4 * 4 * 4000)
    assert chunk(4000) <= 2**20 / (7 * 4 * 4000)


@pytest.mark.parametrize("engine", ["auto", "vectorised"])
@pytest.mark.parametrize("name", ["branches", "in-place buffer"])
def test_a_trial_that_fails_midway_leaves_the_model_alone(name, engine):
    given = REFUSED[name]
    before = copy.deepcopy(given.model.state_dict())
    addresses = [t.data_ptr() for t in given.model.state_dict().values()]
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if engine == "vectorised":
            with pytest.raises(ValueError, match="engine must be"):
                run(given, engine=engine)
        else:
            run(given, engine=engine)
    for (key, now), address in zip(given.model.state_dict().items(), addresses, strict=True):
        assert torch.equal(now, before[key])
        assert now.data_ptr() == address
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in given.model.parameters())


def test_metrics_are_refused_of_samplers_that_keep_none():
    def others(params, *, save_metrics, lr, **settings):
        return torch.optim.SGD(params, lr=lr)

    with pytest.raises(TypeError, match=r"save_metrics must be False .* got True with SGD"):
        run(case("mlp"), sampler=others, save_metrics=True)
