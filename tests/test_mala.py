"""mala_acceptance, against Metropolis and Hastings' ratio in full and in closed form."""

import math

import pytest
import torch
from torch.distributions import Normal

import fastllc
from fastllc import SGLD, mala_acceptance


def quadratic(params, curvature, calls=None):
    """A closure of L = sum curvature/2 w^2."""

    def closure():
        for p in params:
            p.grad = None
        loss = sum(0.5 * curvature * p.double().square().sum() for p in params)
        loss.backward()
        if calls is not None:
            calls.append(loss.item())
        return loss

    return closure


def start(n=6, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, generator=generator, dtype=torch.float64).to(dtype)
    return w.requires_grad_()


@pytest.mark.parametrize("lr", [1e-3, 0.1, 0.8])
def test_a_quadratic_has_a_closed_form(lr):
    """With U = a/2 |w|^2 all that is left is exp(-lr a^2/8 (|w'|^2 - |w|^2))."""
    w = start()
    nbeta, curvature = 4.0, 0.7
    sampler = SGLD([w], lr=lr, nbeta=nbeta, seed=3)
    for _ in range(20):
        before = w.detach().clone()
        loss, probability = mala_acceptance(sampler, quadratic([w], curvature))
        assert loss.item() == pytest.approx(0.5 * curvature * before.square().sum().item())
        grown = (w.detach().square().sum() - before.square().sum()).item()
        exact = min(1.0, math.exp(-lr * (nbeta * curvature) ** 2 / 8 * grown))
        assert probability == pytest.approx(exact, rel=1e-12)


def test_every_term_against_the_densities():
    """Two groups, anchors, decay, a hotter noise and a mask, with the ratio written out."""
    first, second = start(5), start(4, seed=1)
    mask = torch.tensor([True, False, True, True, False])
    sampler = SGLD(
        [
            {"params": [first], "lr": 0.05, "localization": 2.0, "mask": mask},
            {"params": [second], "lr": 0.2, "weight_decay": 0.5, "noise_level": 1.5},
        ],
        nbeta=3.0,
        seed=7,
    )
    anchor = first.detach().clone()

    def cosine():
        loss = first.cos().sum() + (second.sin() * second).sum() + first.sum() * second.sum()
        sampler.zero_grad()
        loss.backward()
        return loss

    def energy_and_gradient():
        a, b = (x.detach().clone().requires_grad_() for x in (first, second))
        loss = a.cos().sum() + (b.sin() * b).sum() + a.sum() * b.sum()
        pull = 0.5 * 2.0 * (a - anchor).square().sum()
        energy = 3.0 * loss + pull + 0.5 * 0.5 * b.square().sum()
        return energy.item(), torch.autograd.grad(energy, [a, b])

    for _ in range(10):
        w = [p.detach().clone() for p in (first, second)]
        energy, drift = energy_and_gradient()
        _, probability = mala_acceptance(sampler, cosine)
        w_after = [p.detach().clone() for p in (first, second)]
        energy_after, drift_after = energy_and_gradient()
        log = energy - energy_after
        for i, (lr, sigma, on) in enumerate([(0.05, 1.0, mask), (0.2, 1.5, slice(None))]):
            scale = math.sqrt(lr) * sigma
            back = Normal(w_after[i] - lr / 2 * drift_after[i], scale).log_prob(w[i])
            forth = Normal(w[i] - lr / 2 * drift[i], scale).log_prob(w_after[i])
            log += (back - forth)[on].sum().item()
        assert probability == pytest.approx(min(1.0, math.exp(log)), rel=1e-10)
    assert torch.equal(first[~mask], anchor[~mask])


# mala_acceptance_probability of devinterp 1.3.2 for the steps of the test below: its
# gradients are those of the energy, and its losses the energies.
DEVINTERP = [
    0.9143463417092964,
    1.0,
    1.0,
    1.0,
    0.8104087408805909,
    1.0,
    0.043340241125142905,
    0.002519179575741249,
]


def test_devinterp_1_3_2_returns_the_same():
    w = start(3, seed=5)
    sampler = SGLD([w], lr=0.3, nbeta=2.0, localization=0.5, seed=1)

    def closure():
        sampler.zero_grad()
        loss = (w.square() * w + w.square().square()).sum()
        loss.backward()
        return loss

    found = [mala_acceptance(sampler, closure)[1] for _ in DEVINTERP]
    assert found == pytest.approx(DEVINTERP, rel=1e-12)


def test_small_steps_are_accepted():
    rates = []
    for lr in (1e-1, 1e-3, 1e-5):
        w = start(50)
        sampler = SGLD([w], lr=lr, nbeta=5.0, localization=1.0, seed=0)
        rates.append(1 - mala_acceptance(sampler, quadratic([w], 1.0))[1])
    # 1 - alpha falls at least like lr^(3/2)
    assert rates[1] < 1e-2
    assert rates[2] < 1e-4


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3, 1, 2)])
def test_tensors_of_any_shape_count(shape):
    """Beside others, against the same elements as one tensor."""
    w, other = start(), torch.ones(shape, dtype=torch.float64, requires_grad=True)
    both = [w, other]
    anchors = [p.detach().clone() for p in both]
    sampler = SGLD(both, lr=0.3, localization=0.5, seed=2)
    probabilities = []
    for _ in range(10):
        before = [p.detach().clone() for p in both]
        probabilities.append(mala_acceptance(sampler, quadratic(both, 1.0))[1])
        log = 0.0
        for w0, old, p in zip(anchors, before, both, strict=True):
            new = p.detach()
            drift, drift_after = (x + 0.5 * (x - w0) for x in (old, new))
            energy, energy_after = (0.5 * x**2 + 0.25 * (x - w0) ** 2 for x in (old, new))
            forth, back = new - old + 0.15 * drift, old - new + 0.15 * drift_after
            log += (energy - energy_after + (forth**2 - back**2) / 0.6).sum().item()
        assert probabilities[-1] == pytest.approx(min(1.0, math.exp(log)), rel=1e-12)
    assert min(probabilities) < 0.99


