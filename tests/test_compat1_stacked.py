"""Chains of devinterp 1 scripts, all at once: when, and the same as one by one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from compat1 import (
    CHAINS,
    DRAWS,
    KWARGS,
    QUIET,
    SHORT,
    TALKATIVE,
    Plain,
    Seen,
    classifier,
    loader_of,
    standard,
)
from fastllc.compat.devinterp1.backends.default.slt import sampler as loops
from fastllc.compat.devinterp1.optim import SGLD, SGMCMC, SGNHT
from fastllc.compat.devinterp1.optim.prior import GaussianPrior, Prior
from fastllc.compat.devinterp1.slt.callback import SamplerCallback, any_order, of_losses
from fastllc.compat.devinterp1.slt.llc import LLCEstimator
from fastllc.compat.devinterp1.slt.mala import MalaAcceptanceRate
from fastllc.compat.devinterp1.slt.norms import GradientNorm, WeightNorm
from fastllc.compat.devinterp1.slt.sampler import (
    sample,
)
from fastllc.compat.devinterp1.test_utils import Polynomial
from fastllc.compat.devinterp1.utils import (
    evaluate_ce,
    evaluate_mse,
)

pytestmark = [*QUIET, *TALKATIVE]


@pytest.fixture
def engines(monkeypatch):
    """Which way runs went: stacked or one by one."""
    went = []
    original = loops.sample_stacked

    def spy(*args, **kwargs):
        lost = original(*args, **kwargs)
        went.append("one by one" if lost is None else "stacked")
        return lost

    monkeypatch.setattr(loops, "sample_stacked", spy)
    return went


@pytest.mark.parametrize("method", [SGLD, SGMCMC.sgld])
def test_stacked_chains_are_shown_as_they_would_be_one_by_one(method, engines, monkeypatch):
    """With a full batch and no noise, all chains walk the same way, stacked or not."""
    model, data = classifier()
    kwargs = {**KWARGS, "noise_level": 0.0}
    found = []
    for stacked in (True, False):
        if not stacked:
            monkeypatch.setattr(loops, "sample_stacked", lambda *args, **kwargs: None)
        with pytest.warns(UserWarning, match="noise_level"):
            found.append(
                sample(
                    model,
                    loader_of(data, 60),
                    standard(kwargs),
                    evaluate_ce,
                    method,
                    optimizer_kwargs=kwargs,
                    init_loss=1.0,
                    **SHORT,
                )
            )
    assert engines == ["stacked"]
    stacked, single = found
    assert stacked.keys() == single.keys()
    for name, value in single.items():
        if name == "gradient/distributions":
            for counts in (value["2.bias"], stacked[name]["2.bias"]):
                assert (counts.sum(dim=-1) == 3).all()
        # All chains are one here: what is relative to their spread is rounding.
        elif not any(word in name for word in ("std", "z_scores", "thresholded")):
            np.testing.assert_allclose(stacked[name], value, rtol=2e-3, atol=1e-6, err_msg=name)


def test_drifts_by_a_running_mean_are_told_in_turn(engines):
    """The mean square is the sampler's own, which views of stacked chains have not."""
    model, data = classifier()
    for callbacks in ([MalaAcceptanceRate(CHAINS, DRAWS, 1e-4, nbeta=10.0)], []):
        found = sample(
            model,
            loader_of(data),
            [*callbacks, GradientNorm(CHAINS, DRAWS)],
            evaluate_ce,
            SGMCMC.rmsprop_sgld,
            {"lr": 1e-4, "nbeta": 10.0},
            **SHORT,
        )
        if callbacks:
            assert 0 < found["mala_accept/mean"] < 1
    assert engines == ["one by one", "stacked"]


@pytest.mark.parametrize("method", [SGLD, SGMCMC.sgld])
def test_stacks_tell_no_noise(method, engines):
    model, data = classifier()
    kwargs = {**KWARGS, "metrics": ["noise", "noise_norm", "grad_norm"]}
    norms = WeightNorm(CHAINS, DRAWS)
    sample(model, loader_of(data), [norms], evaluate_ce, method, kwargs, **SHORT)
    assert engines == ["stacked"]
    assert (norms.weight_norms > 0).all()


