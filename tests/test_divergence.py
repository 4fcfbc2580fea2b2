"""Weights that are not finite: told once, with their step and names."""

import copy
import math
import re
import warnings

import pytest
import torch

from fastllc import SGLD, DivergenceWarning
from helpers import make
from refusals import F64


def diverge(value, at, where, n=600):
    """Steps a sampler whose gradient turns bad at one step; returns it and all warnings."""
    params = make(50, n, 4)
    sampler = SGLD([{"params": params[:2]}, {"params": params[2:]}], seed=0)
    seen = []
    for step in range(6):
        if step == at:
            params[1].grad[where] = value
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sampler.step()
        seen += [(step, w) for w in caught]
        assert sampler.nonfinite_step == (None if step < at else at)
    return sampler, seen


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("where", [0, 255, 599])
def test_divergence_is_flagged_once_at_that_step(value, at, where):
    if value == 3e38:  # overflows by the temperature
        (param,) = make(600)
        sampler = SGLD([param], nbeta=1e4, seed=0)
        param.grad[where] = value
        with pytest.warns(DivergenceWarning, match=r"step 0 .* params\[0\] \(1 of 600\)"):
            sampler.step()
        return
    sampler, seen = diverge(value, at, where)
    assert [step for step, _ in seen] == [at]
    ((_, warning),) = seen
    assert warning.category is DivergenceWarning
    assert f"step {at} " in str(warning.message)
    assert "params[1] (1 of 600)" in str(warning.message)
    assert sampler.nonfinite_step == at


@pytest.mark.parametrize("hooks", [False, True])
def test_divergence_is_told_of_the_line_that_stepped(hooks):
    (param,) = make(5)
    param.grad[0] = math.nan
    sampler = SGLD([param], seed=0)
    if hooks:
        sampler.register_step_pre_hook(lambda *_: None)
    with pytest.warns(DivergenceWarning) as caught:
        sampler.step()
    assert caught[0].filename == __file__


def test_divergence_stays_in_the_state():
    sampler, _ = diverge(math.nan, 2, 7)
    other = SGLD([{"params": make(50, 600)}, {"params": make(4)}], seed=0)
    other.load_state_dict(copy.deepcopy(sampler.state_dict()))
    assert other.nonfinite_step == 2
    assert copy.deepcopy(sampler).nonfinite_step == 2


def test_weights_that_are_not_finite_from_the_start():
    (param,) = make(30)
    param.data[3] = math.nan
    sampler = SGLD([param], seed=0)
    assert sampler.nonfinite_step is None
    with pytest.warns(DivergenceWarning, match=r"step 0 .* \(1 of 30\)"):
        sampler.step()


def test_divergence_names_every_parameter_of_every_dtype():
    params = [*make(5), *make(6, dtype=F64), *make(7)]
    sampler = SGLD(params, seed=0)
    for p in params[:2]:
        p.grad[1] = math.inf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampler.step()
    assert len(caught) == 1
    named = re.findall(r"params\[(\d)\]", str(caught[0].message))
    assert named == ["0", "1"]


def test_divergence_as_an_error_still_completes_the_step():
    """With warnings as errors: the weights have moved, so the step must have been counted."""
    a, b = [*make(5), *make(6, dtype=F64)], [*make(5), *make(6, dtype=F64)]
    strict, lax = SGLD(a, seed=0), SGLD(b, seed=0)
    for params in (a, b):
        params[0].grad[1] = math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DivergenceWarning):
            strict.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lax.step()
    assert strict.param_groups[0]["step"] == 1
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_large_weights_are_no_divergence():
    (param,) = make(600)
    param.data.fill_(3e38)  # sums of these overflow
    sampler = SGLD([param], lr=1e-8, seed=0)
    for _ in range(3):
        sampler.step()
    assert sampler.nonfinite_step is None


def test_non_finite_weights_that_get_no_gradient_are_not_looked_at():
    a, b = make(5, 6)
    b.data[0] = math.nan
    b.grad = None
    sampler = SGLD([a, b], seed=0)
    sampler.step()
    assert sampler.nonfinite_step is None
