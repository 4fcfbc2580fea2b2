"""What is refused of anchors and state, and of memory that has changed between steps."""

import copy

import pytest
import torch

from fastllc import SGLD
from helpers import make
from refusals import refuses


@pytest.mark.parametrize("name", ["localization", "bounding_box_size"])
@pytest.mark.parametrize("group", [0, 1])
def test_an_anchor_that_was_never_kept(name, group):
    params = make(30, 4)
    sampler = SGLD([{"params": [p]} for p in params], seed=0)
    sampler.step()
    sampler.param_groups[group][name] = 1.0
    with refuses(ValueError, name, "anchor", sampler=sampler, watch=params):
        sampler.step()


def test_an_anchor_that_is_missing_from_a_loaded_state():
    """Not only of the first parameter of a group."""
    params = make(30, 4)
    sampler = SGLD(params, localization=1.0, seed=0)
    state = copy.deepcopy(sampler.state_dict())
    del state["state"][1]
    with refuses(ValueError, "anchor", sampler=sampler, watch=params):
        sampler.load_state_dict(state)
        sampler.step()


@pytest.mark.parametrize("settings", [{"localization": 1.0}, {"bounding_box_size": 1.0}])
def test_an_anchor_that_went_with_a_state_that_was_cleared(settings):
    params = make(30, 4)
    sampler = SGLD(params, seed=0, **settings)
    sampler.step()
    sampler.state.clear()
    for _ in range(2):
        with refuses(ValueError, "anchor", sampler=sampler, watch=params):
            sampler.step()


def test_an_anchor_of_another_shape_in_a_loaded_state():
    (param,), (other,) = make(30), make(4)
    sampler = SGLD([param], localization=1.0, seed=0)
    with refuses(ValueError, "(30,)", "(4,)", sampler=sampler, watch=[param]):
        sampler.load_state_dict(SGLD([other], localization=1.0, seed=0).state_dict())
        sampler.step()


def test_a_state_of_another_optimizer():
    (param,) = make(30)
    sampler = SGLD([param], seed=0)
    with refuses(ValueError, "noise_format", sampler=sampler, watch=[param]):
        sampler.load_state_dict(torch.optim.SGD([param], lr=0.1).state_dict())


def test_memory_that_was_taken_away(run_python):
    """Storage resized under a tensor, as sharding does: an exception, no access. Each in a fork."""
    script = """
import os, resource, torch
from fastllc import AdamSGLD
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
torch.set_num_threads(1)

def case(of, size, warm):  # size None: as it is
    p = torch.zeros(100_000).bfloat16()
    p.grad = torch.zeros_like(p)
    s = AdamSGLD([p], localization=1.0, seed=0, mask=torch.ones(100_000, dtype=torch.bool))
    if warm:
        s.step()
    if of in ("momentum", "square_avg", "residual") and not warm:
        return 0
    held = {"param": p, "grad": p.grad, "mask": s.param_groups[0]["mask"][0], **s.state[p]}
    tensor = held[of]
    if size is not None:
        tensor.untyped_storage().resize_(size)
    try:
        s.step()
    except (ValueError, RuntimeError) as error:
        return 0 if of in str(error) else 1
    return 2

assert case("param", None, True) == 2  # and what torch loads at a first step is loaded here
for of in ("param", "grad", "w0", "mask", "momentum", "square_avg", "residual"):
    for size in (0, 40):
        for warm in (False, True):
            child = os.fork()
            if not child:
                os._exit(case(of, size, warm))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                print(of, size, warm, {1: "no name", 2: "accepted"}.get(status, status))
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def twice_resized(p, sampler, of):
    """A storage made smaller twice: the allocator may give it its old address again."""
    tensor = {"param": p, "grad": p.grad, "anchor": sampler.state[p]["w0"]}[of]
    for size in (40, 36):
        tensor.untyped_storage().resize_(size)


@pytest.mark.parametrize("of", ["param", "grad", "anchor"])
def test_a_storage_that_shrinks_between_steps(of):
    first, faulty = make((40, 2), (50, 60))
    sampler = SGLD([first, faulty], localization=1.0, seed=0)
    sampler.step()
    sampler.step()
    twice_resized(faulty, sampler, of)
    with refuses(ValueError, "[1]", "36 bytes", sampler=sampler, watch=[first]):
        sampler.step()


def test_a_parameter_that_is_turned_round_in_place_and_back():
    """The copy that stood for it is gone when it is contiguous again."""
    (param,) = make((30, 30))
    sampler = SGLD([param], seed=0)
    for step in range(4):
        twin = param.detach().clone()
        twin.grad = param.grad.clone()
        other = SGLD([twin], seed=0)
        other.param_groups[0]["step"] = step
        sampler.step()
        other.step()
        assert torch.equal(param, twin)
        with torch.no_grad():
            param.t_()
            param.grad.t_()


def test_a_gradient_that_moves_into_a_parameter():
    first, second = make((40, 2), (40, 2))
    sampler = SGLD([first, second], seed=0)
    for _ in range(3):
        second.grad = torch.randn(40, 2)
        sampler.step()
    second.grad = first.data
    with refuses(ValueError, "params[1].grad", "share memory", sampler=sampler, watch=[second]):
        sampler.step()


def test_a_gradient_may_lie_where_a_parameter_was():
    first, second = make((40, 2), (40, 2))
    sampler = SGLD([first, second], seed=0)
    sampler.step()
    old = second.data
    second.data = old.clone()
    first.grad = old
    before = first.detach().clone()
    sampler.step()
    assert not torch.equal(first, before)
