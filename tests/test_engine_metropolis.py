"""MALA in the engine: stacked, in place and in a loop of one's own it is the same chain."""

import functools
import math
import operator
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from engine import assert_close, assert_same
from fastllc import MALA, SGLD, LLCEstimator, Sampling, chain_key, sample, summarize
from helpers import leaf
from zoo import Point, case

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
DATA = torch.zeros(4, 1), torch.zeros(4)
START = torch.linspace(-0.4, 0.4, 7)
STIFFNESS = torch.linspace(0.5, 2.0, 7)
SETTINGS = {
    "sampler": MALA,
    "lr": 0.05,
    "nbeta": 20.0,
    "localization": 3.0,
    "weight_decay": 0.5,
    "num_chains": 3,
    "num_draws": 40,
    "seed": 1,
    "progress": False,
}


def energy(w):
    """Added up in one order, which that of a sum is not for stacks of any size."""
    terms = STIFFNESS * w * w / 2 + w * w * w * w
    return functools.reduce(operator.add, terms.unbind())


def walk(engine="vectorised", start=START, **changed):
    settings = {"save_acceptance": True, "engine": engine, **SETTINGS, **changed}
    return sample(Point(start), DATA, evaluate=lambda m, _: energy(m.w), **settings)


def by_hand(chain, steps, **changed):
    """Losses before each step and probabilities, in a loop of one's own."""
    w = leaf(START)
    given = {name: SETTINGS[name] for name in ("lr", "nbeta", "localization", "weight_decay")}
    sampler = MALA([w], **given | changed, seed=chain_key(1, chain))

    def closure():
        sampler.zero_grad()
        loss = energy(w)
        loss.backward()
        return loss

    found = []
    for _ in range(steps):
        loss = sampler.step(closure).item()
        found.append((loss, sampler.acceptance_probability, sampler.accepted))
    return [np.array(column) for column in zip(*found, strict=True)]


@ENGINES
@pytest.mark.parametrize("asked", [True, False])
def test_chains_are_those_of_a_loop_of_one_s_own(engine, asked):
    trace = walk(engine, save_acceptance=asked)
    assert trace.attrs["engine"] == engine
    assert trace.attrs["corrected"] == 1
    for chain in range(3):
        losses, probabilities, accepted = by_hand(chain, 40)
        np.testing.assert_array_equal(trace["steps/loss"].values[chain], losses.astype(np.float32))
        if asked:
            np.testing.assert_array_equal(
                trace["metrics/mala_acceptance"].values[chain], probabilities.astype(np.float32)
            )
        # A refused step is one after which the loss is the same, to the bit.
        np.testing.assert_array_equal(losses[1:] != losses[:-1], accepted[:-1])
        assert 5 < accepted.sum() < 38


