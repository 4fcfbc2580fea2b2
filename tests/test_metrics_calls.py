"""When get_metrics has something to return, and that it is the caller's."""

import pytest
import torch

from fastllc import SGLD
from helpers import DTYPES, make

SHAPES = [(300, 70), (5,), (), (0,), (257,), (16385,)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [{}, {"localization": 2.0}, {"weight_decay": 0.5}, {"bounding_box_size": 0.1},
     {"localization": 2.0, "weight_decay": 0.5, "noise_level": 0.5}],
    ids=str,
)  # fmt: skip
def test_weights_are_the_same_with_and_without(dtype, options):
    a, b = make(*SHAPES, dtype=dtype), make(*SHAPES, dtype=dtype)
    for params, save in ((a, True), (b, False)):
        sampler = SGLD(params, lr=0.1, save_metrics=save, seed=2, **options)
        for _ in range(3):
            sampler.step()
    for p, q in zip(a, b, strict=True):
        assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()


def test_weights_far_away_are_the_same_with_and_without():
    """Where w - w0 overflows, a localization of zero must still pull by zero."""
    results = []
    for save in (True, False):
        param = torch.full((300,), 3e38)
        sampler = SGLD([param], save_metrics=save, seed=2)
        param.neg_()
        param.grad = torch.zeros(300)
        sampler.step()
        results.append(param)
    assert torch.equal(*results)
    assert (results[1] < -2.9e38).all()


def test_results_do_not_change_under_the_caller():
    sampler = SGLD(make(*SHAPES), localization=1.0, save_metrics=True, seed=5)
    sampler.step()
    first = sampler.get_metrics()
    copies = [x.item() for x in first]
    sampler.step()
    assert [x.item() for x in first] == copies
    assert [x.item() for x in sampler.get_metrics()] != copies


def test_errors_before_there_is_anything():
    (param,) = make((3,))
    with pytest.raises(RuntimeError, match="save_metrics"):
        SGLD([param]).get_metrics()
    sampler = SGLD([param], save_metrics=True, seed=0)
    with pytest.raises(RuntimeError, match="step"):
        sampler.get_metrics()
    param.grad = None
    sampler.step()
    with pytest.raises(RuntimeError, match="gradients"):
        sampler.get_metrics()
    plain = SGLD([param], seed=0)
    plain.step()
    with pytest.raises(RuntimeError, match="save_metrics"):
        plain.get_metrics()


def test_loading_a_state_forgets_the_metrics():
    sampler = SGLD(make(*SHAPES), save_metrics=True, seed=0)
    sampler.step()
    sampler.load_state_dict(sampler.state_dict())
    with pytest.raises(RuntimeError, match="step"):
        sampler.get_metrics()


def test_a_group_added_after_the_step_does_not_disturb_its_metrics():
    first, second = make((30,), (4,))
    sampler = SGLD([first], save_metrics=True, seed=0)
    sampler.step()
    before = sampler.get_metrics()
    sampler.add_param_group({"params": [second]})
    try:
        after = sampler.get_metrics()
    except RuntimeError:  # forgotten is fine too
        return
    assert after == before


def test_metrics_switched_on_later():
    """Without an anchor there is no distance: an error, or the true one, but no silent zero."""
    (param,) = make((30,), dtype=torch.float64)
    w0 = param.detach().clone()
    sampler = SGLD([param], seed=0)
    sampler.step()
    sampler.param_groups[0]["save_metrics"] = True
    before = param.detach().clone()
    refused = None
    try:
        sampler.step()
    except ValueError as error:
        refused = str(error)
    if refused:
        assert "save_metrics" in refused
        assert torch.equal(param, before)
    else:
        distance = (before - w0).norm().item()
        assert sampler.get_metrics().distance.item() == pytest.approx(distance)
