"""Chains in the model itself: what they do to it, and that nothing of the caller's changes."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from engine import SHORT, assert_same, losses, run
from fastllc import DivergenceError, sample, summarize
from fastllc.peers import TorchSGLD
from zoo import CASES, Case, N, case, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
DATA = normal(N, 3), tokens(N, high=2)


def noisy(dropout=0.3):
    """Batch normalisation and dropout in training mode, with gradients and a negative zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 2)
        )
        cross_entropy(model(DATA[0]), DATA[1]).backward()
    with torch.no_grad():
        model[0].bias[0] = -0.0
    return model


def snapshot(model, data=DATA):
    """Everything that must come back, down to bits and addresses."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return (
        {n: (id(t), t.data_ptr(), t.tolist()) for n, t in model.named_buffers()},
        {
            n: (id(t), t.data_ptr(), t.detach().view(torch.int32).tolist())
            for n, t in tensors
            if t.dtype == torch.float32
        },
        {n: (id(p.grad), p.requires_grad) for n, p in model.named_parameters()},
        [p.grad.tolist() for p in model.parameters() if p.grad is not None],
        [m.training for m in model.modules()],
        [(t.data_ptr(), t._version, t.tolist()) for t in data],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    )


class Trouble:
    """A loss that raises, or is not finite, from some call on."""

    def __init__(self, kind, after):
        self.kind, self.after, self.calls = kind, after, 0

    def __call__(self, outputs, targets):
        self.calls += 1
        loss = cross_entropy(outputs, targets)
        if self.kind is None or self.calls <= self.after:
            return loss
        if self.kind == "diverge":
            return loss * torch.nan
        raise self.kind("stop")


@ENGINES
@pytest.mark.parametrize("kind", [None, "diverge", ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8, 12, 20])
def test_nothing_of_the_caller_s_changes(engine, kind, after):
    """Whenever it fails: in the check, the trial of two chains, the initial losses, the chains."""
    model = noisy()
    if engine == "vectorised":
        model.eval()
    before = snapshot(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(Case(model, DATA, Trouble(kind, after)), engine=engine, num_draws=12)
        except (ValueError, DivergenceError, ZeroDivisionError, KeyboardInterrupt):
            assert kind is not None
    assert snapshot(model) == before


@pytest.mark.parametrize("name", CASES)
@ENGINES
def test_models_of_every_kind_come_back(name, engine):
    made = case(name)
    data = (made.data.dataset.x, made.data.dataset.y) if name == "rows" else made.data
    made.model.train(name not in ("conv", "attention"))
    before = [
        {n: (t.data_ptr(), t.tolist()) for n, t in made.model.state_dict().items()},
        [(t.data_ptr(), t.tolist()) for t in data],
        [m.training for m in made.model.modules()],
    ]
    run(made, engine=engine, bounding_box_size=0.1, save_metrics=True)
    assert before == [
        {n: (t.data_ptr(), t.tolist()) for n, t in made.model.state_dict().items()},
        [(t.data_ptr(), t.tolist()) for t in data],
        [m.training for m in made.model.modules()],
    ]


def test_checkpoints_of_the_caller_are_not_written():
    models = [noisy(), noisy()]
    with torch.no_grad():
        models[1][0].weight.mul_(1.5)
    before = [snapshot(model) for model in models]
    run(Case(models, DATA, cross_entropy), engine="inplace")
    assert [snapshot(model) for model in models] == before


def test_chains_start_from_the_same_buffers_and_their_own_dice():
    """A chain of many is the chain alone, though batch norm remembers and dropout rolls dice."""
    many = run(Case(noisy(), DATA, cross_entropy), engine="inplace")
    for count in (1, 2):
        few = run(Case(noisy(), DATA, cross_entropy), engine="inplace", num_chains=count)
        np.testing.assert_array_equal(losses(few), losses(many)[:count])
    full = losses(run(Case(noisy(), DATA, cross_entropy), engine="inplace", batch_size=N))
    assert len(set(full[:, 0].tolist())) == 3  # the same weights and data: other dropout


def test_a_run_does_not_depend_on_the_caller_s_random_state():
    first = run(Case(noisy(), DATA, cross_entropy), engine="inplace")
    torch.rand(3)
    assert_same(run(Case(noisy(), DATA, cross_entropy), engine="inplace"), first)


def test_statistics_move_while_a_chain_walks():
    seen = []

    def evaluate(model, batch):
        seen.append(int(model[1].num_batches_tracked))
        return cross_entropy(model(batch[0]), batch[1])

    model = noisy()
    run(Case(model, DATA, None, evaluate), engine="inplace", num_draws=3, batch_size=N)
    # The check, the initial loss, and three chains; one pass was the caller's.
    assert seen == [1, 1, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    assert model[1].num_batches_tracked == 1


@pytest.mark.parametrize("sampler", [TorchSGLD, None], ids=["own", "fastllc"])
def test_in_place_there_is_one_model(sampler):
    """Chains walk in the memory of one copy, and their anchor is the caller's own."""
    model, places = noisy(dropout=0.0).eval(), set()
    keep = {} if sampler is None else {"sampler": sampler}

    def evaluate(m, batch):
        if torch.is_grad_enabled():
            places.add(m[0].weight.data_ptr())
        return cross_entropy(m(batch[0]), batch[1])

    run(Case(model, DATA, None, evaluate), engine="inplace", **keep)
    assert len(places) == 1
    assert model[0].weight.data_ptr() not in places


