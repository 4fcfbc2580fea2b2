"""Callbacks of devinterp 1 by themselves, against what their formulas give."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fastllc.compat.devinterp1.slt.callback import SamplerCallback
from fastllc.compat.devinterp1.slt.cov import (
    BetweenLayerCovarianceAccumulator,
    CovarianceAccumulator,
    WithinHeadCovarianceAccumulator,
)
from fastllc.compat.devinterp1.slt.gradient import GradientDistribution
from fastllc.compat.devinterp1.slt.llc import LLCEstimator, OnlineLLCEstimator
from fastllc.compat.devinterp1.slt.loss import OnlineLossStatistics
from fastllc.compat.devinterp1.slt.mala import MalaAcceptanceRate, mala_acceptance_probability
from fastllc.compat.devinterp1.slt.norms import GradientNorm, NoiseNorm, WeightNorm
from fastllc.compat.devinterp1.slt.trace import OnlineTraceStatistics
from fastllc.compat.devinterp1.slt.wbic import OnlineWBICEstimator

LOSSES = torch.tensor([[1.0, 3.0, 2.0], [2.0, 0.5, 4.0]])


def feed(*callbacks, losses=LOSSES):
    for chain, row in enumerate(losses):
        for draw, loss in enumerate(row):
            for callback in callbacks:
                callback(chain=chain, draw=draw, loss=loss)


def test_coefficients_are_nbeta_times_the_rise_of_the_loss():
    llc = LLCEstimator(2, 3, init_loss=1.0, nbeta=10.0)
    online = OnlineLLCEstimator(2, 3, init_loss=1.0, nbeta=10.0)
    feed(llc, online)
    for callback in (llc, online):
        callback.finalize()
    chains = 10 * (LOSSES.numpy().mean(axis=1) - 1)
    found = llc.get_results()
    assert found["llc/mean"] == pytest.approx(chains.mean())
    assert found["llc/std"] == pytest.approx(chains.std(ddof=1))
    assert [found["llc-chain/0"], found["llc-chain/1"]] == pytest.approx(chains)
    np.testing.assert_array_equal(found["loss/trace"], LOSSES)
    trace = 10 * (LOSSES.numpy() - 1)
    found = online.get_results()
    np.testing.assert_allclose(found["llc/trace"], trace)
    np.testing.assert_allclose(found["llc/means"], trace.mean(axis=0))
    np.testing.assert_allclose(found["llc/stds"], trace.std(axis=0, ddof=1))
    assert found["init_loss"] == 1.0


@pytest.mark.parametrize("estimator", [LLCEstimator, OnlineLLCEstimator])
def test_estimators_take_all_arguments_by_place(estimator):
    llc = estimator(2, 3, 1.0, "cpu", "other", 10.0)
    assert (llc.device, llc.eval_field, llc.nbeta.item()) == ("cpu", "other", 10.0)


def test_one_chain_has_no_spread():
    llc = LLCEstimator(1, 2, init_loss=0.0, nbeta=1.0)
    feed(llc, losses=LOSSES[:1, :2])
    llc.finalize()
    assert np.isnan(llc.get_results()["llc/std"])


@pytest.mark.parametrize("estimator", [LLCEstimator, OnlineLLCEstimator])
def test_a_loss_that_is_no_number_is_an_error(estimator):
    llc = estimator(num_chains=3, num_draws=100, init_loss=1.0, nbeta=10)
    with pytest.raises(RuntimeError, match="NaN detected in loss at chain 2, draw 7"):
        llc.update(2, 7, torch.tensor(torch.nan))


def test_wbic_is_n_times_the_mean_so_far():
    wbic = OnlineWBICEstimator(2, 3, n=10)
    feed(wbic)
    wbic.finalize()
    trace = 10 * LOSSES.numpy().cumsum(axis=1) / np.arange(1, 4)
    found = wbic.get_results()
    np.testing.assert_allclose(found["wbic/trace"], trace)
    np.testing.assert_allclose(found["wbic/means"], trace.mean(axis=0))
    np.testing.assert_allclose(found["wbic/stds"], trace.std(axis=0, ddof=1), rtol=1e-6)


def test_statistics_of_a_trace():
    llc = OnlineLLCEstimator(2, 3, init_loss=1.0, nbeta=10.0)
    statistics = OnlineTraceStatistics(llc, "losses")
    feed(llc, statistics)
    losses = LOSSES.numpy()
    found = statistics.get_results()
    np.testing.assert_allclose(found["losses/draw/mean"], losses.mean(axis=0))
    np.testing.assert_allclose(found["losses/draw/std"], losses.std(axis=0, ddof=1), rtol=1e-6)
    for t in (2, 3):
        mean, std = losses[:, :t].mean(axis=1), losses[:, :t].std(axis=1, ddof=1)
        np.testing.assert_allclose(found["losses/chain/mean"][:, t - 1], mean)
        np.testing.assert_allclose(found["losses/chain/std"][:, t - 1], std, rtol=1e-6)
    last = statistics.sample_at_draw()
    np.testing.assert_array_equal(last["losses/chain/mean"], found["losses/chain/mean"][:, -1])
    for base, attribute in ((llc, "weights"), (SamplerCallback(), "device")):
        with pytest.raises(ValueError, match="must have attribute"):
            OnlineTraceStatistics(base, attribute)


def test_shares_of_losses_below_the_start():
    llc = OnlineLLCEstimator(2, 3, init_loss=1.75, nbeta=10.0)
    statistics = OnlineLossStatistics(llc)
    feed(llc, statistics)
    found = statistics.get_results()
    below = LOSSES.numpy() < 1.75
    np.testing.assert_allclose(
        found["loss/percent_neg_steps"], below.cumsum(axis=1) / np.arange(1, 4), rtol=1e-6
    )
    means = LOSSES.numpy().cumsum(axis=1) / np.arange(1, 4) < 1.75
    np.testing.assert_allclose(
        found["loss/percent_mean_neg_steps"], means.cumsum(axis=1) / np.arange(1, 4), rtol=1e-6
    )
    # While the first chain runs, the first loss of the second is 0, as in devinterp 1.
    noise = np.std([[1.0, 0.0], [1.0, 2.0]], axis=1, ddof=1)[:, None]
    np.testing.assert_allclose(found["loss/z_scores"], (LOSSES.numpy() - 1.75) / noise, rtol=1e-5)
    under = LOSSES.numpy() - 1.75 < -noise
    np.testing.assert_allclose(
        found["loss/percent_thresholded_neg_steps"],
        under.cumsum(axis=1) / np.arange(1, 4),
        rtol=1e-6,
    )
    assert statistics.loss_hist_by_draw(1).tolist() == [3.0, 0.5]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_over_tensors(p):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    for param in model.parameters():
        param.grad = torch.randn_like(param)

    told = SimpleNamespace(
        param_groups=[{"params": list(model.parameters()), "lr": 0.25}],
        noise={0: [torch.randn_like(param) for param in model.parameters()]},
    )
    tensors = {
        WeightNorm: [param.detach() for param in model.parameters()],
        GradientNorm: [0.125 * param.grad for param in model.parameters()],
        NoiseNorm: [0.5 * z for z in told.noise[0]],
    }
    for kind, made in tensors.items():
        norms = kind(2, 3, p_norm=p)
        norms(chain=1, draw=2, model=model, optimizer=told)
        (trace,) = norms.get_results().values()
        wanted = sum(torch.linalg.vector_norm(t, p) ** 2 for t in made) ** (1 / p)
        assert trace[1, 2] == pytest.approx(wanted.item(), rel=1e-5)
        assert trace.sum() == trace[1, 2]


@pytest.mark.parametrize("lists", [False, True])
def test_the_acceptance_of_a_proposal_on_a_quadratic(lists):
    """U = |w|^2 / 2, whose gradient is w: proposals are Gaussians around (1 - eps/2) w."""
    eps, w, there = 0.1, torch.tensor([0.0, 0.3]), torch.tensor([1.5, -0.5])

    def log_q(to, at):
        return -((to - (1 - eps / 2) * at).square().sum() / (2 * eps))

    u, u_there = (x.square().sum() / 2 for x in (w, there))
    wanted = torch.exp(u - u_there + log_q(w, there) - log_q(there, w)).clamp(max=1)
    points = [[x] if lists else x for x in (w, w, there, there)]
    found = mala_acceptance_probability(*points[:2], u, *points[2:], u_there, eps)
    assert float(found) == pytest.approx(wanted.item(), rel=1e-5)
    assert 0.1 < wanted < 1
    assert np.isnan(mala_acceptance_probability(w, w, u, w, w, torch.tensor(torch.nan), eps))


@pytest.mark.parametrize(
    ("w", "loss", "there", "loss_there", "eps", "wanted"),
    [
        ([0.0, 0.0], [0.0], [1.5, 5.5], [16.25], 0.1, 0.6661436),
        ([1.0, 1.0], 1.0, [1.5, 0.5], 1.25, 0.5, 0.9692332),
        ([0.0, 0.0], 0.0, [10.5, 5.5], 70.25, 0.1, 0.17268492),  # 0.17269124 but for rounding
        ([0.0, 0.0], 0.0, [10.5, 5.5], 70.25, 0.5, 0.00015359),
    ],
)
def test_the_acceptance_is_that_of_devinterp_with_its_rounding(
    w, loss, there, loss_there, eps, wanted
):
    """Its own tests ask for six digits, on a quadratic, where the gradient is the point."""
    w, loss, there, loss_there, eps = map(torch.tensor, (w, loss, there, loss_there, eps))
    found = mala_acceptance_probability(w, w, loss, there, there, loss_there, eps)
    assert np.isclose(found, wanted, atol=1e-6)


def test_the_acceptance_is_rounded_as_its_arguments_are():
    """Energies in the hundreds: their difference has few digits left in single precision."""
    eps, points = torch.tensor(0.1), torch.tensor([[0.0, 0.0], [10.5, 5.5]])
    energies = points.square().sum(1) / 2
    w, there = points
    found = {}
    for dtype in (torch.float32, torch.float64):
        args = (w, w, energies[0], there, there, energies[1])
        found[dtype] = mala_acceptance_probability(*(x.to(dtype) for x in args), eps.to(dtype))
        assert found[dtype].dtype == dtype
    # -eps (|w'|^2 - |w|^2) / 8, by the algebra of a quadratic
    wanted = np.exp(-float(eps.double()) * 140.5 / 8)
    assert found[torch.float64].item() == pytest.approx(wanted, rel=1e-12)
    assert found[torch.float32].item() == pytest.approx(wanted, rel=702.5 * 2**-23)


def test_mala_judges_the_step_between_draws():
    """The rate at a draw is of the step of the draw before, from where it began to its end."""
    eps, nbeta = 0.1, 2.0
    places = torch.tensor([[0.0, 1.0], [0.4, 0.8], [0.1, 1.1], [0.5, 0.5], [0.2, 0.3]])
    mala = MalaAcceptanceRate(1, 4, learning_rate=eps, nbeta=nbeta)

    class Told:
        localization_loss = torch.tensor(0.0)

    model = nn.Linear(2, 1, bias=False)
    for draw in range(4):
        here, after = places[draw], places[draw + 1]
        told = Told()
        told.dws = [nbeta * here]
        model.weight.data = after
        mala(chain=0, draw=draw, model=model, loss=here.square().sum() / 2, optimizer=told)
    for draw in (2, 3):
        w, there = places[draw - 1], places[draw]
        wanted = mala_acceptance_probability(
            w, nbeta * w, w.square().sum(), there, nbeta * there, there.square().sum(), eps
        )
        assert mala.mala_acceptance_rate[0, draw - 1].item() == pytest.approx(float(wanted))
    assert mala.mala_acceptance_rate[0, 0] == 0
    results = mala.get_results()
    assert results["mala_accept/mean"] == pytest.approx(results["mala_accept/trace"].mean())


def test_bins_follow_gradients():
    model = nn.Linear(2, 1, bias=False)
    histograms = GradientDistribution(1, 3, min_bins=4)

    def at(draw, *grads):
        model.weight.grad = torch.tensor([grads])
        histograms(chain=0, draw=draw, model=model)

    at(0, 0.0, 4.0)
    assert (histograms.num_bins, float(histograms.bin_size)) == (4, 1.0)
    at(1, -1.5, 4.5)  # two bins below, one above
    assert (histograms.num_bins, float(histograms.min_grad)) == (7, -2.0)
    counts = histograms.grad_dists["weight"][0]
    assert counts[0].tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert counts[1].tolist() == [1, 0, 0, 0, 0, 0, 1]
    at(2, 0.0, 8.0)  # eleven bins, merged in pairs
    assert (histograms.num_bins, float(histograms.bin_size)) == (5, 2.0)
    counts = histograms.get_results()["gradient/distributions"]["weight"][0]
    assert counts.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 0, 1]]
    assert float(histograms.max_grad) == 8.0
    model.weight.grad = None
    with pytest.raises(ValueError, match="gradient"):
        histograms(chain=0, draw=0, model=model)


def test_histograms_of_gradients_are_drawn(monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    model = nn.Linear(2, 1, bias=False)
    histograms = GradientDistribution(2, 1)
    model.weight.grad = torch.tensor([[-1.0, 1.0]])
    histograms(chain=0, draw=0, model=model)
    for chain in (None, 0, 1):
        histograms.plot("weight", chain=chain)
        assert len(plt.gca().get_images()) == 1
        plt.close()


class Heads(nn.Module):
    """Two layers of two heads of two weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.zeros(2, 2)) for _ in range(2))


