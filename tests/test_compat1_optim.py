"""Samplers of devinterp 1: what a step does and tells, by the formulas of its documentation."""

import copy
import warnings
from itertools import chain

import numpy as np
import pytest
import torch
from torch import nn

import fastllc
from compat1 import QUIET
from fastllc.compat.devinterp1.optim import SGLD, SGMCMC, SGNHT
from fastllc.compat.devinterp1.optim.preconditioner import (
    CompositePreconditioner,
    IdentityPreconditioner,
    MaskPreconditioner,
    NHTPreconditioning,
    Preconditioner,
    PreconditionerCoefs,
    RMSpropPreconditioner,
)
from fastllc.compat.devinterp1.optim.prior import (
    CompositePrior,
    GaussianPrior,
    Prior,
    UniformPrior,
)

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore:nbeta set to 1"),
    pytest.mark.filterwarnings("ignore:noise_level other than 1"),
]

NAMES = ["noise_norm", "grad_norm", "weight_norm", "noise", "dws", "localization_loss", "distance"]
LR, NBETA, GAMMA, DECAY = 0.1, 3.0, 0.5, 0.3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(5, 3)


def walk(model, x, sampler, steps=3):
    torch.manual_seed(1)
    for _ in range(steps):
        sampler.zero_grad()
        model(x).square().mean().backward()
        sampler.step()


def told(sampler, name):
    """What a sampler tells under a name, one list for all of its groups."""
    if isinstance(sampler, SGMCMC):
        values = [group["metrics"][name] for group in sampler.param_groups]
        return list(chain(*values)) if isinstance(values[0], list) else values
    if name == "noise":
        return list(chain(*sampler.noise.values()))
    if name == "dws":
        return sampler.dws
    return [getattr(sampler, name)]


@pytest.mark.parametrize("box", [None, 0.05])
@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_sgld_of_either_name_is_the_fused_one_and_tells_the_same(box, decay):
    model, x = network()
    settings = {
        "lr": LR,
        "nbeta": NBETA,
        "localization": GAMMA,
        "weight_decay": decay,
        "bounding_box_size": box,
    }
    models = [copy.deepcopy(model) for _ in range(3)]
    old = SGLD(models[0].parameters(), **settings, metrics=NAMES)
    new = SGMCMC.sgld(models[1].parameters(), **settings, metrics=NAMES)
    plain = fastllc.SGLD(models[2].parameters(), **settings)
    for each, sampler in zip(models, (old, new, plain), strict=True):
        walk(each, x, sampler)
    for a, b, c in zip(*(each.parameters() for each in models), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, c)
    for name in NAMES:
        for a, b in zip(told(old, name), told(new, name), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("make", [SGLD, SGMCMC.sgld])
def test_a_step_is_what_it_tells(make):
    model, x = network()
    start = [p.detach().clone() for p in model.parameters()]
    sampler = make(
        model.parameters(),
        lr=LR,
        nbeta=NBETA,
        localization=GAMMA,
        weight_decay=DECAY,
        noise_level=0.5,
        metrics=NAMES,
    )
    walk(model, x, sampler)
    before = [p.detach().clone() for p in model.parameters()]
    sampler.zero_grad()
    model(x).square().mean().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    sampler.step()
    after = [p.detach() for p in model.parameters()]
    drifts = [
        NBETA * g + GAMMA * (w - w0) + DECAY * w
        for g, w, w0 in zip(grads, before, start, strict=True)
    ]
    for found, wanted in zip(told(sampler, "dws"), drifts, strict=True):
        torch.testing.assert_close(found, wanted)
    for w, w_new, drift, noise in zip(before, after, drifts, told(sampler, "noise"), strict=True):
        torch.testing.assert_close(w_new, w - LR / 2 * drift + LR**0.5 * noise)
    away = sum((w - w0).square().sum() for w, w0 in zip(before, start, strict=True))
    wanted = {
        "distance": away**0.5,
        "localization_loss": GAMMA / 2 * away,
        "grad_norm": LR / 2 * NBETA * sum(g.square().sum() for g in grads) ** 0.5,
        "weight_norm": sum(w.square().sum() for w in after) ** 0.5,
        "noise_norm": sum(z.square().sum() for z in told(sampler, "noise")) ** 0.5,
    }
    for name, value in wanted.items():
        torch.testing.assert_close(told(sampler, name)[0], value)
        torch.testing.assert_close(torch.as_tensor(getattr(sampler, name)), value)


def test_the_distance_of_sgld_alone_is_times_localization():
    w = nn.Parameter(torch.zeros(2))
    sampler = SGLD([w], lr=LR, nbeta=NBETA, localization=GAMMA, distance=True)
    w.grad = torch.zeros(2)
    sampler.step()
    moved = w.detach().norm()
    sampler.step()
    torch.testing.assert_close(sampler.distance, GAMMA * moved)
    with pytest.raises(AttributeError, match="noise_norm"):
        _ = sampler.noise_norm


@pytest.mark.parametrize("make", [SGLD, SGMCMC])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64])
def test_weights_that_are_not_optimized_over_stay(make, kind):
    model, x = network()
    masks = [torch.arange(p.numel()).view(p.shape) % 2 for p in model.parameters()]
    start = [p.detach().clone() for p in model.parameters()]
    groups = [
        {"params": [p], "optimize_over": mask.to(kind)}
        for p, mask in zip(model.parameters(), masks, strict=True)
    ]
    sampler = make(groups, lr=LR, nbeta=NBETA, localization=GAMMA, metrics=["noise_norm"])
    walk(model, x, sampler)
    for p, w0, mask in zip(model.parameters(), start, masks, strict=True):
        assert torch.equal(p == w0, mask == 0)


