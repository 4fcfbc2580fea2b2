"""`sample` of devinterp 1: who is called with what, what comes back, and which law it has."""

import copy
import inspect
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

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
)
from fastllc import DivergenceWarning
from fastllc.compat.devinterp1.backends.default.slt.sampler import sample_single_chain
from fastllc.compat.devinterp1.optim import SGLD
from fastllc.compat.devinterp1.slt.llc import LLCEstimator, OnlineLLCEstimator
from fastllc.compat.devinterp1.slt.loss import OnlineLossStatistics
from fastllc.compat.devinterp1.slt.mala import MalaAcceptanceRate
from fastllc.compat.devinterp1.slt.norms import WeightNorm
from fastllc.compat.devinterp1.slt.sampler import (
    estimate_learning_coeff,
    estimate_learning_coeff_with_summary,
    sample,
)
from fastllc.compat.devinterp1.slt.wbic import OnlineWBICEstimator
from fastllc.compat.devinterp1.test_utils import DummyNaNModel, Polynomial
from fastllc.compat.devinterp1.utils import (
    default_nbeta,
    evaluate_ce,
    get_init_loss_full_batch,
)

pytestmark = [*QUIET, *TALKATIVE]


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
