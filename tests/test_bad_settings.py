"""What is refused of the settings that single samplers have, of masks and of rounding."""

import copy
import math

import numpy as np
import pytest
import torch

from fastllc import BAOAB, SGHMC, SGLD, SGNHT, AdamSGLD, RMSpropSGLD
from helpers import OWN, SAMPLERS, make
from refusals import refuses

NAN, INF = math.nan, math.inf
NUMBERS = [
    (RMSpropSGLD, "alpha", (-0.1, 1.0, 1.5, NAN, INF, torch.tensor(2.0))),
    (RMSpropSGLD, "eps", (0.0, -1.0, NAN, INF, np.float32("nan"))),
    (AdamSGLD, "eps", (0, -1.0, NAN, INF)),
    (SGHMC, "friction", (0.0, -0.5, 1.0000001, 2, NAN, INF)),
    (BAOAB, "friction", (0.0, -0.5, 1.5, NAN)),
    (SGNHT, "diffusion_factor", (0.0, -0.5, NAN, INF, -INF)),
]
RANGES = [(sampler, name, value) for sampler, name, values in NUMBERS for value in values]
NO_NUMBERS = ["x", None, 1j, [0.5], torch.tensor([0.1, 0.2]), 10**400]
BETAS = [
    ((0.9,), TypeError, "betas"),
    (0.9, TypeError, "betas"),
    ("ab", TypeError, "betas"),
    (None, TypeError, "betas"),
    ((0.9, 0.99, 0.999), TypeError, "betas"),
    ((1.0, 0.9), ValueError, "betas[0]"),
    ((0.9, -0.1), ValueError, "betas[1]"),
    ((NAN, 0.9), ValueError, "betas[0]"),
    ((0.9, "x"), TypeError, "betas[1]"),
]
OTHERS = [
    (AdamSGLD, "betas", value, error, word) for value, error, word in BETAS
] + [
    (sampler, "adapt_steps", value, error, "adapt_steps")
    for sampler in (RMSpropSGLD, AdamSGLD)
    for value, error in ((-1, ValueError), (2**53, ValueError), (1.5, TypeError), ("3", TypeError),
                         (True, TypeError), (NAN, TypeError))
] + [
    (RMSpropSGLD, "convention", value, ValueError, "convention")
    for value in ("Paper", "", None, 3)
] + [
    (sampler, "rounding", value, ValueError, "rounding")
    for sampler in SAMPLERS
    for value in ("nearest", "", None, 1)
]  # fmt: skip
CASES = (
    [(s, n, v, ValueError, n) for s, n, v in RANGES]
    + [(s, n, v, (TypeError, ValueError), n) for s, n, _ in NUMBERS for v in NO_NUMBERS]
    + OTHERS
)


def label(value):
    return getattr(value, "__name__", None) or repr(value)[:20]


@pytest.mark.parametrize(("sampler", "name", "value", "error", "word"), CASES, ids=label)
def test_settings_of_one_sampler(sampler, name, value, error, word):
    """At construction, in a later group, and changed between steps."""
    with refuses(error, f"{word} must", "got"):
        sampler(make(3), **{name: value})
    params = make(30, 4)
    made = sampler(params, seed=0)
    made.step()
    (other,) = make(5)
    before = copy.deepcopy(made.state_dict())
    with refuses(error, f"{name}", "got", sampler=made, watch=params):
        made.add_param_group({"params": [other], name: value})
    assert len(made.param_groups) == 1
    assert other not in made.state
    made.param_groups[0][name], good = value, made.param_groups[0][name]
    for _ in range(2):
        with refuses(error, f"{word} must", "got", sampler=made, watch=params):
            made.step()
    made.param_groups[0][name] = good
    assert str(made.state_dict()) == str(before)
    made.step()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_unexpected_keywords(sampler):
    foreign = {name for own in OWN.values() for name in own} - set(OWN[sampler])
    foreign -= {"alpha", "eps", "betas", "adapt_steps"} & set(sampler(make(3)).defaults)
    for name in {*foreign, "momentum", "maximize", "nbetas"}:
        with refuses(TypeError, sampler.__name__, f"unexpected argument {name!r}"):
            sampler(make(3), **{name: 0.5})


@pytest.mark.parametrize("value", [0.1, "x", None, NAN])
def test_thermostats_share_one_diffusion_factor(value):
    words = ("diffusion_factor", "other groups", "0.2", f"got {value}")
    groups = [{"params": p} for p in make(3, 4)]
    groups[0]["diffusion_factor"], groups[1]["diffusion_factor"] = 0.2, value
    with refuses(ValueError, *words):
        SGNHT(groups)
    params = make(3, 4)
    sampler = SGNHT([{"params": p} for p in params], diffusion_factor=0.2, seed=0)
    sampler.step()
    sampler.param_groups[1]["diffusion_factor"] = value
    with refuses((TypeError, ValueError), "diffusion_factor must", sampler=sampler, watch=params):
        sampler.step()


@pytest.mark.parametrize("value", ["x", 1j, [1.0]])
def test_a_thermostat_that_is_no_number(value):
    params = make(3, 4)
    sampler = SGNHT([{"params": p} for p in params], seed=0)
    sampler.step()
    for group in sampler.param_groups:
        group["thermostat"] = value
    with refuses(TypeError, "thermostat must be a number", sampler=sampler, watch=params):
        sampler.step()
    sampler.param_groups[0]["thermostat"] = 0.3
    with refuses(ValueError, "thermostat must be the same", sampler=sampler, watch=params):
        sampler.step()