@pytest.fixture
def draws():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(50, 2, 2, 2))).float()


def test_covariances_are_those_of_the_draws(draws):
    model = Heads()
    every = CovarianceAccumulator(8, [lambda m, i=i: m.layers[i] for i in range(2)], num_evals=2)
    within = WithinHeadCovarianceAccumulator(
        2, 2, [lambda m, i=i: tuple(m.layers[i]) for i in range(2)], num_evals=1
    )
    between = BetweenLayerCovarianceAccumulator(
        model,
        {"across": ("first", "second"), "self": ("first", "first")},
        num_evals=2,
        first=lambda m: m.layers[0],
        second=lambda m: m.layers[1],
    )
    for draw in draws:
        for layer, weights in zip(model.layers, draw, strict=True):
            layer.data = weights
        for accumulator in (every, within, between):
            accumulator(chain=0, draw=0, model=model)
    for accumulator in (every, within, between):
        accumulator.finalize()
        with pytest.raises(AssertionError, match="finaliz"):
            accumulator.accumulate(model)
    flat = draws.reshape(50, 8).numpy()
    whole = np.cov(flat.T, bias=True)
    found = every.get_results()
    np.testing.assert_allclose(found["matrix"], whole, atol=1e-5)
    for value, vector in zip(found["evals"], found["evecs"].T, strict=True):
        np.testing.assert_allclose(whole @ vector, value * vector, atol=1e-5)
    np.testing.assert_allclose(found["evals"], np.linalg.eigvalsh(whole)[-2:], rtol=1e-4)
    found = within.get_results()
    for layer in range(2):
        for head in range(2):
            block = np.cov(draws[:, layer, head].numpy().T, bias=True)
            np.testing.assert_allclose(found["matrix"][layer, head], block, atol=1e-5)
            value, vector = found["evals"][0, layer, head], found["evecs"][0, layer, head]
            np.testing.assert_allclose(block @ vector, value * vector, atol=1e-5)
            assert value == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-4)
    # The same sums to the last bit: the square of a mean is taken off, which leaves few of them.
    alone = CovarianceAccumulator(2, [lambda m: m.layers[1][1]])
    pair = BetweenLayerCovarianceAccumulator(
        model, {"self": ("head", "head")}, head=lambda m: m.layers[1][1]
    )
    for draw in draws:
        model.layers[1].data = draw[1]
        alone(model)
        pair(model)
    alone.finalize()
    pair.finalize()
    assert torch.equal(alone.to_matrix(), within.to_matrix()[1, 1])
    assert torch.equal(pair.to_matrices()["self"], within.to_matrix()[1, 1])
    assert (within.num_weights, within.num_weights_per_layer, between.num_weights) == (8, 4, 8)
    found = between.get_results()
    np.testing.assert_allclose(found["across"]["matrix"], whole[:4, 4:], atol=1e-5)
    np.testing.assert_allclose(
        found["self"]["evals"], np.linalg.eigvalsh(whole[:4, :4])[::-1][:2], rtol=1e-4
    )
    for accumulator in (every, within, between):
        accumulator.reset()
        assert not accumulator.is_finished
        assert accumulator.num_draws == 0


def test_memory_is_shared_on_request():
    llc = LLCEstimator(1, 1, init_loss=0.0, nbeta=1.0)
    assert llc.share_memory_() is llc
    assert llc.losses.is_shared()
    with pytest.raises(NotImplementedError):
        SamplerCallback()(chain=0)
