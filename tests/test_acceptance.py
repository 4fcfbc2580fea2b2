"""The acceptance probability of many chains at once, against that of single steps."""

import numpy as np
import pytest
import torch
from torch import nn

from fastllc import SGHMC, SGLD, default_nbeta, mala_acceptance, sample
from fastllc.seeds import chain_key

SETTINGS = {
    "lr": 3e-3,
    "localization": 5.0,
    "weight_decay": 0.5,
    "num_chains": 3,
    "num_draws": 6,
    "num_burnin_steps": 1,
    "num_steps_bw_draws": 2,
    "seed": 1,
    "progress": False,
    "save_acceptance": True,
}


def problem(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype)
    return model, (x.to(dtype), x.square().sum(1, keepdim=True).to(dtype))


def by_hand(model, data, **changed):
    """The full-batch chain in a loop of one's own."""
    found = []
    for chain in range(3):
        params = [p.detach().clone().requires_grad_() for p in model.parameters()]
        names = [name for name, _ in model.named_parameters()]
        sampler = SGLD(
            params,
            lr=3e-3,
            nbeta=default_nbeta(64),
            localization=5.0,
            weight_decay=0.5,
            seed=chain_key(1, chain),
            **changed,
        )

        def closure(sampler=sampler, names=names, params=params):
            sampler.zero_grad()
            weights = dict(zip(names, params, strict=True))
            outputs = torch.func.functional_call(model, weights, (data[0],))
            loss = nn.functional.mse_loss(outputs, data[1])
            loss.backward()
            return loss

        found.append([mala_acceptance(sampler, closure)[1] for _ in range(13)][2::2])
    return np.array(found)


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_draw_tells_what_a_single_step_would(engine, masked):
    model, data = problem(torch.float64)
    masks = {"0.weight": torch.arange(20).view(4, 5) % 3 == 0} if masked else None
    found = sample(model, data, nn.functional.mse_loss, engine=engine, mask=masks, **SETTINGS)[
        "metrics"
    ]["mala_acceptance"]
    names = [name for name, _ in model.named_parameters()]
    per_param = [masks.get(name) for name in names] if masks else None
    expected = by_hand(model, data, mask=per_param)
    assert found.dims == ("chain", "draw")
    assert found.shape == (3, 6)
    assert 0 < expected.min() < 0.999
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_settings_of_a_grid_have_their_own():
    model, data = problem()
    grid = sample(model, data, nn.functional.mse_loss, **SETTINGS | {"lr": [1e-4, 1e-2]})[
        "metrics"
    ]["mala_acceptance"]
    means = grid.mean(["chain", "draw"])
    assert means[0] > 0.97 > means[1] > 0


def test_asking_does_not_change_the_chain():
    model, data = problem()
    traces = [
        sample(model, data, nn.functional.mse_loss, **SETTINGS | {"save_acceptance": asked})
        for asked in (True, False)
    ]
    np.testing.assert_array_equal(*(trace["steps"]["loss"] for trace in traces))
    assert "metrics" not in traces[1].children


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"sampler": SGHMC}, TypeError, "needs an SGLD sampler, got SGHMC"),
        ({"bounding_box_size": 1.0}, ValueError, "bounding_box_size must be None"),
        ({"noise_level": 0.0}, ValueError, "noise_level must be > 0"),
    ],
)
def test_what_is_no_step_of_mala_is_refused(engine, changed, error, message):
    model, data = problem()
    with pytest.raises(error, match=message):
        sample(model, data, nn.functional.mse_loss, **SETTINGS | changed | {"engine": engine})