def test_views_of_stacked_chains_are_the_chains(engines):
    """The noise that a view tells is that of its step: with it, weights follow from the last."""

    class Views(SamplerCallback):
        def __init__(self):
            self.draws = {}

        @any_order
        def __call__(self, chain, draw, model, optimizer, **known):
            state = [p.detach().clone() for p in model.parameters()]
            drift = [dw.clone() for dw in optimizer.dws]
            noise = [z.clone() for z in optimizer.noise[0]]
            self.draws[chain, draw] = state, drift, noise

    model, data = classifier()
    views = Views()
    kwargs = {**KWARGS, "metrics": ["noise", "dws"]}
    sample(model, loader_of(data), [views], evaluate_ce, optimizer_kwargs=kwargs, **SHORT)
    assert engines == ["stacked"]
    assert views.draws.keys() == {(c, d) for c in range(CHAINS) for d in range(DRAWS)}
    for chain in range(CHAINS):
        before = [p.detach() for p in model.parameters()]
        for draw in range(DRAWS):
            after, drifts, noises = views.draws[chain, draw]
            for w, w_new, dw, z in zip(before, after, drifts, noises, strict=True):
                torch.testing.assert_close(w_new, w - 5e-4 * dw + 1e-3**0.5 * z)
            before = after


@pytest.mark.parametrize("method", [SGLD, SGNHT, SGMCMC.sgld, SGMCMC.sgnht, SGMCMC.rmsprop_sgld])
@pytest.mark.parametrize("user", [False, True])
def test_a_seed_repeats_a_run(method, user, engines):
    model, data = classifier()
    kwargs = {"lr": 1e-4, "nbeta": 10.0}
    traces = []
    for seed in (1, 1, 2, [4, 5, 6]):
        llc = LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0)
        callbacks = [llc, Seen()] if user else [llc]
        sample(
            model,
            loader_of(data),
            callbacks,
            evaluate_ce,
            method,
            kwargs,
            **{**SHORT, "seed": seed},
        )
        traces.append(llc.losses.numpy())
    assert engines == (["one by one"] if user else ["stacked"]) * 4
    np.testing.assert_array_equal(traces[0], traces[1])
    for other in traces[2:]:
        assert (traces[0] != other).any()
    assert len({tuple(row) for row in traces[0]}) == CHAINS


def test_runs_that_must_not_be_stacked(engines):
    """Dropout, a model that counts its calls, one chain, and an estimator of another field."""
    model, data = classifier()
    dropped = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3))
    field = LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0, eval_field="cumulative_loss")
    for each, callbacks, chains in (
        (dropped, [LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0)], CHAINS),
        (model, [LLCEstimator(1, DRAWS, 0.0, nbeta=10.0)], 1),
        (model, [field], CHAINS),
    ):
        settings = {**SHORT, "num_chains": chains}
        sample(each, loader_of(data), callbacks, evaluate_ce, optimizer_kwargs=KWARGS, **settings)
    assert engines == ["one by one"] * 3
    assert (field.losses > 0).all()


@pytest.mark.parametrize("shuffle", [False, True])
def test_loaders_of_other_datasets_are_read_as_they_are(shuffle, engines):
    class Pairs(torch.utils.data.Dataset):
        def __init__(self, data):
            self.data = data

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            x, y = self.data[index]
            return {"x": x, "y": int(y)}

    model, data = classifier()
    found = []
    for each, evaluate in (
        (data, evaluate_ce),
        (
            Pairs(data),
            lambda model, batch: {"loss": F.cross_entropy(model(batch["x"]), batch["y"])},
        ),
    ):
        llc = LLCEstimator(CHAINS, DRAWS, 1.0, nbeta=10.0)
        loader = loader_of(each, shuffle=shuffle)
        kwargs = {"init_loss": 1.0, **SHORT}
        sample(model, loader, [llc], evaluate, optimizer_kwargs=KWARGS, **kwargs)
        found.append(llc.losses.numpy())
    np.testing.assert_allclose(*found, rtol=1e-6)
    if not shuffle:
        first = F.cross_entropy(model(data.tensors[0][:20]), data.tensors[1][:20])
        np.testing.assert_allclose(found[0][:, 0], first.item(), rtol=1e-6)
    assert engines == ["stacked"] * 2


