"""Two parametrisations of the same functions."""

import pytest
import torch

from fastllc import oracles


def test_both_are_the_same_functions():
    plain, cubed = oracles.polynomial_pair()
    x = plain.data.tensors[0]
    for slope, bend in [(0.7, -0.2), (-1.3, 0.5)]:
        with torch.no_grad():
            plain.model.w.copy_(torch.tensor([slope, bend]))
            root = abs(slope) ** (1 / 3) * (1 if slope > 0 else -1)
            cubed.model.w.copy_(torch.tensor([root, bend]))
            torch.testing.assert_close(plain.model(x), cubed.model(x))
            torch.testing.assert_close(plain.model(x), slope * x + bend * x**2)


def test_the_loss_is_the_sum_of_powers_that_its_truth_is_of():
    for oracle, power in zip(oracles.polynomial_pair(), (1, 3), strict=True):
        x = oracle.data.tensors[0].double()
        w1, w2 = 0.8, -0.6
        with torch.no_grad():
            oracle.model.w.copy_(torch.tensor([w1, w2]))
            found = oracle.loss_fn(oracle.model(x.float()), oracle.data.tensors[1]).item()
        expected = w1 ** (2 * power) * (x**2).mean() + w2**2 * (x**4).mean()
        assert found == pytest.approx(expected.item(), rel=1e-5)


def test_their_coefficients_differ():
    plain, cubed = oracles.polynomial_pair()
    assert (float(plain.llc), float(cubed.llc)) == (1.0, pytest.approx(2 / 3))
    assert plain.exact(50.0) == pytest.approx(1.0)
    assert cubed.exact(50.0) == pytest.approx(2 / 3)
    assert cubed.exact(50.0, 1.0) < 0.65
