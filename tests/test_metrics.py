"""What get_metrics returns, against its definition in float64."""

import copy
import math

import numpy as np
import pytest
import torch

from fastllc import BAOAB, SGLD, Metrics, standard_normal
from helpers import DTYPES, make

SHAPES = [(300, 70), (5,), (), (0,), (257,), (16385,)]
# csrc/moments.h: 16 (32) terms in a lane and 4 (3) levels of lanes in the working precision, then
# blocks and chunks in double, at most 70; and w - w0 and the products are rounded.
TOLERANCE = {torch.float32: 30 * 2.0**-24, torch.float64: 120 * 2.0**-53}


def exact(groups, anchors, *, key, step, ids):
    """The quantities by their definitions, nine of which are devinterp's, in numpy and float64.

    Components are concatenated over all parameters that moved, then normed.
    """
    grad, local, decay, noise, distance, weight, steep = [], [], [], [], [], [], []
    for group in groups:
        lr = float(group["lr"])
        for param in group["params"]:
            if param.grad is None:
                continue
            w = param.detach().double().numpy().ravel()
            g = param.grad.double().numpy().ravel()
            w0 = anchors[param].double().numpy().ravel()
            z = standard_normal(w.size, seed=key, step=step, param=ids[param], dtype=param.dtype)
            grad.append(lr / 2 * group["nbeta"] * g)
            local.append(lr / 2 * group["localization"] * (w - w0))
            decay.append(lr / 2 * group["weight_decay"] * w)
            noise.append(np.sqrt(lr) * group["noise_level"] * z.double().numpy())
            distance.append(w - w0)
            weight.append(w)
            steep.append(group["nbeta"] * g)
    grad, local, decay, noise, distance, weight, steep = (
        np.concatenate(x) for x in (grad, local, decay, noise, distance, weight, steep)
    )
    prior = local + decay

    # BLAS adds thousands of equal squares with errors above what is tested here.
    def dot(a, b):
        return math.fsum(a * b)

    def norm(a):
        return math.sqrt(dot(a, a))

    values = {
        "scaled_grad": norm(grad),
        "unscaled_grad": norm(grad),
        "localization": norm(local),
        "weight_decay": norm(decay),
        "noise": norm(noise),
        "distance": norm(distance),
        "dot_grad_prior": dot(grad, prior),
        "dot_grad_noise": dot(grad, noise),
        "dot_prior_noise": dot(prior, noise),
        "weight_norm": norm(weight),
        "virial": dot(distance, steep),
        "nonfinite": 0,
    }
    magnitudes = {
        "dot_grad_prior": norm(grad) * (norm(local) + norm(decay)),
        "dot_grad_noise": norm(grad) * norm(noise),
        "dot_prior_noise": (norm(local) + norm(decay)) * norm(noise),
        "virial": norm(distance) * norm(steep),
    }
    return values, magnitudes


def check(metrics, wanted, tolerance):
    values, magnitudes = wanted
    assert metrics._fields == tuple(values)
    for name, value in values.items():
        found = getattr(metrics, name)
        assert found.dtype == (torch.int64 if name == "nonfinite" else torch.float64)
        assert found.shape == ()
        assert abs(found.item() - value) <= tolerance * magnitudes.get(name, value), name


def identify(sampler):
    params = [p for group in sampler.param_groups for p in group["params"]]
    return {p: i for i, p in enumerate(params)}, {p: p.detach().clone() for p in params}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"localization": 3.0},
        {"weight_decay": 0.4},
        {"localization": 3.0, "weight_decay": 0.4, "nbeta": 17.0, "noise_level": 0.3},
        {"noise_level": 0.0, "localization": 1.0},
        {"nbeta": 0.0, "weight_decay": 1.0},
        {"bounding_box_size": 0.05, "localization": 1.0},
    ],
    ids=str,
)
def test_the_quantities(dtype, options):
    sampler = SGLD(make(*SHAPES, dtype=dtype), lr=0.02, save_metrics=True, seed=21, **options)
    ids, anchors = identify(sampler)
    for step in range(3):
        wanted = exact(sampler.param_groups, anchors, key=21, step=step, ids=ids)
        sampler.step()
        metrics = sampler.get_metrics()
        assert isinstance(metrics, Metrics)
        check(metrics, wanted, TOLERANCE[dtype])
        assert (metrics.distance == 0) == (step == 0)


def test_groups_with_settings_of_their_own_and_both_dtypes():
    a, b = make(*SHAPES, dtype=torch.float32), make(*SHAPES, dtype=torch.float64)
    sampler = SGLD(
        [
            {"params": a[:2], "lr": 0.1, "localization": 2.0},
            {"params": [*b, *a[2:4]], "nbeta": 30.0, "weight_decay": 0.3},
            {"params": a[4:], "lr": torch.tensor(0.5), "noise_level": 2.0, "localization": 0.1},
        ],
        save_metrics=True,
        seed=5,
    )
    ids, anchors = identify(sampler)
    for step in range(3):
        wanted = exact(sampler.param_groups, anchors, key=5, step=step, ids=ids)
        sampler.step()
        check(sampler.get_metrics(), wanted, TOLERANCE[torch.float32])


