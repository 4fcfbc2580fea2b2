"""The laws that SGHMC and SGNHT settle to, step size included."""

import math

import numpy as np
import pytest
import torch

import laws
from fastllc import SGHMC, SGLD, SGNHT
from laws import SIGMAS, chains, check_normal, linear_law, run

one_thread = laws.one_thread


@pytest.mark.parametrize("friction", [0.05, 0.3, 1.0])
def test_friction_on_an_anisotropic_quadratic(friction):
    """L = h/2 (w - c)^2 with localization around w0 is a linear map of (w, m).

    With a = nb h + gamma, s = a eps/2, f = 1 - alpha, r^2 = alpha eps sigma^2 and v = w - mean:
    m' = f m - s v + r z, v' = v + m'. So v' = (1 + f - s) v - f v_before + r z, an AR(2) process,
    whose variance is

        var w = sigma^2 / (a (1 - eps a / (4 (2 - alpha)))),   var m = 2 s / (2 - alpha) var w:

    exact for small steps at every friction, stable iff eps a < 4 (2 - alpha), and with alpha = 1
    SGLD's formula.
    """
    lr, nbeta, gamma, minimum, anchor, sigma = 0.1, 10.0, 4.0, 0.7, -0.3, 0.8
    stiffness, n = [0.4, 1.2, 2.4], 20_000
    h = chains(stiffness, n)
    param = torch.full_like(h, anchor)
    sampler = SGHMC(
        [param],
        lr=lr,
        friction=friction,
        nbeta=nbeta,
        localization=gamma,
        noise_level=sigma,
        seed=31,
    )
    run(param, lambda w: h * (w - minimum), sampler, round(12 / -math.log(1 - friction / 2)))
    momentum = sampler.state[param]["momentum"]
    for w, m, hi in zip(param.view(3, n), momentum.view(3, n), stiffness, strict=True):
        a, f = nbeta * hi + gamma, 1 - friction
        s, r = lr * a / 2, math.sqrt(friction * lr) * sigma
        shift = lr / 2 * (nbeta * hi * minimum + gamma * anchor)
        mean, covariance = linear_law([[1 - s, f], [-s, f]], [shift, shift], [r, r])
        variance = sigma**2 / (a * (1 - lr * a / (4 * (2 - friction))))
        assert covariance[0, 0] == pytest.approx(variance, rel=1e-10)
        assert covariance[1, 1] == pytest.approx(2 * s / (2 - friction) * variance, rel=1e-10)
        check_normal(w, mean[0], covariance[0, 0])
        check_normal(m, 0.0, covariance[1, 1])
        found = torch.corrcoef(torch.stack([w, m]))[0, 1].item()
        rho = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
        assert abs(found - rho) <= SIGMAS * (1 - rho**2) / math.sqrt(n)
        if lr * a > 1:  # the bias of the step size is seen
            assert abs(w.double().var().item() * a / sigma**2 - 1) > SIGMAS * math.sqrt(2 / n)


def test_full_friction_is_sgld():
    """The same noise too: they differ by rounding, w + (-drift + noise) for (w - drift) + noise."""
    h = chains([0.5, 3.0], 500, torch.float64)
    params = [torch.ones_like(h), torch.ones_like(h)]
    settings = {"lr": 0.1, "nbeta": 2.0, "localization": 0.5, "weight_decay": 0.1, "seed": 3}
    for param, sampler in zip(
        params,
        (SGHMC(params[:1], friction=1.0, **settings), SGLD(params[1:], **settings)),
        strict=True,
    ):
        run(param, lambda w: h * w, sampler, 20)
    torch.testing.assert_close(*params, rtol=0, atol=1e-14)


def test_friction_explodes_just_beyond_its_stability_limit():
    """eps a < 4 (2 - alpha)."""
    a = chains([7.5, 7.7], 1000, torch.float64)
    param = torch.zeros_like(a)
    run(param, lambda w: a * w, SGHMC([param], lr=1.0, friction=0.1, seed=0), 500)
    stable, unstable = param.view(2, -1).square().mean(dim=1).tolist()
    variance = 1 / (7.5 * (1 - 7.5 / 7.6))  # 76 times the continuous one
    assert abs(stable / variance - 1) <= SIGMAS * math.sqrt(2 / 1000)
    assert unstable > 1e8


def thermostat_law(lr, diffusion, stiffness, heat=0.0):
    """xi and the variances of w and m that many chains under one thermostat settle to.

    Many chains hold xi still, which makes the map linear, SGHMC's with f = 1 - xi, s = a eps and
    r^2 = 2 A eps + heat: var m = 2 r^2 / (xi (2 (2 - xi) - s)), var w = var m (2 - xi) / (2 s).
    xi is where the mean of var m is eps. With small steps xi (2 - xi) = 2 A, and

        var w = (1 - xi / 2) / a:

    right for small xi alone. The virial identity says it for any L: see
    test_stationary_quartic.py.
    """
    s = lr * np.asarray(stiffness)

    def spread(xi):
        return 2 * (2 * diffusion * lr + heat) / (xi * (2 * (2 - xi) - s))

    low, high = 1e-9, 1.0
    for _ in range(60):
        xi = (low + high) / 2
        low, high = (xi, high) if spread(xi).mean() > lr else (low, xi)
    return xi, spread(xi) * (2 - xi) / (2 * s), spread(xi)


