"""Stacked chains walk as chains in place do: same seed, same minibatches, same trace to rounding.

The bound is a thousand times the rounding of single precision; another seed misses it a thousand
times over.
"""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import laws
from fastllc import SGLD, Observable, RMSpropSGLD, sample
from fastllc.engine.checkpoints import Checkpoints
from fastllc.engine.objective import Objective
from fastllc.engine.vectorised import VectorisedWalkers
from fastllc.samplers.stack import blueprint
from runs import CASES, SHORT, assert_close, assert_same, case, losses, run
from zoo import N, Point, normal, tokens

one_thread = laws.one_thread

BOTH = ("vectorised", "inplace")


def both(made, **settings):
    return [run(made, **settings, engine=engine) for engine in BOTH]


@pytest.mark.parametrize("name", CASES)
def test_engines_agree_on_every_model(name):
    # A bfloat16 loss is exact to 2^-8; so are the gradients that chains follow.
    rtol = 0.02 if name == "bfloat16" else 1e-4
    made = case(name)
    stacked, in_place = both(made)
    assert [stacked.attrs["engine"], in_place.attrs["engine"]] == [*BOTH]
    assert_close(stacked, in_place, rtol)
    other = run(made, seed=4, engine="vectorised")
    apart = np.abs(losses(other) - losses(stacked))
    assert np.median(apart / losses(stacked)) > 3 * rtol
    assert not np.array_equal(losses(stacked)[0], losses(stacked)[1])


def test_engines_agree_for_every_sampler(kind):
    assert_close(*both("mlp", sampler=kind, num_draws=12))