def test_a_mask_of_one_element_is_for_all():
    model, x = network()
    over = [torch.tensor([i % 2]) for i, _ in enumerate(model.parameters())]
    sampler = SGMCMC.sgld(model.parameters(), lr=LR, nbeta=NBETA, optimize_over=over)
    start = [p.detach().clone() for p in model.parameters()]
    walk(model, x, sampler)
    for i, (p, w0) in enumerate(zip(model.parameters(), start, strict=True)):
        assert torch.equal(p, w0) == (i % 2 == 0)
    with pytest.raises(ValueError, match="optimize_over"):
        SGMCMC.sgld([nn.Parameter(torch.zeros(1))], optimize_over=torch.tensor([0.5]))


def test_rmsprop_is_the_fused_one_and_tells_its_drift():
    model, x = network()
    other = copy.deepcopy(model)
    settings = {"lr": LR, "nbeta": NBETA, "localization": GAMMA, "weight_decay": DECAY}
    own = SGMCMC.rmsprop_sgld(model.parameters(), **settings, alpha=0.9, metrics=["dws", "noise"])
    plain = fastllc.RMSpropSGLD(
        other.parameters(), **settings, alpha=0.9, eps=0.1, convention="devinterp"
    )
    walk(model, x, own)
    walk(other, x, plain)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    before = [p.detach().clone() for p in model.parameters()]
    own.zero_grad()
    model(x).square().mean().backward()
    own.step()
    for p, w, dw, z in zip(model.parameters(), before, own.dws, own.noise, strict=True):
        metric = 1 / (own.state[p]["square_avg"].sqrt() + 0.1)
        torch.testing.assert_close(p.detach(), w - LR / 2 * dw + (LR * metric).sqrt() * z)


def test_rmsprop_whose_mean_square_stays_zero_is_sgld():
    model, x = network()
    other = copy.deepcopy(model)
    settings = {"lr": LR, "nbeta": NBETA, "localization": GAMMA}
    walk(model, x, SGMCMC.rmsprop_sgld(model.parameters(), **settings, alpha=1.0, eps=1.0))
    walk(other, x, fastllc.SGLD(other.parameters(), **settings))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("make", [SGNHT, SGMCMC.sgnht])
@pytest.mark.parametrize("factor", [0.0, 0.01])
def test_the_thermostat_has_a_momentum(make, factor):
    model, x = network()
    sampler = make(model.parameters(), lr=1e-3, diffusion_factor=factor, nbeta=NBETA)
    walk(model, x, sampler, steps=1)
    before = [p.detach().clone() for p in model.parameters()]
    momenta = [sampler.state[p]["momentum"].clone() for p in model.parameters()]
    assert all(m.abs().sum() > 0 for m in momenta)
    xi = sampler.param_groups[0]["thermostat"]
    d = sum(m.numel() for m in momenta)
    assert xi == pytest.approx(factor + sum(m.square().sum().item() for m in momenta) / d - 1e-3)
    walk(model, x, sampler, steps=1)
    for p, w in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), w + sampler.state[p]["momentum"])


def test_priors_are_one_pull():
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    there = torch.tensor([3.0, 0.0])
    prior = CompositePrior(
        [GaussianPrior(1.0), GaussianPrior(3.0, center=[there]), GaussianPrior(2.0, center=None)]
    )
    sampler = SGMCMC([w], lr=LR, noise_level=0.0, nbeta=NBETA, prior=prior, weight_decay=0.5)
    w0 = w.detach().clone()
    for _ in range(2):
        before = w.detach().clone()
        w.grad = torch.ones(2)
        sampler.step()
        drift = NBETA + (before - w0) + 3 * (before - there) + 2.5 * before
        torch.testing.assert_close(w.detach(), before - LR / 2 * drift)
        grad = prior.grad(before, sampler.state[w])
        torch.testing.assert_close(grad, drift - NBETA - 0.5 * before)


