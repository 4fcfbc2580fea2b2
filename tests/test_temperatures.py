"""The LLC at infinite nbeta, against exact values of oracles at finite ones, and real chains."""

from functools import partial

import numpy as np
import pytest

import fastllc
from fastllc import oracles
from fastllc.estimators.coefficient import llc
from fastllc.estimators.temperatures import extrapolate_nbeta
from traces import trace_of

CROSSINGS = [(1, 0), (1, 1), (2, 0), (1, 2), (2, 2), (1, 3), (3, 3)]


def ladder(values, nbeta, share, rng, **settings):
    """A trace whose settings have these LLCs, with that standard error as a share of them."""
    values, nbeta = np.asarray(values), np.asarray(nbeta)
    noise = rng.normal(size=(len(values), 4, 500))
    levels = values[:, None, None] * (1 + share * np.sqrt(noise[0].size) * noise)
    return trace_of(levels / nbeta[:, None, None], dims=("setting",), nbeta=nbeta, **settings)


def exact(powers, nbeta):
    oracle = oracles.normal_crossing(powers)
    return oracle, [oracle.exact(each, 1.0) for each in nbeta]


@pytest.mark.parametrize("powers", CROSSINGS)
@pytest.mark.parametrize("share", [0.01, 0.003])
@pytest.mark.parametrize("decades", [(1, 3), (2, 4)])
def test_below_1e5_it_is_nearer_to_the_truth_than_the_coldest_and_tells_no_multiplicity(
    powers, share, decades
):
    """Root mean squares of 20 ladders; where nothing is missing, noise alone may make it worse."""
    nbeta, rng = np.logspace(*decades, 4), np.random.default_rng(0)
    oracle, values = exact(powers, nbeta)
    errors = []
    for _ in range(20):
        trace = ladder(values, nbeta, share, rng)
        found, each = extrapolate_nbeta(trace), llc(trace)
        assert np.isnan(found["multiplicity"])
        assert float(found["llc"]) == float(found["llc_given_m"].sel(m=1))
        errors.append([float(found["llc"]), float(each["llc"][-1])])
    ours, coldest = np.sqrt(np.square(np.array(errors) - float(oracle.llc)).mean(axis=0))
    missing = float(oracle.llc) - values[-1]
    assert ours < coldest if missing > share * values[-1] else ours < 1.3 * share * values[-1]


@pytest.mark.parametrize("powers", [(1, 0), (2, 0), (1, 2), (2, 2), (1, 3)])
def test_from_1e5_up_the_multiplicity_comes_out_and_the_llc_within_its_error(powers):
    nbeta, rng = np.logspace(5, 9, 6), np.random.default_rng(0)
    oracle, values = exact(powers, nbeta)
    found = extrapolate_nbeta(ladder(values, nbeta, 0.001, rng))
    assert float(found["multiplicity"]) == oracle.multiplicity
    assert float(found["probability"].sel(m=oracle.multiplicity)) >= 0.99
    assert abs(float(found["llc"] - float(oracle.llc))) < 4 * float(found["sem"])


def test_two_and_three_are_not_told_apart_where_they_fit_alike():
    """Powers (1, 1) with errors of 0.3 %: m = 1 is excluded, and the truth in what m = 2 says."""
    nbeta, rng = np.logspace(5, 9, 6), np.random.default_rng(0)
    oracle, values = exact((1, 1), nbeta)
    found = extrapolate_nbeta(ladder(values, nbeta, 0.003, rng))
    assert np.isnan(found["multiplicity"])
    assert float(found["probability"].sel(m=1)) < 0.01
    of_two = found.sel(m=2)
    assert abs(float(of_two["llc_given_m"] - float(oracle.llc))) < 4 * float(of_two["sem_given_m"])


def test_probabilities_sum_to_one_and_what_diverged_has_none():
    nbeta, rng = np.array([1e2, 1e3, 1e4]), np.random.default_rng(0)
    found = extrapolate_nbeta(ladder([2.0, 2.2, 2.3], nbeta, 0.01, rng))
    assert float(found["probability"].sum()) == pytest.approx(1)
    nothing = extrapolate_nbeta(ladder([2.0, np.nan, 2.3], nbeta, 0.01, rng))
    assert all(np.isnan(nothing[name]).all() for name in nothing)


def test_a_multiplicity_that_the_coefficient_is_too_small_for_has_no_probability():
    """Of 0.01 no (m - 1) / (log nbeta + b) with b up to 10 can be missing."""
    nbeta, rng = np.array([1e2, 1e3, 1e4]), np.random.default_rng(0)
    found = extrapolate_nbeta(ladder([0.009, 0.0095, 0.01], nbeta, 0.01, rng))
    assert found["probability"].values.tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(found["llc_given_m"].values).tolist() == [False, True, True]


def test_each_lr_and_localization_has_its_own_ladder_in_any_order():
    nbeta, rng = [1e4, 1e2, 1e3, 1e2, 1e3, 1e4], np.random.default_rng(0)
    values, localization = [5.0, 5, 5, 7, 7, 7], [1.0, 1, 1, 2, 2, 2]
    found = extrapolate_nbeta(ladder(values, nbeta, 1e-4, rng, localization=localization))
    np.testing.assert_allclose(found["llc"], [5, 7], rtol=2e-3)
    assert found["localization"].values.tolist() == [1, 2]
    assert found["probability"].dims == ("setting", "m")


def test_fewer_than_three_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 3 nbeta, got one"):
        extrapolate_nbeta(trace_of(rng.normal(size=(4, 100))))
    with pytest.raises(ValueError, match=r"3 nbeta at lr 0\.001 and localization 3, got 2"):
        extrapolate_nbeta(ladder([1.0, 2.0], [1e2, 1e3], 0.01, rng, localization=[3.0, 3.0]))


def test_chains_of_a_quartic_at_a_ladder_come_nearer_to_its_coefficient():
    """Of w^4 in 50 weights, held so that 6 % are missing at the coldest."""
    oracle = oracles.separable([2] * 50)
    nbeta = [100.0, 400.0, 1600.0]
    trace = fastllc.sample(
        oracle.model,
        oracle.data,
        oracle.loss_fn,
        sampler=partial(fastllc.BAOAB, friction=0.2),
        lr=1e-4,
        nbeta=nbeta,
        localization=10.0,
        num_chains=8,
        num_burnin_steps=1000,
        num_draws=8000,
        seed=0,
        progress=False,
    )
    found, each = extrapolate_nbeta(trace), llc(trace)
    for value, error, at in zip(each["llc"].values, each["sem"].values, nbeta, strict=True):
        assert abs(value - oracle.exact(at, 10.0)) < 5 * error
    truth, coldest = float(oracle.llc), float(each["llc"][-1])
    assert coldest < 0.95 * truth
    assert abs(float(found["llc"]) - truth) < abs(coldest - truth) / 2