def yes(*shape):
    return torch.ones(shape, dtype=torch.bool)


BAD_MASKS = {
    "float": ([torch.ones(3, 4), None], TypeError, "mask[0] must be a boolean tensor", "float32"),
    "uint8": ([None, yes(5).byte()], TypeError, "mask[1] must be a boolean tensor", "uint8"),
    "a list for a tensor": ([[True], None], TypeError, "mask[0] must be a boolean tensor", "list"),
    "numpy": ([None, np.ones(5, bool)], TypeError, "mask[1] must be a boolean", "ndarray"),
    "shape": ([yes(4, 3), None], ValueError, "mask[0] must", "(3, 4)", "got (4, 3)"),
    "too many dimensions": ([None, yes(1, 5)], ValueError, "mask[1] must", "(5,)", "got (1, 5)"),
    "device": ([None, yes(5).to("meta")], ValueError, "mask[1] must be on cpu", "got meta"),
    "sparse": ([None, yes(5).to_sparse()], TypeError, "mask[1] must be dense", "sparse_coo"),
    "too few": ([yes(3, 4)], ValueError, "mask must have one tensor", "2 parameters", "got 1"),
    "too many": ([None] * 3, ValueError, "mask must have one tensor", "2 parameters", "got 3"),
    "a single tensor for two": (yes(5), ValueError, "mask must have one tensor", "got 1"),
    "a number": (3, TypeError, "mask must be a tensor, a list", "got int"),
    "a word": ("weight", TypeError, "mask must be a tensor, a list", "got str"),
    "an array": (np.ones(5, bool), TypeError, "mask must be a tensor, a list", "got ndarray"),
    "names without names": ({"bias": yes(5)}, ValueError, "mask by name needs named parameters"),
}


@pytest.mark.parametrize("case", BAD_MASKS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_masks_that_do_not_fit(sampler, case):
    mask, error, *words = BAD_MASKS[case]
    with refuses(error, *words):
        sampler(make((3, 4), 5), mask=mask)
    params = make((3, 4), 5)
    made = sampler(params, seed=0)
    made.step()
    before = str(made.state_dict()["state"])
    with refuses(error, "mask", sampler=made, watch=params):
        made.add_param_group({"params": make((3, 4), 5), "mask": mask})
    made.param_groups[0]["mask"] = mask
    with refuses(error, *words, sampler=made, watch=params):
        made.step()
    assert str(made.state_dict()["state"]) == before


def test_masks_by_unknown_names():
    model = torch.nn.Linear(4, 3)
    with refuses(ValueError, "mask must name parameters", "got ['biased']"):
        SGLD(model.named_parameters(), mask={"bias": yes(3), "biased": yes(3)})
    with refuses(TypeError, "mask[1] must be a boolean tensor"):
        SGLD(model.named_parameters(), mask={"bias": torch.ones(3)})


BAD_STATES = {
    "momentum of another shape": ("momentum", lambda m: m[:2], ValueError, "must have shape"),
    "momentum of another dtype": ("momentum", lambda m: m.double(), TypeError, "must be float32"),
    "strided momentum": ("momentum", lambda m: m.repeat(2)[::2], ValueError, "contiguous"),
    "sparse momentum": ("momentum", lambda m: m.to_sparse(), RuntimeError, "must be dense"),
    "no tensor": ("momentum", lambda m: 0.0, TypeError, "must be a tensor, got float"),
    "negative birth": ("born", lambda b: -1, ValueError, "must be in [0"),
    "birth of float": ("born", lambda b: 0.5, TypeError, "must be an int"),
}


@pytest.mark.parametrize("case", BAD_STATES)
@pytest.mark.parametrize("sampler", [AdamSGLD, SGHMC, SGNHT, BAOAB])
def test_state_that_does_not_fit(sampler, case):
    name, change, error, *words = BAD_STATES[case]
    params = make(30, 4)
    made = sampler(params, seed=0)
    made.step()
    made.state[params[1]][name] = change(made.state[params[1]][name])
    with refuses(error, f"{name}[1]", *words, sampler=made, watch=params):
        made.step()


def test_steps_before_the_birth_of_state():
    a, b = make(3, 4)
    sampler = SGHMC([a], seed=0)
    sampler.step()
    sampler.add_param_group({"params": [b]})
    sampler.step()
    for group in sampler.param_groups:
        group["step"] = 0
    with refuses(ValueError, "step must be at least 1", "got 0", sampler=sampler, watch=[a, b]):
        sampler.step()


@pytest.mark.parametrize("fault", ["gradient", "generator", "mask"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_first_step_that_is_refused_leaves_no_state(sampler, fault):
    params = make(30, 4)
    made = sampler(params)
    before = str(made.state_dict())
    options = {}
    if fault == "gradient":
        params[1].grad = params[1].grad.to_sparse()
    elif fault == "generator":
        options["noise_generator"] = 3
    else:
        made.param_groups[0]["mask"] = [None, torch.ones(4)]
    with refuses((TypeError, RuntimeError), sampler=made, watch=params):
        made.step(**options)
    made.param_groups[0]["mask"] = None
    assert str(made.state_dict()) == before