class Quartic(Prior):
    """Minus its log is s |w|^4 / 4, with the scale s of each parameter in its state."""

    def initialize(self, params):
        return {param: {"scale": 1.0 + i} for i, param in enumerate(params)}

    def grad(self, param, state):
        assert not torch.is_grad_enabled()
        return state["scale"] * param**3


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_prior_of_ones_own_adds_its_gradient(with_closure):
    params = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([-1.0]))]
    grads = [torch.tensor([3.0, 4.0]), torch.tensor([2.0])]
    prior = CompositePrior([GaussianPrior(GAMMA, center=None), Quartic(), GaussianPrior(2.0)])
    over = [torch.tensor([1, 0]), torch.tensor([1])]
    sampler = SGMCMC(
        params,
        lr=0.01,
        noise_level=0.0,
        nbeta=NBETA,
        prior=prior,
        weight_decay=DECAY,
        optimize_over=over,
        metrics=["dws", "grad_norm"],
    )
    w0 = [p.detach().clone() for p in params]

    def closure():
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad

    for _ in range(2):
        before = [p.detach().clone() for p in params]
        closure()
        sampler.step(closure if with_closure else None)
        for i, param in enumerate(params):
            w = before[i]
            drift = NBETA * grads[i] + (GAMMA + DECAY) * w + (1 + i) * w**3 + 2 * (w - w0[i])
            drift = drift * over[i]
            torch.testing.assert_close(param.detach(), w - 0.005 * drift)
            torch.testing.assert_close(sampler.metrics["dws"][i], drift)
            assert param.grad is grads[i]
        # Of the loss alone: |(3, 4, 2)|.
        assert sampler.grad_norm.item() == pytest.approx(0.005 * NBETA * 29**0.5)
    assert [grad.tolist() for grad in grads] == [[3.0, 4.0], [2.0]]


@pytest.mark.parametrize("preconditioner", [IdentityPreconditioner(), NHTPreconditioning(0.1)])
def test_a_gaussian_of_ones_own_is_the_gaussian(preconditioner):
    """Also as a subclass of the one that the fused step knows, with its gradient replaced."""

    class Mine(GaussianPrior):
        def grad(self, param, state):
            return 2.0 * param

    weights = []
    for prior in (Mine(100.0), GaussianPrior(2.0, center=None)):
        model, x = network()
        sampler = SGMCMC(
            model.parameters(), lr=LR, nbeta=NBETA, prior=prior, preconditioner=preconditioner
        )
        walk(model, x, sampler)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])


def test_a_prior_of_ones_own_needs_a_temperature():
    w, grad = nn.Parameter(torch.ones(2)), torch.ones(2)
    sampler = SGMCMC([w], nbeta=0.0, prior=Quartic())
    w.grad = grad
    with pytest.raises(ValueError, match="nbeta must be > 0"):
        sampler.step()
    assert w.grad is grad
    assert w.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("given", "gamma", "decay"),
    [
        ({}, 0.0, 0.0),
        ({"localization": 2.0}, 2.0, 0.0),
        ({"prior": "initial"}, 1.0, 0.0),
        ({"prior": 2}, 2.0, 0.0),
        ({"prior": 2, "prior_kwargs": {"center": None}}, 0.0, 2.0),
        ({"prior": [torch.ones(2)], "localization": 2.0}, 2.0, 0.0),
        ({"prior": UniformPrior()}, 0.0, 0.0),
    ],
)
def test_what_a_prior_may_be(given, gamma, decay):
    sampler = SGMCMC([nn.Parameter(torch.zeros(2))], **given)
    assert sampler.param_groups[0]["localization"] == gamma
    assert sampler.param_groups[0]["weight_decay"] == decay