def test_stacks_of_any_size_are_the_same_chains():
    wanted = walk(num_chains=5)
    for chunk in (1, 2, 3):
        assert_same(walk(num_chains=5, chunk_size=chunk), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@ENGINES
def test_other_precisions(engine, dtype):
    """In double precision to the last bit of the probability; what is kept beside bfloat16 too."""
    model = Point(START)
    model.w = nn.Parameter(START.to(dtype))
    trace = sample(
        model,
        DATA,
        evaluate=lambda m, _: energy(m.w.double()),
        engine=engine,
        save_acceptance=True,
        **SETTINGS,
    )
    w = leaf(START.to(dtype))
    given = {name: SETTINGS[name] for name in ("lr", "nbeta", "localization", "weight_decay")}
    sampler = MALA([w], **given, seed=chain_key(1, 2))

    def closure():
        sampler.zero_grad()
        loss = energy(w.double())
        loss.backward()
        return loss

    losses, probabilities, verdicts = [], [], set()
    for _ in range(40):
        losses.append(sampler.step(closure).item())
        probabilities.append(sampler.acceptance_probability)
        verdicts.add(sampler.accepted)
    assert verdicts == {True, False}
    np.testing.assert_array_equal(trace["steps/loss"].values[2], np.float32(losses))
    np.testing.assert_array_equal(
        trace["metrics/mala_acceptance"].values[2], np.float32(probabilities)
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": [0.01, 0.05], "nbeta": [5.0, 20.0], "localization": [0.0, 3.0]},
        {"mask": {"w": torch.arange(7) % 2 == 0}},
        {"save_metrics": True, "num_burnin_steps": 3, "num_steps_bw_draws": 4, "num_draws": 9},
        {"checkpoints": [{"w": START}, {"w": -2 * START}], "common_random_numbers": True},
        {"noise_level": 1.3, "accumulation": 2},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_engines_agree_for_every_setting(changed):
    assert_same(walk("vectorised", **changed), walk("inplace", **changed))


def test_engines_agree_on_a_network():
    made = case("mlp")
    own = {"lr": 3e-3, "observables": {"all": made.data}, "save_acceptance": True}
    stacked, in_place = (
        sample(**made.fit, **SETTINGS | own, engine=engine) for engine in ("vectorised", "inplace")
    )
    # The logarithm of an acceptance is a difference of large terms.
    assert_close(stacked, in_place, 1e-3)


@ENGINES
def test_a_mask_holds_the_others(engine):
    mask = torch.arange(7) % 2 == 0
    moved = []

    class Looking:
        def start(self, chains, keys, walkers):
            self.walkers = walkers

        def before(self, step, losses):
            pass

        def after(self, step, losses, active):
            moved.extend(w.clone() for w, _ in self.walkers.tensors())

    Sampling(**SETTINGS, engine=engine, mask={"w": mask}).run(
        Point(START), DATA, evaluate=lambda m, _: energy(m.w), spectator=Looking()
    )
    weights = torch.cat(moved)
    assert torch.equal(weights[:, ~mask], START[~mask].expand(len(weights), -1))
    assert (weights[:, mask] != START[mask]).any()


@ENGINES
def test_proposals_without_a_loss_are_refused_and_no_chain_is_lost(engine):
    def evaluate(model, _):
        inside = (model.w.abs() < 0.7).all()
        return energy(model.w) * torch.where(inside, 1.0, math.nan)

    trace = sample(
        Point(START), DATA, evaluate=evaluate, engine=engine, save_acceptance=True, **SETTINGS
    )
    assert (trace["diverged_at"] == -1).all()
    assert np.isfinite(trace["steps/loss"]).all()
    acceptance = trace["metrics/mala_acceptance"].values
    assert (acceptance == 0).any()
    assert np.isfinite(acceptance).all()
    # Those steps are the only ones that differ.
    free = walk(engine)
    first = np.argmax(acceptance == 0, 1)
    for chain, step in enumerate(first):
        np.testing.assert_array_equal(
            *(t["steps/loss"].values[chain, : step + 1] for t in (trace, free))
        )


@ENGINES
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batch_size": 24}, False),
        ({"batch_size": None}, False),
        ({"batch_size": 8, "accumulation": 3}, False),
        ({"batch_size": 24, "accumulation": 2}, False),
        ({"batch_size": 8}, True),
        ({"batch_size": 8, "accumulation": 2}, True),
        ({"batch_size": 10, "accumulation": 2}, True),
        ({"batch_size": 24, "replacement": True}, True),
        ({"sampler": SGLD, "batch_size": 8}, False),
        ({"sampler": functools.partial(MALA, sketch_dim=None), "batch_size": 8}, True),
    ],
    ids=str,
)
def test_minibatches_are_told_of(engine, given, told):
    made = case("mlp")
    settings = SETTINGS | {"lr": 1e-3, "num_draws": 2, "engine": engine} | given
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample(**made.fit, **settings)
    assert len([w for w in caught if "MALA accepts or refuses" in str(w.message)]) == told


@pytest.mark.parametrize(("batch_size", "told"), [(24, False), (6, True)])
def test_loaders_are_told_of_too(batch_size, told):
    made = case("mlp")
    loader = DataLoader(TensorDataset(*made.data), batch_size, shuffle=True)
    settings = SETTINGS | {"lr": 1e-3, "num_draws": 2}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample(made.model, loader, made.loss_fn, **settings)
    assert len([w for w in caught if "MALA accepts or refuses" in str(w.message)]) == told


def test_dropout_is_the_same_before_and_after_a_step():
    """What the model draws follows from the step: hardly a step is always accepted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    data = torch.randn(24, 3), torch.randn(24, 1)
    settings = SETTINGS | {"lr": 1e-12, "nbeta": 1e3, "save_acceptance": True}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Dropout is in training mode")
        trace = sample(model, data, nn.functional.mse_loss, **settings)
    assert trace.attrs["engine"] == "inplace"
    assert (trace["metrics/mala_acceptance"] > 0.99).all()
    assert trace["steps/loss"].values.std(1).min() > 0.01  # and 1e3 times that is not accepted


def test_the_estimator_takes_it():
    """Of a quadratic: 1/2 sum nb h / (nb h + gamma), where SGLD makes 1.5 of it."""
    h, nb, gamma, lr = STIFFNESS.double().numpy(), 20.0, 3.0, 0.05
    exact = (0.5 * nb * h / (nb * h + gamma)).sum()
    settings = SETTINGS | {"lr": lr, "weight_decay": 0.0, "num_chains": 64, "num_draws": 1500}
    estimator = LLCEstimator(**settings, num_burnin_steps=100, save_acceptance=True)
    estimator.fit(Point(torch.zeros(7)), DATA, evaluate=lambda m, _: (STIFFNESS * m.w**2).sum() / 2)
    assert estimator.llc_ == pytest.approx(exact, rel=0.01)
    biased = (0.5 * nb * h / ((nb * h + gamma) * (1 - lr * (nb * h + gamma) / 4))).sum()
    assert biased > 1.4 * exact
    # Refusals are its own, and no reason to worry.
    assert float(estimator.trace_["metrics/mala_acceptance"].mean()) < 0.9
    assert not [text for text in summarize(estimator.trace_).warnings if "Metropolis" in text]


@ENGINES
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bounding_box_size": 1.0}, "bounding_box_size must be None, got 1"),
        ({"noise_level": 0.0}, "noise_level must be > 0, got 0"),
    ],
)
def test_what_is_no_proposal_is_refused(engine, changed, message):
    with pytest.raises(ValueError, match=message):
        walk(engine, **changed)