@pytest.mark.parametrize(("lr", "diffusion"), [(0.04, 0.2), (0.01, 0.1), (0.0025, 0.05)])
def test_the_thermostat_on_an_anisotropic_quadratic(lr, diffusion):
    """Against the exact law, and with A ~ sqrt(eps) that tends to the posterior like A/2.

    Exact gradients: the thermostat is A to first order, and its own law, N(xi, eps / d), is as
    narrow as Ding et al. say.
    """
    stiffness, n = [1.0, 4.0, 9.0], 20_000
    h = chains(stiffness, n)
    param = torch.zeros_like(h)
    sampler = SGNHT([param], lr=lr, diffusion_factor=diffusion, seed=17)
    run(param, lambda w: h * w, sampler, round(30 / diffusion))
    xi, spread_w, spread_m = thermostat_law(lr, diffusion, stiffness)
    momentum = sampler.state[param]["momentum"]
    for w, m, vw, vm in zip(param.view(3, n), momentum.view(3, n), spread_w, spread_m, strict=True):
        check_normal(w, 0.0, vw)
        check_normal(m, 0.0, vm)
    assert abs(sampler.thermostat - xi) <= SIGMAS * math.sqrt(lr / h.numel())
    assert 1 <= xi / diffusion <= 1 + diffusion + lr * max(stiffness) / 2
    np.testing.assert_allclose(
        spread_w * stiffness, 1 - diffusion / 2, atol=lr * max(stiffness) / 4
    )


def test_the_thermostat_takes_out_the_heat_of_noisy_gradients():
    """Gradient noise of variance t^2 adds (eps t)^2 to each kick: xi grows by about eps t^2 / 2.

    It would make SGHMC's chain hotter by 1 + eps t^2 / (2 A), here 3.5 times; here the variance
    stays 1/a but for the xi / 2 of any thermostat.
    """
    lr, diffusion, t, a, n = 0.01, 0.02, math.sqrt(10.0), 4.0, 40_000
    param = torch.zeros(n)
    sampler = SGNHT([param], lr=lr, diffusion_factor=diffusion, seed=23)
    generator = torch.Generator().manual_seed(5)
    run(param, lambda w: a * w + t * torch.randn(n, generator=generator), sampler, 600)
    xi, spread, _ = thermostat_law(lr, diffusion, [a], heat=(lr * t) ** 2)
    check_normal(param, 0.0, spread.item())
    assert xi == pytest.approx(diffusion + lr * t**2 / 2, rel=0.05)
    assert abs(sampler.thermostat - xi) <= SIGMAS * math.sqrt(lr / n)
    assert 0.95 < a * spread.item() < 1


def box_law(nbeta, box):
    """E[w^2] and the density at the wall, for exp(-nbeta w^2/2) on [-box, box]."""
    if nbeta == 0:
        return box**2 / 3, 1 / (2 * box)
    root = math.sqrt(nbeta)
    inside = math.erf(root * box / math.sqrt(2))
    wall = root * math.exp(-nbeta * box**2 / 2) / math.sqrt(2 * math.pi) / inside
    return (1 - 2 * box * wall) / nbeta, wall


@pytest.mark.parametrize("nbeta", [0.0, 2.0])
@pytest.mark.parametrize("name", ["SGHMC", "SGNHT"])
def test_walls_turn_the_momentum_round(name, nbeta):
    """The law is the posterior cut off at the walls, to first order in the size of a step.

    After an ideal reflection a weight that overshoots by u is u inside the wall, and the law is
    that of the posterior inside the box. Here it stops at the wall, and so comes home u / |m| of a
    step late, half a step in the mean: as if each reflection added half a step at the wall. The
    walls are hit with rate q = 2 p(wall) E[m+], E[m+] = sqrt(var m / (2 pi)), so that

        P(at a wall) = q,   E f = (1 - q/2) E_0 f + q/2 f(wall),

    each up to a share q. The second is for a flat posterior and weights that cross the box before
    friction stops them, up to a share 2 box alpha / sd(m): where forces and friction act, being
    late is also being elsewhere, which changes E f by the order of q.
    """
    box, n, alpha = 1.0, 100_000, 0.1 if nbeta else 0.005
    param = torch.zeros(n, dtype=torch.float64)  # float32 may round onto a wall
    settings = {"nbeta": nbeta, "bounding_box_size": box, "seed": 6}
    if name == "SGHMC":
        lr = 0.01
        sampler = SGHMC([param], lr=lr, friction=alpha, **settings)
        var_m, cold = lr / (2 - alpha), 1 - lr * nbeta / (4 * (2 - alpha))
    else:
        lr = 0.005
        sampler = SGNHT([param], lr=lr, diffusion_factor=alpha - alpha**2 / 2, **settings)
        var_m, cold = lr, 1 / (1 - alpha / 2)  # xi is alpha
    run(param, torch.clone, sampler, 2000)  # 0.995^2000 = 4e-5
    momentum = sampler.state[param]["momentum"]
    at_wall = param.abs() == box
    assert param.abs().max() == box  # and no further
    assert (momentum * param)[at_wall].max() < 0  # on its way back

    square, wall = box_law(nbeta * cold, box)
    hits = 2 * wall * math.sqrt(var_m / (2 * math.pi))
    error = math.sqrt(hits / n)
    assert abs(at_wall.double().mean().item() - hits) <= SIGMAS * error + hits**2
    squares = param.square()
    error = squares.std().item() / math.sqrt(n)
    found = squares.mean().item() - square
    if nbeta:
        assert abs(found) <= SIGMAS * error + hits
    else:
        first_order = (box**2 - square) * hits / 2
        unsure = hits + 2 * box * alpha / math.sqrt(var_m)
        assert abs(found - first_order) <= SIGMAS * error + first_order * unsure
        assert found > SIGMAS * error  # the stop at the wall is seen
    check_normal(momentum, 0.0, var_m)
    assert abs(param.mean().item()) <= SIGMAS * math.sqrt(square / n)