def test_what_is_refused():
    params = [nn.Parameter(torch.zeros(2))]

    class Own(Prior, Preconditioner):
        def initialize(self, params):
            return {}

        def grad(self, param, state):
            return param

        def get_coefficients(self, param, grad, state):
            return PreconditionerCoefs(1.0, 1.0, 1.0, 1.0)

    for make in (SGLD, SGMCMC.sgld, SGNHT):
        with pytest.raises(ValueError, match="Invalid metrics"):
            make(params, metrics=["speed"])
    with pytest.raises(NotImplementedError, match="prior"):
        SGMCMC(params, prior=Own(), preconditioner="rmsprop")
    with pytest.raises(NotImplementedError, match="preconditioner"):
        SGMCMC(params, preconditioner=Own())
    with pytest.raises(NotImplementedError, match="weight_decay"):
        SGMCMC(params, preconditioner="rmsprop", weight_decay=1.0)
    with pytest.raises(NotImplementedError, match="bounding_box_size"):
        SGMCMC(params, prior=[torch.ones(2)], bounding_box_size=1.0)
    with pytest.raises(NotImplementedError, match="add_grad_correction"):
        SGMCMC.rmsprop_sgld(params, add_grad_correction=True)
    with pytest.raises(ValueError, match="preconditioner"):
        SGMCMC(params, preconditioner="adam")
    with pytest.raises(ValueError, match="prior"):
        SGMCMC(params, prior=object())
    with pytest.raises(ValueError, match="method"):
        SGMCMC.get_method("hmc")
    with pytest.raises(NotImplementedError, match="box_size"):
        UniformPrior(1.0)
    with pytest.raises(ValueError, match="shape"):
        SGMCMC(params, prior=[torch.ones(3)])


def test_kinds_attributes_and_warnings():
    w = nn.Parameter(torch.zeros(2))
    sampler = SGMCMC.get_method("rmsprop_sgld")([w], nbeta=2.0, metrics=["grad_norm"])
    assert isinstance(sampler, SGMCMC)
    assert sampler.tracked_metrics == {"grad_norm"}
    assert sampler.alpha == 0.99
    assert sampler.device == w.device
    assert [p is w for p in sampler.get_params()] == [True]
    assert isinstance(sampler.param_groups[0]["preconditioner"], RMSpropPreconditioner)
    assert SGMCMC.sgld([w], nbeta=2.0, bounding_box_size=1.0).state[w]["initial_param"].equal(w)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for make in (SGLD, SGNHT, SGMCMC.sgld, SGMCMC.sgnht, SGMCMC.rmsprop_sgld):
            with pytest.raises(UserWarning, match="nbeta set to 1"):
                make([w])
        for make in (SGLD, SGMCMC.sgld, SGMCMC.rmsprop_sgld):
            with pytest.raises(UserWarning, match="noise_level"):
                make([w], nbeta=2.0, noise_level=2.0)
        with pytest.raises(UserWarning, match="Temperature"):
            SGLD([w], temperature=2.0)
        for flag in ("save_noise", "save_mala_vars"):
            with pytest.raises(UserWarning, match="SGNHT"):
                SGNHT([w], nbeta=2.0, **{flag: True})


