"""Settings found by a pilot run: its judge on traces of known faults, and whole estimates."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import fastllc
from fastllc import oracles
from fastllc.calibration.choice import choose
from fastllc.calibration.judge import Pilot, judge
from fastllc.engine.curvature import largest_curvature


def level(*values, trend=0.0, steps=400, noise=0.1):
    """Excess losses [lr, 2, steps] about levels; `trend` is what they rise by, end to end."""
    slope, rng = trend * (np.arange(steps) / steps - 1), np.random.default_rng(0)
    return np.stack([v * (1 + slope) + noise * rng.normal(size=(2, steps)) for v in values])


def judged(excess, temperature=1.0):
    lrs = [1e-3 * 2.5**i for i in range(len(excess))]
    return judge(lrs, 1.0, excess, np.full(len(excess), temperature))


def test_flat_traces_that_do_not_depend_on_the_step_are_trusted():
    first, second, last = judged(level(10.0, 10.0, 10.0))
    assert first.trouble == second.trouble == ""
    assert first.llc == pytest.approx(10.0, abs=5 * 0.1 / math.sqrt(400))
    assert "no longer steps" in last.trouble


def test_the_bias_of_a_step_is_what_longer_ones_add_in_proportion():
    """10 (1 + 0.1 lr / 1e-3): at 2.5 times the step it adds 0.1 in proportion."""
    first, second, _ = judged(level(11.0, 12.5, 16.25))
    assert first.bias == pytest.approx((12.5 / 11 - 1) / 1.5, abs=0.005)
    assert first.trouble == ""
    assert second.bias == pytest.approx((16.25 / 12.5 - 1) / 1.5, abs=0.005)
    assert second.trouble == "the LLC depends on lr, by +20%"


def test_what_shorter_steps_take_off_counts_if_their_chain_has_spread():
    """From 8 to 10 and 10.5: the next longer steps add 3 %, the next shorter ones take 20 % off."""
    excess = level(8.0, 10.0, 10.5)
    assert judged(excess)[1].trouble == "shorter steps take 20% off the LLC"
    assert judged(excess, temperature=0.4)[1].trouble == ""
    assert judged(level(8.8, 10.0, 10.5))[1].trouble == ""


@pytest.mark.parametrize(("trend", "word"), [(0.5, "rises"), (-0.5, "falls")])
def test_traces_that_still_move_are_not(trend, word):
    first = judged(level(10.0, 10.0, trend=trend))[0]
    assert word in first.trouble
    assert math.copysign(1, first.change) == math.copysign(1, trend)


def test_what_noise_hides_is_not_held_against_a_setting():
    assert judged(level(1.0, 1.05, noise=0.8))[0].trouble == ""


def test_chance_does_not_explain_chains_that_run_away():
    """Their error is as large as what they add."""
    excess = level(10.0, 20.0, 20.0)
    excess[1, 0] += np.linspace(0, 60, 400)
    first = judged(excess)[0]
    assert first.trouble.startswith("the LLC depends on lr")


def test_chains_that_diverged_are_named_and_judge_nobody():
    excess = level(10.0, 10.0, 10.0)
    excess[1, 0, 300:] = np.nan
    first, second, _ = judged(excess)
    assert first.trouble == "chains at longer steps diverged"
    assert second.trouble == "a chain diverged"
    assert math.isnan(second.llc)


def test_negative_coefficients_are_not_trusted():
    assert judged(level(-3.0, -3.0))[0].trouble == "the LLC is not positive"


def test_burnin_is_where_the_trace_has_come_to_its_end():
    excess = level(10.0, 10.0)
    excess[0, :, :100] -= 5.0
    assert judged(excess)[0].burnin == 100


def pilot(lr, localization, bias=0.0, trouble="", temperature=1.0, llc=1.0, sem=0.01):
    return Pilot(lr, localization, llc, sem, 0.0, bias, temperature, 0, trouble)


def test_the_weakest_trusted_localization_and_its_largest_unbiased_step_are_chosen():
    pilots = [
        pilot(1, 1.0, trouble="no"),
        pilot(1, 2.0, 0.01),
        pilot(2, 2.0, 0.04),
        pilot(3, 2.0, 0.11),
        pilot(4, 2.0, trouble="no"),
        pilot(3, 3.0, 0.0),
    ]
    assert choose(pilots) is pilots[2]
    assert choose([pilot(1, 2.0, -0.07), pilot(2, 2.0, 0.09)]).lr == 1
    assert choose(pilots[:1]) is None


def test_a_stronger_localization_is_chosen_if_its_errors_are_smaller_by_more_than_the_llc_changes():
    weak, strong = pilot(1, 1.0, 0.11), pilot(1, 2.0, 0.06, llc=0.96)
    assert choose([weak, strong]) is strong
    assert choose([weak, replace(strong, llc=0.94)]) is weak
    assert choose([weak, replace(strong, llc=1.06)]) is weak
    assert choose([replace(weak, bias=0.0, sem=0.12), strong]) is strong
    unbiased = replace(weak, bias=0.04)
    assert choose([unbiased, replace(strong, bias=0.0, llc=1.0)]) is unbiased


def test_chains_that_did_not_spread_are_chosen_only_if_none_did():
    """Their traces are flat, and too low, for they have not seen all directions."""
    cold, cool, warm = (pilot(1, i, temperature=t) for i, t in ((1.0, 0.1), (2.0, 0.3), (3.0, 0.5)))
    assert choose([cold, cool, warm]) is warm
    assert choose([cold, cool]) is cool
    assert choose([cold, pilot(1, 2.0, trouble="no")]) is cold


@pytest.mark.parametrize(("nbeta", "steps"), [(1e3, 3000), (3e5, 3898), (3e6, 16_000)])
def test_the_grid_and_the_length_of_its_chains_follow_the_largest_curvature(nbeta, steps):
    """Steps of 1 / S, localizations of the cube root of S, 0.87 S^(2/3) steps, of S = nbeta h."""
    oracle = oracles.quadratic([1.0, 0.5], n_samples=10)
    found = fastllc.calibrate(
        oracle.model, oracle.data, oracle.loss_fn, nbeta=nbeta, seed=0, progress=False
    )
    scale = nbeta * found.curvature
    assert scale == pytest.approx(nbeta, rel=0.03)
    lrs = sorted({p.lr * scale for p in found.pilots})
    strengths = sorted({p.localization / scale ** (1 / 3) for p in found.pilots})
    assert lrs == pytest.approx([0.0128, 0.032, 0.08, 0.2])
    assert strengths == pytest.approx([0.15, 0.375, 0.94, 2.3])
    assert found.num_burnin_steps == pytest.approx(steps, rel=0.02)
    assert found.num_draws >= max(4500, found.num_burnin_steps)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_largest_curvature_is_that_of_the_quadratic(scale):
    oracle = oracles.quadratic([scale, 0.7 * scale, 0.01], noise=1.0)
    found = largest_curvature(oracle.model, oracle.data, oracle.loss_fn)
    assert found == pytest.approx(scale, rel=0.03)
    name, param = next(iter(oracle.model.named_parameters()))
    masked = largest_curvature(
        oracle.model, oracle.data, oracle.loss_fn, mask={name: torch.tensor([False, True, True])}
    )
    assert masked == pytest.approx(0.7 * scale, rel=0.03)
    assert param.tolist() == pytest.approx([0, 0, 0], abs=0.2)


def auto(oracle, **settings):
    estimator = fastllc.LLCEstimator(settings="auto", seed=0, progress=False, **settings)
    return estimator.fit(oracle.model, oracle.data, oracle.loss_fn)


def test_automatic_settings_find_the_coefficient_of_a_quadratic():
    """Weakly held: the least curvature is 50 times the chosen localization at most."""
    oracle = oracles.quadratic([1.0, 0.5, 0.3, 0.2], n_samples=1000)
    found = auto(oracle, nbeta=1e3, sem=0.05)
    exact = oracle.exact(1e3, found.calibration_.chosen.localization)
    assert abs(found.llc_ - exact) < 5 * found.llc_sem_
    assert exact == pytest.approx(2.0, rel=0.01)
    assert found.nbeta_ == 1e3
    assert found.lr == 1e-4  # the estimator's own settings stay as they were given
    assert "can be trusted" in str(found.calibration_)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_automatic_settings_see_directions_in_which_only_products_of_weights_count():
    """Half the rank of the Jacobian, what chains see before those open, is a third of the LLC."""
    oracle = oracles.deep_linear([8, 8, 8, 8], 1, n_samples=2000)
    assert oracle.jacobian_rank() / 2 < oracle.llc / 3
    found = auto(oracle, nbeta=1e4, batch_size=256)
    assert found.llc_ == pytest.approx(float(oracle.llc), rel=0.1)


def test_a_model_off_its_minimum_is_refused_and_every_setting_named():
    model = torch.nn.Linear(3, 1)
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(model.weight, 5.0)
    data = x, torch.zeros(500, 1)
    with pytest.raises(fastllc.CalibrationError, match="no setting can be trusted") as caught:
        fastllc.LLCEstimator(settings="auto", seed=0, progress=False).fit(
            model, data, torch.nn.functional.mse_loss
        )
    assert len(caught.value.calibration.pilots) == 16
    assert str(caught.value).count("localization") >= 16
    with pytest.raises(fastllc.CalibrationError):
        _ = caught.value.calibration.settings
    plt.close(caught.value.calibration.plot())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"temperature": 0.13}, r"temperature is 0\.13, below 0\.5"),
        ({"llc": 3.0}, r"2\.\d times the localization takes \d\d% off"),
    ],
)
def test_reasons_to_distrust_the_estimate_are_warned_of_and_in_the_words(monkeypatch, change, word):
    def doubtful(*args, **settings):
        found = fastllc.calibrate(*args, **settings)
        return replace(found, chosen=replace(found.chosen, **change))

    monkeypatch.setattr("fastllc.estimators.llc.calibrate", doubtful)
    oracle = oracles.quadratic([1.0, 0.5], n_samples=100)
    with pytest.warns(UserWarning, match=word):
        found = auto(oracle, nbeta=1e3, sem=0.5)
    assert found.calibration_.doubts[0] in str(found.calibration_)


def test_nothing_speaks_against_the_estimate_of_a_quadratic():
    oracle = oracles.quadratic([1.0, 0.5], n_samples=100)
    found = fastllc.calibrate(
        oracle.model, oracle.data, oracle.loss_fn, nbeta=1e4, seed=0, progress=False
    )
    assert found.doubts == []
    assert replace(found, chosen=None).doubts == []


def test_a_flat_loss_is_refused():
    oracle = oracles.quadratic([0.0, 0.0], n_samples=10)
    with pytest.raises(ValueError, match="the loss must be curved"):
        fastllc.calibrate(oracle.model, oracle.data, oracle.loss_fn)


def test_what_is_found_cannot_be_given():
    oracle = oracles.quadratic([1.0], n_samples=10)
    with pytest.raises(ValueError, match="lr must be left alone"):
        auto(oracle, lr=1e-3)
    with pytest.raises(ValueError, match="num_draws must be left to calibrate"):
        fastllc.calibrate(oracle.model, oracle.data, oracle.loss_fn, num_draws=3)
    with pytest.raises(ValueError, match="sem must be finite and > 0"):
        fastllc.calibrate(oracle.model, oracle.data, oracle.loss_fn, sem=0.0)
    with pytest.raises(ValueError, match="settings must be 'auto' or None"):
        fastllc.LLCEstimator(settings="best").fit(oracle.model, oracle.data, oracle.loss_fn)
    with pytest.raises(ValueError, match="seed must be given with settings='auto' and a store"):
        fastllc.LLCEstimator(settings="auto", store="kept").fit(
            oracle.model, oracle.data, oracle.loss_fn
        )
    with pytest.raises(ValueError, match="settings must be None for several checkpoints"):
        fastllc.LLCEstimator(settings="auto").fit(
            [oracle.model, oracle.model], oracle.data, oracle.loss_fn
        )


def test_the_picture_frames_the_chosen_setting():
    oracle = oracles.quadratic([1.0, 0.5], n_samples=100)
    found = fastllc.calibrate(oracle.model, oracle.data, oracle.loss_fn, seed=0, progress=False)
    figure = found.plot()
    ax = figure.axes[0]
    (frame,) = ax.patches
    lrs = sorted({p.lr for p in found.pilots})
    strengths = sorted({p.localization for p in found.pilots})
    x, y = frame.get_xy()
    assert lrs[int(x + 0.5)] == found.chosen.lr
    assert strengths[int(y + 0.5)] == found.chosen.localization
    assert len(ax.texts) == len(found.pilots) == 16
    plt.close(figure)


def test_masks_that_broadcast_are_those_that_they_spread_to():
    """The temperature is of each weight under the mask."""
    oracle = oracles.quadratic([1.0, 0.5], n_samples=100)
    ((name, weights),) = oracle.model.named_parameters()
    give = partial(fastllc.calibrate, oracle.model, oracle.data, oracle.loss_fn, seed=0)
    narrow = give(mask={name: torch.ones(1, dtype=torch.bool)}, progress=False)
    whole = give(mask={name: torch.ones(weights.shape, dtype=torch.bool)}, progress=False)
    assert narrow.pilots == whole.pilots


def test_of_several_temperatures_it_takes_the_coldest_that_can_be_trusted():
    """Off the minimum the loss falls, which at a large nbeta is all that chains see."""
    oracle = oracles.quadratic([1.0, 0.5], n_samples=100)
    with torch.no_grad():
        next(oracle.model.parameters()).add_(0.01)
    give = partial(fastllc.calibrate, oracle.model, oracle.data, oracle.loss_fn, seed=0)
    found = give(nbeta=[100.0, 1e6], progress=False)
    assert found.nbeta == 100.0
    assert found.chosen is not None
    assert give(nbeta=1e6, progress=False).chosen is None
    assert give(nbeta=[100.0, 200.0], progress=False).nbeta == 200.0
