"""The acceptance probability of many chains at once, against that of single steps."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fastllc import SGHMC, SGLD, default_nbeta, mala_acceptance, sample
from fastllc.reference import philox
from fastllc.samplers.acceptance import (
    Energy,
    LogUniforms,
    Point,
    decide,
    log_acceptance,
    log_uniforms,
)
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


def test_there_and_back_are_each_other_s_reciprocal():
    """Detailed balance: pi(w) q(w'|w) min(1, r) is the same from w' to w if r' = 1/r."""
    generator = torch.Generator().manual_seed(3)

    def point():
        shapes = [(3, 5), (3, 2, 4)]
        parts = [
            [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
            for _ in range(2)
        ]
        return Point(torch.randn(3, generator=generator, dtype=torch.float64), *parts)

    def each(*values):
        return torch.tensor(values, dtype=torch.float64)

    w0 = torch.randn(5, generator=generator, dtype=torch.float64)
    energies = [
        Energy(
            each(0.1, 0.2, 0.3), each(1, 2, 3), each(0, 1, 2), each(1, 1.5, 0.5), w0[None], None
        ),
        Energy(
            each(0.1, 0.1, 0.1),
            each(0, 0, 0),
            each(0.5, 0.5, 0.5),
            each(1, 1, 1),
            None,
            torch.arange(8).view(2, 4) % 3 > 0,
        ),
    ]
    here, there, nbeta = point(), point(), each(1, 10, 100)
    forth = log_acceptance(here, there, nbeta, energies)
    back = log_acceptance(there, here, nbeta, energies)
    assert (forth.abs() > 0.1).all()
    torch.testing.assert_close(back, -forth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_uniforms_are_words_of_philox_at_an_address_of_their_own(key):
    """The radius of a Box-Muller pair is its first word: u = (word + 1/2) / 2^64."""
    steps = [0, 1, 255, 256, 2**32 - 1]
    words = philox(key, torch.tensor(steps), (2**24 - 1) << 40)
    for at, step in enumerate(steps):
        u = ((int(words[0][at]) << 32 | int(words[1][at])) + 0.5) / 2**64
        for found in (log_uniforms([key], step)[0, 0], LogUniforms([5, key]).at(step)[1]):
            assert found.item() == pytest.approx(math.log(u), rel=1e-13)


def test_uniforms_are_uniform_over_chains_and_steps():
    over_steps = log_uniforms([3], 0, 20_000)[0].exp()
    over_chains = log_uniforms(range(5000), 7)[:, 0].exp()
    for found in (over_steps, over_chains):
        n = len(found)
        middles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        # Kolmogorov and Smirnov's distance; 2 / sqrt(n) is exceeded once in 1500 times.
        assert (found.sort().values - middles).abs().max() < 2 / math.sqrt(n)
    lagged = torch.corrcoef(torch.stack([over_steps[1:], over_steps[:-1]]))[0, 1]
    assert abs(lagged) < 5 / math.sqrt(20_000)


def test_uniforms_do_not_depend_on_what_is_drawn_with_them():
    keys = [9, 2**63, 4]
    whole = log_uniforms(keys, 0, 600)
    ahead = LogUniforms(keys)
    for step in (0, 1, 255, 256, 511, 512, 3):  # forth and back
        assert torch.equal(ahead.at(step), whole[:, step])
        assert torch.equal(log_uniforms(keys[1:], step)[:, 0], whole[1:, step])


def test_what_metropolis_decides():
    nan, inf = math.nan, math.inf
    # The ratio, log u and the loss there; what follows.
    cases = [
        (0.0, -0.1, 1.0, 1.0, True),
        (3.0, -1e-9, 1.0, 1.0, True),
        (-1.0, -1.1, 1.0, math.exp(-1), True),
        (-1.0, -0.9, 1.0, math.exp(-1), False),
        (-1.0, -1.0, 1.0, math.exp(-1), False),
        (-inf, -50.0, 1.0, 0.0, False),
        (nan, -50.0, 1.0, 0.0, False),
        (inf, -0.1, 1.0, 1.0, True),
        (inf, -0.1, -inf, 0.0, False),
        (1.0, -0.1, nan, 0.0, False),
        (1.0, -0.1, inf, 0.0, False),
    ]
    log, log_u, losses, probabilities, verdicts = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*cases, strict=True)
    )
    found, accepted = decide(log, log_u, Point(losses, [], []))
    assert accepted.tolist() == verdicts.bool().tolist()
    torch.testing.assert_close(found, probabilities)


@pytest.mark.parametrize("spoilt", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("decay", [0.0, 1.0])
@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("slope", [-3.0, 0.0, 3.0, math.inf, -math.inf])
def test_no_weight_that_is_not_finite_is_accepted(spoilt, decay, anchored, slope):
    """Whatever loss and gradient are there."""
    one, zero = (torch.full((1,), x, dtype=torch.float64) for x in (1.0, 0.0))
    w0 = one[None] if anchored else None
    energy = Energy(one, one if anchored else zero, decay * one, one, w0, None)
    here = Point(one, [one[None]], [one[None]])
    there = Point(zero, [spoilt * one[None]], [torch.full((1, 1), slope, dtype=torch.float64)])
    log = log_acceptance(here, there, one, [energy])
    assert decide(log, zero - 50, there)[1].item() is False
