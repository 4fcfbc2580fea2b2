"""On an MLP that is its own teacher, samplers agree with the Metropolis-corrected one."""

import pytest
import torch

from bench.mlp import WAYS, estimate, taught, teacher

pytestmark = pytest.mark.usefixtures("one_thread")

SIGMAS = 4
TINY = (3, 4, 2)


def tiny(name, lr, seed):
    model = teacher(TINY)
    data = taught(model, 200, TINY[0])
    return estimate(
        name, model, data, num_chains=128, num_burnin_steps=300, num_draws=200, lr=lr, seed=seed
    )


@pytest.fixture(scope="module")
def corrected():
    """MALA, whose step size decides only how far chains get in so many steps."""
    found = tiny("MALA", 1e-4, seed=0)
    assert 0.9 < found.acceptance < 1
    return found


def test_the_teacher_has_850_weights_and_no_loss():
    model = teacher()
    assert sum(p.numel() for p in model.parameters()) == 850
    x, y = taught(model, 50)
    assert x.abs().max() < 10
    torch.testing.assert_close(model(x), y, rtol=0, atol=0)
    assert (model[-1].bias == 0).all()
    assert (model[0].bias != 0).all()


@pytest.mark.parametrize(("seed", "name"), list(enumerate(WAYS))[1:])
def test_small_steps_agree_with_the_corrected_sampler(name, seed, corrected):
    found = tiny(name, 1e-4, seed)
    assert found.error < 0.03 * corrected.llc  # or agreement would say little
    assert abs(found.apart(corrected)) < SIGMAS


def test_long_steps_are_told_apart():
    assert tiny("SGLD", 1e-3, seed=1).apart(tiny("MALA", 1e-3, seed=0)) > SIGMAS