def test_the_gradient_reaches_the_sampled_weights_alone():
    """Frozen weights and inputs that require a gradient get none."""
    x = DATA[0].clone().requires_grad_()
    model = noisy().eval()
    model[0].requires_grad_(False)
    model[0].weight.grad = None
    run(Case(model, (x, DATA[1]), cross_entropy), engine="inplace")
    assert x.grad is None
    assert model[0].weight.grad is None


@ENGINES
@pytest.mark.parametrize("calls", [22, 30, 41])
def test_an_interrupted_run_is_a_valid_result(engine, calls):
    model = noisy(dropout=0.0).eval()
    settings = {"num_draws": 60, "init_loss": "full"}
    with pytest.warns(UserWarning, match="the run was interrupted: the trace holds what there was"):
        trace = run(Case(model, DATA, Trouble(KeyboardInterrupt, calls)), engine=engine, **settings)
    whole = run(Case(model, DATA, cross_entropy), engine=engine, **settings)
    assert trace.attrs["interrupted"] == 1
    assert whole.attrs["interrupted"] == 0
    done = np.isfinite(losses(trace))
    assert 0 < done.sum() < done.size
    np.testing.assert_array_equal(losses(trace)[done], losses(whole)[done])
    steps = done.sum(-1)
    assert all(done[i, : steps[i]].all() for i in range(3))  # no holes
    assert (steps == steps[0]).all() if engine == "vectorised" else sorted(steps)[::-1] == [*steps]
    assert str(summarize(trace))


def test_an_interrupt_before_the_first_draw_is_an_interrupt():
    model = noisy().eval()
    with pytest.raises(KeyboardInterrupt):
        run(
            Case(model, DATA, Trouble(KeyboardInterrupt, 12)),
            engine="vectorised",
            num_burnin_steps=50,
        )


@ENGINES
def test_a_loader_s_own_generator_is_left_alone(engine):
    own = torch.Generator().manual_seed(0)
    loader = DataLoader(TensorDataset(*DATA), 6, shuffle=True, generator=own)
    before = own.get_state()
    first = run(Case(noisy().eval(), loader, cross_entropy), engine=engine)
    assert torch.equal(own.get_state(), before)
    torch.rand(3, generator=own)
    assert_same(run(Case(noisy().eval(), loader, cross_entropy), engine=engine), first)


@ENGINES
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_s_gradient_mode_does_not_matter(mode, engine):
    model = noisy().eval()
    settings = SHORT | {"engine": engine, "batch_size": 6, "save_acceptance": True}
    with mode():
        inside = sample(model, DATA, cross_entropy, **settings)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert_same(sample(model, DATA, cross_entropy, **settings), inside)