@pytest.mark.parametrize(
    "settings",
    [
        {"save_metrics": True, "num_steps_bw_draws": 3, "num_burnin_steps": 2},
        {"bounding_box_size": 0.01, "weight_decay": 2.0, "noise_level": 0.5},
        {"localization": 0.0},
        {"accumulation": 3},
        {"shared_batches": True},
        {"replacement": True},
        {"batch_size": N},
        {"batch_size": 1},
        {"num_chains": 1},
        {"init_loss": "full"},
        {"init_loss": 0.5},
        {"lr": [1e-3, 2e-3], "localization": [0.0, 10.0], "nbeta": [5.0, 20.0]},
        {"accumulation": 2, "shared_batches": True, "replacement": True},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_engines_agree_for_every_setting(settings):
    assert_close(*both("mlp", **settings))


def test_engines_agree_under_autocast():
    stacked, in_place = both("mlp", autocast=torch.bfloat16)
    assert_close(stacked, in_place, 0.03)
    plain = run("mlp", engine="vectorised")
    assert 1e-5 < np.abs(losses(stacked) / losses(plain) - 1).max() < 0.1


def test_engines_agree_with_masks(kind):
    on = torch.zeros(8, 3, dtype=torch.bool)
    on[::2] = True
    settings = {"mask": {"0.weight": on, "2.bias": torch.zeros(2, dtype=torch.bool)}}
    masked = both("mlp", sampler=kind, save_metrics=True, **settings)
    assert_close(*masked)
    free = run("mlp", sampler=kind, engine="vectorised")
    assert not np.allclose(losses(masked[0])[:, 5:], losses(free)[:, 5:], rtol=1e-3)


@pytest.mark.parametrize("name", ["mlp", "per-sample", "rows", "attention"])
def test_engines_agree_on_observables(name):
    made = case(name)
    settings = {
        "observables": {"all": made.data, "few": Observable(made.data, num_samples=5, every=4)},
        "num_draws": 9,
        "num_steps_bw_draws": 2,
    }
    stacked, in_place = both(made, **settings)
    assert_close(stacked, in_place)
    assert stacked["observables/all/loss"].shape == (3, 9, N)
    assert stacked["observables/few/loss"].shape == (3, 3, 5)


@pytest.mark.parametrize("name", ["mlp", "attention", "conv", "rows"])
def test_chunks_change_rounding_alone(name):
    made = case(name)
    settings = {"num_chains": 5, "lr": [1e-3, 2e-3], "engine": "vectorised"}
    whole = run(made, **settings)
    assert whole.attrs["chunk_size"] == 10
    for chunk in (1, 3, 5, 7):
        cut = run(made, **settings, chunk_size=chunk)
        assert cut.attrs["chunk_size"] == chunk
        assert_close(cut, whole)


def test_noise_does_not_depend_on_the_chunk():
    """A loss without a gradient to speak of: weights are noise alone, and so bits must agree."""

    def evaluate(model, batch):
        return (model.w * 1e-30).sum() + batch[0].sum() * 0

    data = torch.zeros(N, 1), torch.zeros(N)
    observe = {"w": data}

    def walk(**settings):
        model = Point(torch.zeros(3))
        trace = sample(
            model,
            data,
            evaluate=evaluate,
            **SHORT | {"nbeta": 1e30, "localization": 0.0, "num_chains": 5, "batch_size": 4},
            observables=observe,
            **settings,
        )
        return trace["observables/w/loss"].values

    whole = walk(engine="vectorised")
    assert len(np.unique(whole[:, -1, 0])) == 5
    for chunk in (1, 2, 4):
        np.testing.assert_array_equal(walk(engine="vectorised", chunk_size=chunk), whole)
    np.testing.assert_array_equal(walk(engine="inplace"), whole)


def test_a_chain_is_the_same_among_any_number_of_others():
    made = case("mlp")
    many = run(made, num_chains=6, engine="vectorised")
    few = run(made, num_chains=2, engine="vectorised")
    np.testing.assert_allclose(losses(few), losses(many)[:2], rtol=1e-5)


def test_minibatches_are_those_of_a_chain_in_either_engine():
    """The loss is the mean index of the minibatch, whatever the weights."""
    index = torch.arange(float(N))[:, None]

    def evaluate(model, batch):
        return batch[0].mean() + 0 * model.w.sum()

    for settings in ({}, {"shared_batches": True}, {"replacement": True}, {"accumulation": 2}):
        made = case("mlp")._replace(
            model=Point([0.0]), data=(index, index), loss_fn=None, evaluate=evaluate
        )
        stacked, in_place = both(made, **settings)
        # Sums of small integers are exact in single precision.
        np.testing.assert_array_equal(losses(stacked), losses(in_place))
        same = np.array_equal(losses(stacked)[0], losses(stacked)[1])
        assert same == settings.get("shared_batches", False)


def test_data_that_require_a_gradient_get_none():
    x = normal(N, 3).requires_grad_()
    made = case("mlp")
    made = made._replace(data=(x, made.data[1]))
    assert_close(*both(made))
    assert x.grad is None


def test_weights_start_at_the_checkpoint_bit_for_bit():
    made = case("conv")
    objective = Objective(made.model, made.loss_fn)
    checkpoints = Checkpoints(made.model)
    plan = blueprint(SGLD(made.model.parameters(), lr=0.1, localization=1.0))
    walkers = VectorisedWalkers(objective, checkpoints, slice(0, 1), [0, 0], [plan, plan], [1, 2])
    for leaf, p in zip(walkers.leaves, made.model.parameters(), strict=True):
        assert leaf.is_contiguous()
        assert torch.equal(leaf[0], p)
        assert torch.equal(leaf[1], p)
        assert leaf.data_ptr() != p.data_ptr()
    assert all((d == 0).all() and len(d) == 2 for d in walkers.displacements())
    before = {name: t.clone() for name, t in made.model.state_dict().items()}
    batches = [(made.data, None, False)]
    walkers.gradient(batches, 0)
    assert walkers.move(0, np.ones(2, bool)).all()
    assert all((d != 0).any() for d in walkers.displacements())
    assert all(torch.equal(t, before[n]) for n, t in made.model.state_dict().items())


def test_a_sampler_with_groups_of_its_own_is_stacked():
    def grouped(params, **settings):
        first, *rest = params
        groups = [{"params": [first], "lr": 5 * settings["lr"]}, {"params": rest}]
        return SGLD(groups, **settings)

    made = case("mlp")
    stacked, in_place = both(made, sampler=grouped, save_metrics=True)
    assert_close(stacked, in_place)
    assert not np.allclose(losses(stacked), losses(run(made, engine="vectorised")), rtol=1e-3)


def test_partial_samplers_keep_what_they_set():
    sampler = functools.partial(RMSpropSGLD, alpha=0.5, adapt_steps=3)
    stacked, in_place = both("mlp", sampler=sampler, num_draws=8)
    assert_close(stacked, in_place)
    assert stacked.attrs["sampler"] == "RMSpropSGLD(alpha=0.5, adapt_steps=3)"


def test_recurrent_nets_are_sampled_whole():
    """Their modules keep references to weights of their own, past which nothing is swapped."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.reader = nn.LSTM(3, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.reader(x)[0][:, -1])

    data = normal(N, 5, 3), tokens(N, high=2)
    model = Reader()
    in_place = sample(model, data, cross_entropy, **SHORT, batch_size=8, engine="inplace")
    auto = sample(model, data, cross_entropy, **SHORT, batch_size=8)
    assert_close(auto, in_place)
    frozen = Reader()
    frozen.reader.requires_grad_(False)
    head = sample(frozen, data, cross_entropy, **SHORT, batch_size=8)
    assert not np.allclose(losses(head), losses(auto), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_gradients_are_the_same_to_rounding():
    made = case("mlp")
    assert_close(run(made, engine="vectorised", compile=True), run(made, engine="vectorised"), 1e-4)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_loaders_with_workers_feed_stacked_chains():
    x, y = normal(N, 3), tokens(N, high=2)

    def walk(workers, **settings):
        loader = DataLoader(TensorDataset(x, y), 8, shuffle=True, num_workers=workers)
        return run(case("mlp")._replace(data=loader), num_chains=2, **settings)

    alone = walk(0, engine="inplace")
    assert_close(walk(1, engine="vectorised"), alone)
    assert walk(1).attrs["engine_reason"].startswith("a DataLoader with workers")
    assert_close(walk(1, shared_batches=True), walk(0, shared_batches=True, engine="inplace"))


def test_same_bits_for_the_same_call():
    made = case("attention")
    assert_same(run(made, engine="vectorised"), run(made, engine="vectorised"))


def test_idle_parameters_stay_where_they_are():
    made = case("scaled")
    seen = []

    def evaluate(model, batch):
        seen.append(model.idle.detach().clone())
        return mse_loss(model(batch[0]), batch[1])

    run(made._replace(loss_fn=None, evaluate=evaluate), engine="inplace")
    assert all((idle == 1).all() for idle in seen)
