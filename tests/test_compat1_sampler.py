"""`sample` of devinterp 1: who is called with what, what comes back, and which law it has."""

import copy
import inspect
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fastllc import DivergenceWarning
from fastllc.compat.devinterp1.backends.default.slt import sampler as loops
from fastllc.compat.devinterp1.backends.default.slt.sampler import sample_single_chain
from fastllc.compat.devinterp1.optim import SGLD, SGMCMC, SGNHT
from fastllc.compat.devinterp1.slt.callback import SamplerCallback, any_order, of_losses
from fastllc.compat.devinterp1.slt.gradient import GradientDistribution
from fastllc.compat.devinterp1.slt.llc import LLCEstimator, OnlineLLCEstimator
from fastllc.compat.devinterp1.slt.loss import OnlineLossStatistics
from fastllc.compat.devinterp1.slt.mala import MalaAcceptanceRate
from fastllc.compat.devinterp1.slt.norms import GradientNorm, NoiseNorm, WeightNorm
from fastllc.compat.devinterp1.slt.sampler import (
    estimate_learning_coeff,
    estimate_learning_coeff_with_summary,
    sample,
)
from fastllc.compat.devinterp1.slt.trace import OnlineTraceStatistics
from fastllc.compat.devinterp1.slt.wbic import OnlineWBICEstimator
from fastllc.compat.devinterp1.test_utils import DummyNaNModel, Polynomial
from fastllc.compat.devinterp1.utils import (
    default_nbeta,
    evaluate_ce,
    evaluate_mse,
    get_init_loss_full_batch,
)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:SGLD has been deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:SGNHT has been deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are"),
    pytest.mark.filterwarnings("ignore:If you're setting"),
    pytest.mark.filterwarnings("ignore:Using passed in"),
]

CHAINS, DRAWS = 3, 6
SHORT = {"num_chains": CHAINS, "num_draws": DRAWS, "verbose": False, "seed": 1}
KWARGS = {"lr": 1e-3, "nbeta": 10.0, "localization": 5.0}


def classifier(n=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    y = torch.randint(3, (n,), generator=generator)
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), TensorDataset(x, y)


def loader_of(data, size=20, **settings):
    return DataLoader(data, size, **{"shuffle": True, **settings})


