"""The loop: when draws are taken, and chains that go wrong beside others that do not."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine import SHORT, losses, run
from fastllc import DivergenceError, DivergenceWarning, Sampling
from fastllc.engine.loop import Schedule
from zoo import Case, Point, case

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
DATA = torch.zeros(4, 1), torch.zeros(4)


@given(
    burnin=st.integers(0, 7),
    draws=st.integers(1, 7),
    between=st.integers(1, 5),
    every=st.integers(1, 4),
)
def test_draws_come_after_burnin_and_then_every_so_many_steps(burnin, draws, between, every):
    schedule = Schedule(burnin, draws, between, 1)
    taken = {burnin + (i + 1) * between - 1: i for i in range(draws)}
    assert schedule.num_steps == burnin + draws * between
    assert [schedule.draw(step) for step in range(schedule.num_steps)] == [
        taken.get(step) for step in range(schedule.num_steps)
    ]
    assert schedule.first_draw == min(taken)
    for step in range(schedule.num_steps + 1):
        before = [i for at, i in taken.items() if at < step]
        assert schedule.draws_before(step) == len(before)
        assert schedule.draws_before(step, every) == len([i for i in before if i % every == 0])


@ENGINES
def test_what_is_kept_of_a_draw_is_of_its_step(engine):
    made = case("mlp")
    x, y = made.data
    seen = []
    settings = SHORT | {
        "engine": engine,
        "batch_size": len(x),
        "num_burnin_steps": 3,
        "num_steps_bw_draws": 2,
        "observables": {"all": (x, y)},
    }
    trace = Sampling(**settings).run(**made.fit, watch=lambda *at: seen.append(at))
    node = trace["observables/all"]
    assert node["step"].values.tolist() == [4, 6, 8, 10, 12]
    # The mean over all samples is the loss of the full batch at that step.
    np.testing.assert_allclose(node["loss"].values.mean(-1), losses(trace)[:, 4::2], rtol=1e-6)
    assert len(seen) == 5 * 3
    assert {at for at, _ in seen} == {(0, 0, chain) for chain in range(3)}
    size = sum(p.numel() for p in made.model.parameters())
    assert all(delta.shape == (size,) for _, delta in seen)


class Looking:
    """Takes down what a spectator sees."""

    def __init__(self):
        self.steps, self.before_, self.after_ = [], [], []

    def start(self, chains, keys, walkers):
        self.walkers = walkers
        assert len(chains) == len(keys) == len(set(keys))

    def _weights(self):
        return [w.clone() for w, _ in self.walkers.tensors()]

    def before(self, step, losses):
        self.steps.append((step, losses.shape))
        assert all(grad.shape == w.shape for w, grad in self.walkers.tensors())
        self.before_.append(self._weights())

    def after(self, step, losses, active):
        assert (step, losses.shape) == self.steps[-1]
        assert active.all()
        self.after_.append(self._weights())


@ENGINES
def test_a_spectator_sees_draws_before_and_after_their_step(engine):
    made = case("mlp")
    looking = Looking()
    settings = SHORT | {"engine": engine, "num_burnin_steps": 2}
    Sampling(**settings).run(**made.fit, spectator=looking)
    at_once, boxes = (3, 1) if engine == "vectorised" else (1, 3)
    assert looking.steps == [(step, (at_once,)) for step in range(2, 7)] * boxes
    for start, end, after in zip(
        looking.before_[:4], looking.before_[1:5], looking.after_[:4], strict=True
    ):
        for w, w_new, w_after in zip(start, end, after, strict=True):
            assert (w != w_new).any()
            assert torch.equal(w_new, w_after)


def cliff(edge):
    """A loss that is not a number beyond an edge."""

    def evaluate(model, batch):
        inside = (model.w < edge).all()
        return (model.w**2).sum() * torch.where(inside, 1.0, math.nan)

    return evaluate


def spoilt(edge):
    """A loss that is finite, and its gradient infinite, beyond an edge."""

    class Wall(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(w):
            return w.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])

        @staticmethod
        def backward(ctx, grad):
            (w,) = ctx.saved_tensors
            return torch.where(w < edge, grad, torch.inf)

    return lambda model, batch: (Wall.apply(model.w) ** 2).sum()


def walk(evaluate, engine, **settings):
    made = Case(Point(torch.zeros(3)), DATA, None, evaluate)
    return run(
        made,
        **{
            "engine": engine,
            "batch_size": 4,
            "lr": 0.02,
            "localization": 1.0,
            "num_chains": 8,
            "num_draws": 40,
            "init_loss": 0.0,
            **settings,
        },
    )


@ENGINES
@pytest.mark.parametrize("trouble", [cliff, spoilt])
def test_some_chains_diverge_and_the_others_do_not_notice(engine, trouble):
    positions = {}
    made = Case(Point(torch.zeros(3)), DATA, None, trouble(0.5))
    sampling = Sampling(
        **SHORT
        | {
            "engine": engine,
            "lr": 0.02,
            "localization": 1.0,
            "num_chains": 8,
            "num_draws": 40,
            "init_loss": 0.0,
            "save_metrics": True,
        }
    )

    def watch(at, delta):
        positions.setdefault(at.chain, []).append(delta.clone())

    with pytest.warns(DivergenceWarning, match=r"of 8 chains diverged and are left out \(chain"):
        trace = sampling.run(**made.fit, watch=watch)
    fates = trace["diverged_at"].values
    found, free = losses(trace), losses(walk(cliff(math.inf), engine))
    assert 2 <= (fates >= 0).sum() <= 6
    for chain, fate in enumerate(fates):
        stop = 40 if fate < 0 else fate
        np.testing.assert_array_equal(found[chain, :stop], free[chain, :stop])
        assert np.isnan(found[chain, stop:]).all()
        for metric in trace["metrics"].data_vars.values():
            assert np.isfinite(metric.values[chain, :stop]).all()
            assert np.isnan(metric.values[chain, stop:]).all()
        # The weights were beyond the edge at that step, and at no step before.
        weights = torch.stack(positions[chain])
        beyond = (weights >= 0.5).any(1).nonzero().flatten().tolist()
        assert beyond == ([] if fate < 0 else [fate] if trouble is spoilt else [])
        assert weights.isfinite().all()


@ENGINES
def test_a_chain_whose_loss_is_not_finite_takes_no_step(engine):
    """Asked again, the model is where it was: the weights are those before the step."""
    seen = {}

    def watch(at, delta):
        seen.setdefault(at.chain, []).append(delta.clone())

    free, cut = {}, {}
    for edge, kept in ((math.inf, free), (0.5, cut)):
        made = Case(Point(torch.zeros(3)), DATA, None, cliff(edge))
        settings = {"engine": engine, "lr": 0.02, "localization": 1.0, "num_chains": 8}
        sampling = Sampling(**SHORT | settings | {"num_draws": 40, "init_loss": 0.0})
        seen.clear()
        if edge == math.inf:
            sampling.run(**made.fit, watch=watch)
        else:
            with pytest.warns(DivergenceWarning):
                trace = sampling.run(**made.fit, watch=watch)
        kept.update({chain: torch.stack(deltas) for chain, deltas in seen.items()})
    for chain, fate in enumerate(trace["diverged_at"].values):
        stop = 40 if fate < 0 else fate
        assert len(cut[chain]) == stop
        assert torch.equal(cut[chain], free[chain][:stop])
        if fate >= 0:
            assert (free[chain][fate] >= 0.5).any()


@ENGINES
def test_all_chains_diverged_is_an_error_that_holds_the_trace(engine):
    with pytest.raises(DivergenceError, match=r"all 8 chains diverged, the first at step \d+") as e:
        walk(cliff(0.01), engine)
    trace = e.value.trace
    fates = trace["diverged_at"].values
    assert (fates >= 0).all()
    assert f"the first at step {fates.min()}:" in str(e.value)
    assert (np.isfinite(losses(trace)).sum(1) == fates).all()


@ENGINES
def test_what_the_last_step_does_is_found(engine):
    """No loss is computed after it that could tell."""
    with pytest.warns(DivergenceWarning, match="of 8 chains diverged"):
        trace = walk(spoilt(0.5), engine)
    fates = trace["diverged_at"].values
    last = int(fates.max())
    with pytest.warns(DivergenceWarning, match="of 8 chains diverged"):
        cut = walk(spoilt(0.5), engine, num_draws=last + 1)
    assert cut["diverged_at"].values.tolist() == fates.tolist()


@ENGINES
def test_lost_chains_are_named_by_all_of_their_coordinates(engine):
    made = Case([Point(torch.zeros(3)), Point(torch.full((3,), 0.2))], DATA, None, cliff(0.6))
    with pytest.warns(DivergenceWarning) as caught:
        trace = run(
            made,
            engine=engine,
            batch_size=4,
            lr=[1e-4, 0.05],
            init_loss=0.0,
            num_draws=10,
            localization=1.0,
        )
    fates = trace["diverged_at"]
    (text,) = [str(w.message) for w in caught]
    for at in itertools.product(range(2), range(2), range(3)):
        fate = int(fates.values[at])
        name = f"chain {at[2]} setting {at[1]} checkpoint {at[0]} at step {fate}"
        assert (name in text) == (fate >= 0)
    assert (fates.values[:, 1] >= 0).any()
    assert (fates.values[:, 0] < 0).all()


@ENGINES
def test_accumulated_gradients_are_those_of_their_mean_loss(engine):
    """Three minibatches of a step are one of three times the size, where samples weigh the same."""
    made = case("mlp")
    seen = []

    def evaluate(model, batch):
        if torch.is_grad_enabled():
            seen.append(batch[0].shape[-2])
        return made.loss_fn(model(batch[0]), batch[1])

    parts = run(
        made._replace(loss_fn=None, evaluate=evaluate), engine=engine, batch_size=4, accumulation=6
    )
    whole = run(made, engine=engine, batch_size=24)
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=3e-6)
    assert set(seen) == {4}


def test_the_noise_of_a_step_is_that_of_its_number():
    """A chain that is cut into burn-in and draws otherwise is the same chain."""
    plain = losses(run(case("mlp"), num_draws=12))
    other = losses(run(case("mlp"), num_draws=3, num_burnin_steps=6, num_steps_bw_draws=2))
    np.testing.assert_array_equal(plain, other)