def test_samplers_are_copied_and_resumed():
    model, x = network()
    make = lambda of: SGMCMC.sgld(  # noqa: E731
        of.parameters(), lr=LR, nbeta=NBETA, localization=GAMMA, weight_decay=DECAY
    )
    sampler = make(model)
    walk(model, x, sampler)
    other = copy.deepcopy(model)
    resumed = make(other)
    resumed.load_state_dict(copy.deepcopy(sampler.state_dict()))
    again, moved = copy.deepcopy((sampler, model))
    for each, own in ((model, sampler), (other, resumed), (moved, again)):
        walk(each, x, own)
    for a, b, c in zip(*(m.parameters() for m in (model, other, moved)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_mala_of_several_groups_is_told_of_all():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    names = ["dws", "localization_loss"]
    sampler = SGMCMC([{"params": [a]}, {"params": [b]}], localization=2.0, metrics=names)
    with torch.no_grad():
        a.add_(1.0)
        b.add_(2.0)
    a.grad, b.grad = torch.zeros(2), torch.zeros(3)
    sampler.step()
    assert [dw.tolist() for dw in sampler.dws] == [[2.0] * 2, [4.0] * 3]
    assert sampler.localization_loss.item() == 2.0 + 12.0


@pytest.mark.parametrize("make", [SGLD, SGMCMC.sgld])
def test_the_noise_that_is_told_is_that_of_a_noise_generator_too(make):
    w = nn.Parameter(torch.zeros(5))
    sampler = make([w], lr=0.25, nbeta=2.0, metrics=["noise"])
    generator = torch.Generator().manual_seed(0)
    for given in (generator, None, generator, None):
        before = w.detach().clone()
        w.grad = torch.zeros(5)
        sampler.step(noise_generator=given)
        torch.testing.assert_close(w - before, 0.5 * told(sampler, "noise")[0])


@pytest.mark.parametrize("make", [SGLD, SGMCMC.sgld])
def test_named_parameters_are_masked(make):
    model, x = network()
    over = [torch.zeros_like(p) for p in model.parameters()]
    over[0][0] = 1.0
    before = [p.detach().clone() for p in model.parameters()]
    walk(model, x, make(model.named_parameters(), lr=LR, nbeta=NBETA, optimize_over=over))
    for a, b, mask in zip(before, model.parameters(), over, strict=True):
        assert torch.equal(a != b, mask.bool())


def test_arguments_by_place_and_metrics_that_are_reset():
    w = nn.Parameter(torch.ones(2))
    given = (
        0.01,
        0.0,
        2.0,
        "initial",
        None,
        1.0,
        "rmsprop",
        {"alpha": 0.5},
        0.3,
        None,
        ["grad_norm"],
    )
    sampler = SGMCMC([w], *given)
    group = sampler.param_groups[0]
    assert isinstance(sampler, fastllc.RMSpropSGLD)
    assert (group["alpha"], group["localization"], group["bounding_box_size"]) == (0.5, 1.0, 0.3)
    w.grad = torch.ones(2)
    sampler.step()
    assert sampler.grad_norm > 0
    sampler.reset_metrics()
    assert sampler.grad_norm == 0


def test_preconditioners_say_their_factors():
    grad, state = torch.tensor([3.0]), {}
    found = RMSpropPreconditioner(alpha=0.5, eps=1.0).get_coefficients(grad, grad, state)
    assert found.grad_coef.item() == pytest.approx(1 / (4.5**0.5 + 1))
    assert found.noise_coef.item() == pytest.approx(found.prior_coef.item() ** 0.5)
    state = {}
    found = NHTPreconditioning(0.02).get_coefficients(grad, grad, state)
    m = state["momentum"]
    torch.testing.assert_close(found.grad_correction, -0.02 * m)
    torch.testing.assert_close(state["thermostat"], 0.02 + m.square().mean() - 1)
    assert found.noise_coef.item() == pytest.approx(0.2)
    mask = MaskPreconditioner([torch.tensor([0.0, 1.0])])
    both = CompositePreconditioner([RMSpropPreconditioner(eps=1.0), mask])
    found = both.get_coefficients(grad.expand(2), torch.zeros(2), {"param_idx": 0})
    assert found.overall_coef.tolist() == [0.0, 1.0]
    assert found.grad_coef.tolist() == [1.0, 1.0]
    assert isinstance(CompositePreconditioner([IdentityPreconditioner()]), IdentityPreconditioner)
    assert CompositePreconditioner([IdentityPreconditioner(), mask]) is mask
    with pytest.raises(ValueError, match="param_idx"):
        mask.get_coefficients(grad, grad, {})
    one = PreconditionerCoefs(2.0, 3.0, 4.0, 5.0, 1.0)
    assert PreconditionerCoefs.combine(one, one) == (4.0, 9.0, 16.0, 25.0, 2.0)
    assert one.combine_with(one._replace(grad_correction=None)).grad_correction == 1.0


def test_composite_priors_keep_a_center_each():
    w = torch.tensor([1.0, 2.0])
    first, last = GaussianPrior(1.0, center=[torch.zeros(2)]), GaussianPrior(2.0, center=None)
    both = CompositePrior([first, last])
    assert (first.key, last.key) == ("prior_center_0", "prior_center_1")
    state = both.initialize([w])[w]
    assert state["prior_center_0"].tolist() == [0.0, 0.0]
    assert state["prior_center_1"] is None
    assert both.grad(w, state).tolist() == [3.0, 6.0]
    assert both.distance_sq(w, state).item() == 5.0
    assert both.localization == 2.0
    assert isinstance(CompositePrior([]), UniformPrior)
    assert CompositePrior([UniformPrior(), first]) is first
    assert copy.deepcopy(both).localization == 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "wanted"), [(SGLD, 0.5), (SGMCMC.sgld, 0.5), (SGNHT, 0.5), (SGMCMC.sgnht, 0.5)]
)
def test_quadratics_have_a_coefficient_of_one_half(make, wanted):
    """E[nbeta w^2 / 2] = 1/2 for each of d weights; SGNHT's friction takes 0.5 % of it."""
    w = nn.Parameter(torch.zeros(20_000))
    torch.manual_seed(3)
    sampler = make([w], lr=1e-4, nbeta=100.0)
    found = []
    for step in range(1500):
        w.grad = w.detach().clone()
        sampler.step()
        if step >= 500:
            found.append(50 * w.detach().square().mean().item())
    # The variance of w^2 of a Gaussian is 2: over d weights, and at least one independent draw.
    assert np.mean(found) == pytest.approx(wanted, abs=0.5 * 4 * (2 / 20_000) ** 0.5 + 0.005)