def test_random_transforms_are_drawn_afresh(engines):
    class Noisy(torch.utils.data.Dataset):
        def __init__(self, data):
            self.data, self.read = data, 0

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            self.read += 1
            x, y = self.data[index]
            return x + torch.randn(4), y

    model, data = classifier()
    noisy = Noisy(data)
    llc = LLCEstimator(CHAINS, DRAWS, 1.0, nbeta=10.0)
    sample(
        model,
        loader_of(noisy),
        [llc],
        evaluate_ce,
        optimizer_kwargs=KWARGS,
        init_loss=1.0,
        **SHORT,
    )
    assert engines == ["stacked"]
    assert noisy.read > CHAINS * DRAWS * 20


def test_only_what_is_optimized_over_moves(engines):
    """Stacked and one by one."""
    for user in (False, True):
        model = Polynomial([1, 1, 1])
        with torch.no_grad():
            model.weights += 1.0
        norms = []

        class Moved(SamplerCallback):
            @any_order
            def __call__(self, model, **known):
                norms.append(model.weights.detach() - 1.0)  # noqa: B023

        sample(
            model,
            loader_of(TensorDataset(torch.randn(20), torch.randn(20))),
            [Moved(), *([Seen()] if user else [])],
            evaluate_mse,
            optimizer_kwargs=KWARGS,
            optimize_over_per_model_param={"weights": torch.tensor([1, 1, 0])},
            **SHORT,
        )
        moved = torch.stack(norms)
        assert (moved[:, :2] != 0).all()
        assert (moved[:, 2] == 0).all()
    assert engines == ["stacked", "one by one"]


@pytest.mark.slow
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("method", [SGLD, SGMCMC.sgld])
def test_the_coefficient_of_a_quadratic(method, user, engines):
    """L = w^2 over 20 weights: nbeta L has mean d/2, divided by 1 - lr nbeta / 2 of SGLD's step."""
    d, nbeta, lr, chains, draws = 20, 50.0, 4e-3, 8, 600

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.Parameter(torch.zeros(d))

    llc = LLCEstimator(chains, draws, 0.0, nbeta=nbeta)
    results = sample(
        Quadratic(),
        loader_of(TensorDataset(torch.zeros(40, 1))),
        [llc, Plain(0)] if user else [llc],
        lambda model, batch: model.weights.square().sum() + 0 * batch[0].sum(),
        method,
        {"lr": lr, "nbeta": nbeta},
        num_chains=chains,
        num_draws=draws,
        num_burnin_steps=600,
        init_loss=0.0,
        verbose=False,
        seed=3,
    )
    # Curvature 2 nbeta: the variance of SGLD is 1 / (h (1 - lr h / 4)).
    wanted = d / 2 / (1 - lr * 2 * nbeta / 4)
    assert abs(results["llc/mean"] - wanted) < 4 * results["llc/std"] / chains**0.5
    assert results["llc/std"] < 0.1 * wanted


def test_priors_of_ones_own_run_one_by_one(engines):
    """Their gradient is that of a Gaussian around zero, whose draws they repeat."""

    class Mine(Prior):
        def initialize(self, params):
            return {}

        def grad(self, param, state):
            return 50.0 * param

    model, data = classifier()
    traces = []
    for prior in (Mine(), GaussianPrior(50.0, center=None), None):
        results = sample(
            model,
            loader_of(data),
            [LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0), Plain(0)],
            evaluate_ce,
            SGMCMC,
            {"lr": 1e-3, "nbeta": 10.0, "prior": prior},
            **SHORT,
        )
        traces.append(results["loss/trace"])
    np.testing.assert_allclose(traces[0], traces[1], rtol=1e-5)
    assert (abs(traces[0] - traces[2])[:, 1:] > 1e-4).all()
    llc = LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0)
    kwargs = {"lr": 1e-3, "nbeta": 10.0, "prior": Mine()}
    sample(model, loader_of(data), [llc], evaluate_ce, SGMCMC, kwargs, **SHORT)
    np.testing.assert_array_equal(llc.losses, traces[0])
    assert engines == ["one by one"] * 4


def test_callbacks_of_losses_are_called_chain_after_chain():
    class Order(SamplerCallback):
        def __init__(self):
            self.seen = []

        @of_losses
        def __call__(self, chain, draw, loss, **known):
            self.seen.append((chain, draw))

    model, data = classifier()
    order = Order()
    order.get_results = dict
    sample(model, loader_of(data), [order], evaluate_ce, optimizer_kwargs=KWARGS, **SHORT)
    assert order.seen == [(c, d) for c in range(CHAINS) for d in range(DRAWS)]
