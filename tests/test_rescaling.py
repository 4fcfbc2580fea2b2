"""The LLC of a ReLU net under rescaling of its hidden units: flat where theory says so."""

import math

import numpy as np
import pytest
import torch

from bench.rescaling import EXACT, SAMPLERS, curvatures, problem, rescaled, study

pytestmark = pytest.mark.usefixtures("one_thread")

SIGMAS = 4
SHORT = {"num_chains": 24, "num_burnin_steps": 1000, "num_draws": 1000}


@pytest.mark.parametrize("scale", [0.5, 2.0, 4.0])
def test_a_rescaled_net_is_the_same_function_of_other_curvatures(scale):
    """One flat direction for each hidden unit; d less these, halved, is the exact coefficient."""
    model, data = problem()
    weights = rescaled(model, scale)
    torch.testing.assert_close(
        torch.func.functional_call(model, weights, (data[0],)), data[1], rtol=0, atol=0
    )
    h, of_one = curvatures(model, weights, data), curvatures(model, rescaled(model, 1.0), data)
    assert np.count_nonzero(h) == np.count_nonzero(of_one) == 2 * EXACT
    assert h.max() > 1.5 * of_one.max()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_estimate_is_that_of_its_curvatures_and_flat_from_1_to_2(name):
    one, two = study(name, (1.0, 2.0), (3e-5,), **SHORT)
    for found in (one, two):
        assert found.error < 0.02 * EXACT
        assert abs(found.llc - found.quadratic) < SIGMAS * found.error
    assert abs(two.llc - one.llc) < SIGMAS * math.hypot(one.error, two.error)


def test_long_steps_in_the_stiffest_direction_are_not_flat():
    """At a = 4 the variance there is 4 times too large, and the test above would fail."""
    one, four = study("SGLD", (1.0, 4.0), (3e-5,), **SHORT)
    assert four.stiffest > 3
    assert four.llc - one.llc > SIGMAS * math.hypot(one.error, four.error)
