"""What is refused of the settings that all samplers share: when one is made, and later."""

import math

import numpy as np
import pytest
import torch

from fastllc import SGLD
from fastllc.samplers.sampler import Sampler
from helpers import make
from refusals import SETTINGS, refuses

OUT_OF_RANGE = [-1.0, -1e-300, math.nan, math.inf, -math.inf, torch.tensor(-1.0), np.float32("nan")]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=repr)
def test_settings_out_of_range(name, value):
    if name == "bounding_box_size" and float(value) == math.inf:
        SGLD(make(3), bounding_box_size=math.inf)  # no box
        return
    words = [f"{name} must be", f"got {float(value)}"]
    with refuses(ValueError, *words):
        SGLD(make(3), **{name: value})
    with refuses(ValueError, *words):
        SGLD([{"params": make(3)}, {"params": make(4), name: value}])


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_wrong_type(name):
    for value in ("x", 1j, [0.1], torch.tensor([0.1, 0.2]), object(), None):
        if value is None and name == "bounding_box_size":
            continue
        with refuses((TypeError, ValueError), name):
            SGLD(make(3), **{name: value})


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_too_large_for_a_float(name):
    (param,) = make(3)
    sampler = SGLD([param], seed=0)
    (other,) = make(4)
    errors = (TypeError, ValueError, OverflowError)
    with refuses(errors, name, sampler=sampler, watch=[param, other]):
        sampler.add_param_group({"params": [other], name: 10**400})
    assert len(sampler.param_groups) == 1, "the refused group stayed"
    assert other not in sampler.state


def test_a_box_of_no_size():
    with refuses(ValueError, "bounding_box_size", "got 0.0"):
        SGLD(make(3), bounding_box_size=0)


@pytest.mark.parametrize(
    "seed", [1.0, "1", True, False, [1], torch.tensor(1.5), 1j, b"1"], ids=repr
)
def test_seeds_of_the_wrong_type(seed):
    with refuses(TypeError, "seed must be an int", "got"):
        SGLD(make(3), seed=seed)


@pytest.mark.parametrize("seed", [-1, 2**64, 2**200, np.int64(-1)], ids=repr)
def test_seeds_out_of_range(seed):
    with refuses(ValueError, "seed must be in [0, 2**64)", f"got {int(seed)}"):
        SGLD(make(3), seed=seed)


def test_seeds_that_differ_between_groups():
    with refuses(ValueError, "seed", "1", "got 2"):
        SGLD([{"params": make(3), "seed": 1}, {"params": make(3), "seed": 2}])
    with refuses(ValueError, "seed", "1", "got 2"):
        SGLD([{"params": make(3)}, {"params": make(3), "seed": 2}], seed=1)
    sampler = SGLD(make(3), seed=1)
    with refuses(ValueError, "seed", "1", "got 2", sampler=sampler):
        sampler.add_param_group({"params": make(4), "seed": 2})
    assert len(sampler.param_groups) == 1


@pytest.mark.parametrize("name", ["lr", "foo"])
def test_settings_are_keywords(name):
    if name == "lr":
        assert SGLD(make(3), 0.5).param_groups[0]["lr"] == 0.5
        with pytest.raises(TypeError, match="positional"):
            SGLD(make(3), 0.5, 1.0)
    else:
        with pytest.raises(TypeError, match="foo"):
            SGLD(make(3), foo=1.0)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("value", [-1.0, math.nan, -math.inf, "x", "inf"], ids=repr)
@pytest.mark.parametrize("group", [0, 1])
def test_settings_that_go_bad_later(name, value, group):
    if name == "bounding_box_size" and value == "inf":
        return
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], bounding_box_size=1.0, seed=0)
    sampler.step()
    good = sampler.param_groups[group][name]
    sampler.param_groups[group][name] = math.inf if value == "inf" else value
    with refuses((ValueError, TypeError), name, sampler=sampler, watch=params):
        sampler.step()
    with refuses((ValueError, TypeError), name, sampler=sampler, watch=params):
        sampler.step()  # and it stays refused
    sampler.param_groups[group][name] = good
    sampler.step()


def test_an_lr_tensor_that_turns_nan():
    (param,) = make(30)
    lr = torch.tensor(0.1)
    sampler = SGLD([param], lr=lr, seed=0)
    sampler.step()
    lr.fill_(math.nan)
    with refuses(ValueError, "lr", "nan", sampler=sampler, watch=[param]):
        sampler.step()


@pytest.mark.parametrize("seed", [1.5, -1, 2**64, "1", True, None], ids=repr)
def test_a_seed_that_goes_bad_later(seed):
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], seed=7)
    sampler.step()
    for group in sampler.param_groups:
        group["seed"] = seed
    if seed is None:
        sampler.step()  # a new one is drawn
        assert isinstance(sampler.param_groups[0]["seed"], int)
        return
    with refuses((TypeError, ValueError), "seed", sampler=sampler, watch=params):
        sampler.step()


def test_a_seed_that_is_changed_in_one_group_alone():
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], seed=7)
    sampler.step()
    sampler.param_groups[1]["seed"] = 8
    with refuses(ValueError, "seed", "7", "8", sampler=sampler, watch=params):
        sampler.step()


@pytest.mark.parametrize("step", [-1, 1.5, "1"], ids=repr)
def test_a_step_counter_that_goes_bad(step):
    (param,) = make(30)
    sampler = SGLD([param], seed=7)
    sampler.param_groups[0]["step"] = step
    with refuses((TypeError, ValueError), "step", sampler=sampler, watch=[param]):
        sampler.step()


@pytest.mark.parametrize("generator", [3, "cpu", np.random.default_rng(0)], ids=["3", "cpu", "np"])
def test_a_noise_generator_of_the_wrong_type(generator):
    (param,) = make(30)
    sampler = SGLD([param], seed=0)
    with refuses(TypeError, "noise_generator", sampler=sampler, watch=[param]):
        sampler.step(noise_generator=generator)


def test_every_setting_of_the_sampler_is_covered_here():
    group = SGLD(make(3)).param_groups[0]
    others = {"params", "save_metrics", "seed", "step", "first_param", "noise_format"}
    elsewhere = {"mask", "rounding", "sketch_dim", "sketch_seed"}  # in files of their own
    assert set(SETTINGS) == set(group) - others - elsewhere
    assert issubclass(SGLD, Sampler)
