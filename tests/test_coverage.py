"""The 95 % interval holds what chains converge to in 95 % of estimates, exactly known here."""

import pytest

from bench.coverage import WAYS, study


@pytest.mark.parametrize("name", WAYS)
def test_intervals_of_chains_with_minibatches_of_their_own(name):
    found = study(name, 2000, shared=False)
    assert found.p > 1e-3
    assert abs(found.mean - found.truth) < 5 * found.mean_error


def test_intervals_of_chains_that_share_minibatches():
    found = study("SGLD", 60, shared=True)
    assert found.p > 1e-3
    assert abs(found.mean - found.truth) < 5 * found.mean_error