class Seen(SamplerCallback):
    """Takes down everything it is called with; it looks at models in place."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __call__(self, **known):
        model, optimizer = known["model"], known["optimizer"]
        self.calls.append(
            {
                **known,
                "weights": [p.detach().clone() for p in model.parameters()],
                "grads": [p.grad.clone() for p in model.parameters()],
                "same": all(
                    p is q
                    for p, q in zip(
                        model.parameters(), optimizer.param_groups[0]["params"], strict=True
                    )
                ),
            }
        )

    def get_results(self):
        return {"calls": len(self.calls)}


def test_user_written_callbacks_see_chain_after_chain_in_place():
    model, data = classifier()
    seen = Seen()
    start = copy.deepcopy(model.state_dict())
    results = sample(model, loader_of(data), [seen], evaluate_ce, optimizer_kwargs=KWARGS, **SHORT)
    assert results == {"calls": CHAINS * DRAWS}
    order = [(call["chain"], call["draw"]) for call in seen.calls]
    assert order == [(c, d) for c in range(CHAINS) for d in range(DRAWS)]
    for call in seen.calls:
        assert call["same"]
        assert call["model"].training
        assert isinstance(call["optimizer"], SGLD)
        x, _ = call["data"]
        assert call["results"][0]["output"].shape == (len(x), 3)
        assert torch.isfinite(call["loss"])
    known = inspect.signature(sample_single_chain).parameters.keys() - {"chain"}
    for name in (*known, "i", "num_steps", "cumulative_loss", "pbar", "init_loss"):
        assert all(name in call for call in seen.calls), name
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name])


def test_the_loss_of_a_draw_is_before_its_step_and_the_model_after():
    model, data = classifier()
    seen = Seen()
    loader = loader_of(data, 60)
    kwargs = {**KWARGS, "noise_level": 0.0}
    with pytest.warns(UserWarning, match="noise_level"):
        sample(model, loader, [seen], evaluate_ce, optimizer_kwargs=kwargs, **SHORT)
    x, y = data.tensors
    first, second = seen.calls[:2]
    torch.testing.assert_close(first["loss"], F.cross_entropy(model.train()(x), y).detach())
    moved = [w - 5e-4 * 10.0 * g for w, g in zip(model.parameters(), first["grads"], strict=True)]
    for found, wanted in zip(first["weights"], moved, strict=True):
        torch.testing.assert_close(found, wanted.detach())
    names = [name for name, _ in model.named_parameters()]
    there = dict(zip(names, first["weights"], strict=True))
    loss = F.cross_entropy(torch.func.functional_call(model, there, x), y)
    torch.testing.assert_close(second["loss"], loss.detach())


def test_burnin_steps_between_draws_and_accumulated_minibatches():
    model, data = classifier()
    seen = Seen()
    sample(
        model,
        loader_of(data, 10),
        [seen],
        evaluate_ce,
        optimizer_kwargs=KWARGS,
        num_burnin_steps=2,
        num_steps_bw_draws=3,
        grad_accum_steps=2,
        **SHORT,
    )
    assert [call["i"] for call in seen.calls[:DRAWS]] == [(2 + 3 * d) * 2 - 1 for d in range(1, 7)]
    assert seen.calls[0]["num_steps"] == (2 + 3 * DRAWS) * 2
    assert all(call["optimizer"].param_groups[0]["step"] in range(5, 21, 3) for call in seen.calls)


def standard(kwargs=KWARGS, draws=DRAWS, chains=CHAINS):
    """All callbacks that there are, the derived ones after their bases."""
    llc = OnlineLLCEstimator(chains, draws, 0.0, nbeta=kwargs["nbeta"])
    weights = WeightNorm(chains, draws)
    return [
        LLCEstimator(chains, draws, 0.0, nbeta=kwargs["nbeta"]),
        llc,
        OnlineWBICEstimator(chains, draws, n=60),
        OnlineLossStatistics(llc),
        weights,
        OnlineTraceStatistics(weights, "weight_norms"),
        GradientNorm(chains, draws),
        NoiseNorm(chains, draws),
        GradientDistribution(chains, draws, param_names=["2.bias"]),
        MalaAcceptanceRate(chains, draws, kwargs["lr"], nbeta=kwargs["nbeta"]),
    ]


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


def cliff(edge):
    def evaluate(model, batch):
        loss = model.weights.square().sum()
        return loss + 0 * batch[0].sum() + torch.where(loss < edge, 0.0, torch.nan)

    return evaluate


@pytest.mark.parametrize("user", [False, True])
def test_a_chain_that_diverges_is_left_out(user):
    """Each chain is a random walk that falls off a cliff some time: of these, not all do."""
    loader = loader_of(TensorDataset(torch.zeros(20, 1)))
    llc = LLCEstimator(8, 40, 0.0, nbeta=1e-6)
    online = OnlineLLCEstimator(8, 40, 0.0, nbeta=1e-6)
    wbic = OnlineWBICEstimator(8, 40, n=20)
    norms = WeightNorm(8, 40)
    callbacks = [llc, online, wbic, norms, *([Seen()] if user else [])]
    with pytest.warns(DivergenceWarning, match="chains diverged and are left out") as caught:
        results = sample(
            Polynomial([2, 2]),
            loader,
            callbacks,
            cliff(1.5),
            optimizer_kwargs={"lr": 0.02, "nbeta": 1e-6},
            init_loss=0.0,
            **{**SHORT, "num_chains": 8, "num_draws": 40},
        )
    lost = np.isnan(llc.losses.numpy()).any(axis=1)
    assert 0 < lost.sum() < 8
    message = str(next(w.message for w in caught if w.category is DivergenceWarning))
    for chain in np.flatnonzero(lost):
        first = int(np.isnan(llc.losses[chain].numpy()).argmax())
        assert f"chain {chain} at draw {first}" in message
        assert norms.weight_norms[chain, first:].isnan().all()
        assert not norms.weight_norms[chain, :first].isnan().any()
    means = 1e-6 * llc.losses.numpy()[~lost].mean(axis=1)
    assert results["llc/mean"] == pytest.approx(means.mean(), rel=1e-5)
    np.testing.assert_allclose(
        results["llc/means"], 1e-6 * llc.losses.numpy()[~lost].mean(axis=0), rtol=1e-5
    )
    assert np.isfinite(results["wbic/means"]).all()


def test_all_chains_lost_is_an_error_that_names_the_first():
    loader = DataLoader(TensorDataset(torch.randn(100, 2)), batch_size=10)
    with pytest.raises(RuntimeError, match="NaN detected in loss at chain 0, draw 97"):
        estimate_learning_coeff(
            DummyNaNModel(),
            loader,
            evaluate=lambda model, data: model(data[0]).mean(),
            num_draws=100,
            num_chains=3,
            optimizer_kwargs={"nbeta": 10},
            verbose=False,
        )
    with pytest.raises(RuntimeError, match="NaN detected in loss at chain 0, draw"):
        sample(
            Polynomial([2, 2]),
            loader_of(TensorDataset(torch.zeros(20, 1))),
            [LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=1.0)],
            cliff(1.0),
            optimizer_kwargs={"lr": 100.0, "nbeta": 2.0},
            init_loss=0.0,
            **SHORT,
        )


def test_without_an_estimator_all_chains_lost_are_told():
    mala = MalaAcceptanceRate(1, DRAWS, 100.0, nbeta=2.0)
    with pytest.warns(DivergenceWarning, match="1 of 1 chains"):
        results = sample(
            Polynomial([2, 2]),
            loader_of(TensorDataset(torch.zeros(20, 1))),
            [mala],
            cliff(1.0),
            optimizer_kwargs={"lr": 100.0, "nbeta": 2.0},
            init_loss=0.0,
            **{**SHORT, "num_chains": 1},
        )
    assert np.isnan(results["mala_accept/mean"])


def test_nbeta_and_its_older_name():
    model, data = classifier()
    loader = loader_of(data)
    found = []
    for name in ("nbeta", "temperature"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            llc = LLCEstimator(CHAINS, DRAWS, 0.0, **{name: 10.0})
            kwargs = {"lr": 1e-3, name: 10.0}
            found.append(
                sample(model, loader, [llc], evaluate_ce, optimizer_kwargs=kwargs, **SHORT)
            )
    assert found[0]["llc/mean"] == found[1]["llc/mean"]
    for in_sampler, in_callback in (("nbeta", "temperature"), ("temperature", "nbeta")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            llc = LLCEstimator(CHAINS, DRAWS, 0.0, **{in_callback: 10.0})
            with pytest.raises(AssertionError):
                sample(
                    model,
                    loader,
                    [llc],
                    evaluate_ce,
                    optimizer_kwargs={in_sampler: 10.0},
                    **SHORT,
                )
    with pytest.raises(AssertionError, match="nbeta"):
        sample(model, loader, [], evaluate_ce, optimizer_kwargs={}, **SHORT)
    with pytest.raises(AssertionError, match="nbeta"):
        LLCEstimator(CHAINS, DRAWS, 0.0)
    with pytest.raises(ValueError, match="nbeta"):
        estimate_learning_coeff(
            model, loader, evaluate=evaluate_ce, optimizer_kwargs={"nbeta": 1, "temperature": 1}
        )


def test_callbacks_come_after_their_bases_and_seeds_are_as_many_as_chains():
    model, data = classifier()
    loader = loader_of(data)
    llc = OnlineLLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0)
    derived = OnlineLossStatistics(llc)
    for callbacks in ([derived, llc], [derived]):
        with pytest.raises(ValueError, match="allback"):
            sample(model, loader, callbacks, evaluate_ce, optimizer_kwargs=KWARGS, **SHORT)
    with pytest.raises(ValueError, match="seed"):
        sample(
            model,
            loader,
            [llc],
            evaluate_ce,
            optimizer_kwargs=KWARGS,
            **{**SHORT, "seed": [1]},
        )
    with pytest.raises(AssertionError, match="gpu_idxs"):
        sample(model, loader, [llc], evaluate_ce, optimizer_kwargs=KWARGS, gpu_idxs=[0], **SHORT)


@pytest.mark.parametrize("online", [False, True])
def test_the_summary_has_its_keys_and_defaults(online):
    model, data = classifier()
    loader = loader_of(data)
    model.eval()
    kwargs = {"lr": 1e-3}
    with pytest.warns(UserWarning, match="nbeta not set"):
        results = estimate_learning_coeff_with_summary(
            model,
            loader,
            [OnlineWBICEstimator(CHAINS, DRAWS, 60)],
            evaluate_ce,
            optimizer_kwargs=kwargs,
            online=online,
            **SHORT,
        )
    assert model.training
    assert kwargs == {"lr": 1e-3}
    wanted = {"wbic/means", "wbic/stds", "wbic/trace", "loss/trace"}
    if online:
        wanted |= {"init_loss", "llc/means", "llc/stds", "llc/trace"}
        init = get_init_loss_full_batch(loader, model, evaluate_ce, "cpu")
        assert results["init_loss"] == pytest.approx(init, rel=1e-5)  # three batches of three
        np.testing.assert_allclose(
            results["llc/trace"],
            default_nbeta(20) * (results["loss/trace"] - results["init_loss"]),
            atol=1e-5,
        )
    else:
        wanted |= {"llc/mean", "llc/std", *(f"llc-chain/{i}" for i in range(CHAINS))}
        chains = [results[f"llc-chain/{i}"] for i in range(CHAINS)]
        assert results["llc/mean"] == pytest.approx(np.mean(chains), rel=1e-5)
        assert results["llc/std"] == pytest.approx(np.std(chains, ddof=1), rel=1e-4)
    assert results.keys() == wanted
    assert results["loss/trace"].shape == (CHAINS, DRAWS)


def test_an_initial_loss_is_taken_as_given():
    model, data = classifier()
    llc = LLCEstimator(CHAINS, DRAWS, 7.0, nbeta=10.0)
    for given in (0.0, torch.tensor([2.0])):
        sample(
            model,
            loader_of(data),
            [llc],
            evaluate_ce,
            optimizer_kwargs=KWARGS,
            init_loss=given,
            **SHORT,
        )
        wanted = 10.0 * (llc.losses.mean(dim=1) - float(given))
        torch.testing.assert_close(llc.llc_per_chain, wanted)


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


def test_parameters_that_need_no_gradient_stay():
    model, data = classifier()
    model[0].requires_grad_(False)
    seen = WeightNorm(CHAINS, DRAWS)
    sample(model, loader_of(data), [seen], evaluate_ce, optimizer_kwargs=KWARGS, **SHORT)
    assert (seen.weight_norms > 0).all()


def double_loss(model, batch):
    return 2 * evaluate_ce(model, batch)[0]


@pytest.mark.slow
def test_processes_give_what_one_gives():
    pytest.importorskip("cloudpickle")
    model, data = classifier()
    traces = []
    for cores in (1, 2):
        llc = LLCEstimator(CHAINS, DRAWS, 0.0, nbeta=10.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample(
                model,
                loader_of(data),
                [llc, Plain(1)],
                lambda model, batch: double_loss(model, batch),
                optimizer_kwargs=KWARGS,
                cores=cores,
                **SHORT,
            )
        traces.append(llc.losses.numpy())
    np.testing.assert_array_equal(*traces)


class Plain(SamplerCallback):
    """Nothing but user-written: it keeps chains from being stacked, and can be pickled."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def __call__(self, **known):
        pass

    def get_results(self):
        return {}


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


def test_arguments_are_those_of_the_original():
    names = "model loader callbacks evaluate sampling_method optimizer_kwargs num_draws num_chains "
    names += "num_burnin_steps num_steps_bw_draws init_loss grad_accum_steps cores seed device "
    found = list(inspect.signature(sample).parameters)
    more = "verbose optimize_over_per_model_param gpu_idxs batch_size use_amp kwargs"
    assert found == (names + more).split()
    found = list(inspect.signature(estimate_learning_coeff_with_summary).parameters)
    more = "gpu_idxs verbose optimize_over_per_model_param online use_amp"
    assert found == (names + more).split()
    found = list(inspect.signature(estimate_learning_coeff).parameters)
    assert found == (names + "verbose optimize_over_per_model_param").split()
    for function in (sample, estimate_learning_coeff_with_summary, estimate_learning_coeff):
        defaults = {k: p.default for k, p in inspect.signature(function).parameters.items()}
        assert (defaults["num_draws"], defaults["num_chains"], defaults["cores"]) == (100, 10, 1)
        assert defaults["sampling_method"] is SGLD


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