def test_only_groups_that_save_metrics_count():
    params = make(*SHAPES, dtype=torch.float64)
    sampler = SGLD(
        [{"params": params[:2], "save_metrics": True}, {"params": params[2:], "lr": 1.0}],
        localization=1.0,
        seed=5,
    )
    ids, anchors = identify(sampler)
    for step in range(2):
        wanted = exact(sampler.param_groups[:1], anchors, key=5, step=step, ids=ids)
        sampler.step()
        check(sampler.get_metrics(), wanted, TOLERANCE[torch.float64])


@pytest.mark.parametrize("missing", [[0], [1, 2, 4], [5]])
def test_parameters_without_gradients_do_not_count(missing):
    params = make(*SHAPES, dtype=torch.float64)
    sampler = SGLD(params, localization=1.0, save_metrics=True, seed=5)
    ids, anchors = identify(sampler)
    sampler.step()  # all have moved away from their anchors
    for i in missing:
        params[i].grad = None
    wanted = exact(sampler.param_groups, anchors, key=5, step=1, ids=ids)
    sampler.step()
    check(sampler.get_metrics(), wanted, TOLERANCE[torch.float64])


def test_they_add_up_to_the_step():
    """|w' - w|^2 follows from norms and dot products alone."""
    params = make(*SHAPES, dtype=torch.float64)
    sampler = SGLD(
        params, lr=0.3, localization=2.0, weight_decay=0.2, nbeta=4.0, save_metrics=True, seed=1
    )
    sampler.step()
    before = [p.detach().clone() for p in params]
    sampler.step()
    m = sampler.get_metrics()
    moved = sum((p - b).square().sum() for p, b in zip(params, before, strict=True)).item()
    local = 0.15 * 2.0 * torch.cat([(b - sampler.state[p]["w0"]).flatten()
                                    for p, b in zip(params, before, strict=True)])  # fmt: skip
    decay = 0.15 * 0.2 * torch.cat([b.flatten() for b in before])
    prior = (local + decay).square().sum()
    total = (
        m.scaled_grad**2 + prior + m.noise**2
        + 2 * (m.dot_grad_prior - m.dot_grad_noise - m.dot_prior_noise)
    )  # fmt: skip
    assert total.item() == pytest.approx(moved, rel=1e-12)


@pytest.mark.parametrize("pull", ["localization", "weight_decay"])
def test_they_add_up_to_the_step_of_every_sampler(kind, pull):
    """Or, with momentum, to what is added to it; friction takes its part of BAOAB's kick."""
    (param,) = make((500,), dtype=torch.float64)
    sampler = kind([param], lr=0.01, nbeta=4.0, save_metrics=True, seed=1, **{pull: 2.0})
    sampler.step()
    with_momentum = "friction" in sampler.defaults or "diffusion_factor" in sampler.defaults
    for _ in range(4):
        before, state = param.detach().clone(), copy.deepcopy(sampler.state[param])
        friction = getattr(sampler, "thermostat", sampler.defaults.get("friction"))
        sampler.step()
        m = sampler.get_metrics()
        added = param.detach() - before
        if with_momentum:
            added = sampler.state[param]["momentum"] - (1 - friction) * state["momentum"]
        kept = 1 - friction if isinstance(sampler, BAOAB) else 1.0
        total = (
            kept**2 * (m.scaled_grad**2 + getattr(m, pull)**2 + 2 * m.dot_grad_prior)
            + m.noise**2 - 2 * kept * (m.dot_grad_noise + m.dot_prior_noise)
        )  # fmt: skip
        assert total.item() == pytest.approx(added.square().sum().item(), rel=1e-10)
        assert m.weight_norm.item() == pytest.approx(before.norm().item(), rel=1e-12)


def test_settings_are_those_of_the_step_not_of_now():
    params = make(*SHAPES, dtype=torch.float64)
    sampler = SGLD(params, localization=1.0, save_metrics=True, seed=5)
    ids, anchors = identify(sampler)
    sampler.step()
    wanted = exact(sampler.param_groups, anchors, key=5, step=1, ids=ids)
    sampler.step()
    sampler.param_groups[0].update(lr=5.0, nbeta=77.0, localization=9.0)
    check(sampler.get_metrics(), wanted, TOLERANCE[torch.float64])


def test_a_step_with_a_generator_reports_the_noise_it_used():
    params = make(*SHAPES, dtype=torch.float64)
    sampler = SGLD(params, save_metrics=True, seed=5)
    ids, anchors = identify(sampler)
    high, low = torch.randint(0, 2**32, (2,), generator=torch.Generator().manual_seed(8)).tolist()
    wanted = exact(sampler.param_groups, anchors, key=high << 32 | low, step=0, ids=ids)
    sampler.step(noise_generator=torch.Generator().manual_seed(8))
    check(sampler.get_metrics(), wanted, TOLERANCE[torch.float64])


def test_large_and_small_gradients():
    (param,) = make((1000,))
    sampler = SGLD([param], lr=1e-20, save_metrics=True, seed=0)
    for scale in (1e15, 1e-15):
        param.grad.fill_(scale)
        sampler.step()
        wanted = 0.5e-20 * scale * math.sqrt(1000)
        assert sampler.get_metrics().unscaled_grad.item() == pytest.approx(wanted, rel=1e-5)