def test_a_huge_step_is_refused_and_a_nan_loss_is_nan():
    w = start()
    sampler = SGLD([w], lr=100.0, seed=0)
    assert mala_acceptance(sampler, quadratic([w], 10.0))[1] == 0.0

    def closure():
        w.grad = torch.zeros_like(w)
        return math.nan

    assert math.isnan(mala_acceptance(sampler, closure)[1])


def test_it_is_an_ordinary_step():
    a, b = start(), start()
    one, other = SGLD([a], lr=0.1, seed=2), SGLD([b], lr=0.1, seed=2)
    calls = []
    mala_acceptance(one, quadratic([a], 1.0, calls))
    other.step(quadratic([b], 1.0))
    assert torch.equal(a, b)
    assert len(calls) == 2
    assert one.param_groups[0]["step"] == 1
    assert torch.equal(a.grad, a)  # the gradient of the weights as they are now


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precisions_count_what_they_keep_beside(dtype):
    w = start(1000, dtype)
    sampler = SGLD([w], lr=1e-4, nbeta=1.0, seed=0)
    for _ in range(3):
        _, probability = mala_acceptance(sampler, quadratic([w], 1.0))
        assert probability > 0.98  # rounded weights would be off by many standard deviations


def test_parameters_without_gradients_do_not_count():
    w, still = start(), start()
    sampler = SGLD([w, still], lr=0.3, seed=0)
    alone = start()
    expected = mala_acceptance(SGLD([alone], lr=0.3, seed=0), quadratic([alone], 1.0))[1]
    assert mala_acceptance(sampler, quadratic([w], 1.0))[1] == expected


@pytest.mark.parametrize("rows", [torch.tensor([[True], [False]]), torch.tensor(True)])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("kind", [SGLD, fastllc.MALA])
def test_masks_that_are_set_between_steps_count_as_those_given_before(kind, rows, listed):
    def probabilities(mask, later):
        w = start(40_000).detach().view(2, -1).requires_grad_()
        sampler = kind([w], lr=0.05, seed=1, mask=mask)
        if later is not None:
            sampler.param_groups[0]["mask"] = [later] if listed else later
        if kind is SGLD:
            return [mala_acceptance(sampler, quadratic([w], 1.0))[1] for _ in range(3)]
        found = []
        for _ in range(3):
            sampler.step(quadratic([w], 1.0))
            found.append(sampler.acceptance_probability)
        return found

    assert probabilities(None, rows) == probabilities(rows, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: fastllc.SGHMC([w], lr=0.1),
        lambda w: fastllc.RMSpropSGLD([w], lr=0.1),
        lambda w: torch.optim.SGD([w], lr=0.1),
    ],
)
def test_other_samplers_are_refused(make):
    w = start()
    with pytest.raises(TypeError, match="needs an SGLD sampler"):
        mala_acceptance(make(w), quadratic([w], 1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_level": 0.0}, "noise_level must be > 0"),
        ({"bounding_box_size": 1.0}, "bounding_box_size must be None"),
    ],
)
def test_proposals_that_are_not_gaussian_are_refused(settings, message):
    w = start()
    before = w.detach().clone()
    with pytest.raises(ValueError, match=message):
        mala_acceptance(SGLD([w], lr=0.1, **settings), quadratic([w], 1.0))
    assert torch.equal(w, before)


def test_bad_use():
    w, other = start(), start()
    groups = [{"params": [w], "nbeta": 2.0}, {"params": [other], "nbeta": 3.0}]
    with pytest.raises(ValueError, match="nbeta must be the same in all groups"):
        mala_acceptance(SGLD(groups, lr=0.1), quadratic([w], 1.0))
    low = start(dtype=torch.bfloat16)
    with pytest.warns(fastllc.PrecisionWarning):
        sampler = SGLD([low], lr=1e-4, rounding="stochastic")
    with pytest.raises(ValueError, match="rounding must be 'exact'"):
        mala_acceptance(sampler, quadratic([low], 1.0))
    with pytest.raises(TypeError, match="closure must return the loss"):
        mala_acceptance(SGLD([w], lr=0.1), lambda: None)

    def forgetful(calls=[0]):  # noqa: B006
        calls[0] += 1
        w.grad = torch.zeros_like(w) if calls[0] == 1 else None
        return 1.0

    with pytest.raises(RuntimeError, match=r"no gradient for params\[0\]"):
        mala_acceptance(SGLD([w], lr=0.1), forgetful)
