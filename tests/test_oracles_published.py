"""Networks drawn as published, and where the formula is not their local value."""

import itertools
from fractions import Fraction

import pytest
import torch

from fastllc import Sampling, default_nbeta, oracles
from refusals import refuses
from test_oracles_deep_linear import brute_force_rank


def two_layers(largest):
    """All widths up to a size with one hidden layer, and all ranks of both layers."""
    for widths in itertools.product(range(1, largest + 1), repeat=3):
        for r1 in range(min(widths[:2]) + 1):
            for r2 in range(min(widths[1:]) + 1):
                yield list(widths), [r1, r2]


def test_a_submersion_is_regular():
    """Layers of rank 5 and 10: every product nearby is reached, and 100 of them are seen."""
    oracle = oracles.truncated_linear([10, 10, 10], [5, 10])
    assert oracle.jacobian_rank() == brute_force_rank(oracle) == 100
    assert (oracle.llc, oracle.multiplicity, oracle.attained) == (50, 1, True)
    assert oracles.deep_linear([10, 10, 10], 5).llc == 47


def test_one_hidden_layer_of_any_ranks():
    for widths, ranks in two_layers(4):
        oracle = oracles.truncated_linear(widths, ranks, n_samples=4)
        formula = oracles.reduced_rank_coefficient(*widths, min(ranks))
        assert oracle.attained
        assert oracle.jacobian_rank() == brute_force_rank(oracle)
        # The formula is the least of all networks with this product; the Jacobian bounds each;
        # and no loss has more than the dimensions of the product.
        assert max(formula.llc, Fraction(oracle.jacobian_rank(), 2)) <= oracle.llc
        assert oracle.llc <= Fraction(widths[0] * widths[2], 2)
        if ranks[0] == ranks[1]:
            assert (oracle.llc, oracle.multiplicity) == formula
        mirrored = oracles.truncated_linear(widths[::-1], ranks[::-1], n_samples=4)
        assert (mirrored.llc, mirrored.multiplicity) == (oracle.llc, oracle.multiplicity)


def test_a_hand_made_case():
    """2-2-2 of ranks 0 and 1: near there L is y1^2 + y2^2 + z^2 (y3^2 + y4^2): 1 + 1/2."""
    oracle = oracles.truncated_linear([2, 2, 2], [0, 1])
    assert (oracle.llc, oracle.multiplicity) == (Fraction(3, 2), 1)


@pytest.mark.parametrize("ranks", [[3, 4, 2], [4, 4, 4], [2, 2, 2], [0, 4, 4], [4, 1, 4]])
def test_deeper_networks_tell_what_they_know(ranks):
    widths = [5, 4, 6, 4]
    oracle = oracles.truncated_linear(widths, ranks, seed=3)
    for layer, rank in zip(oracle.layers(), ranks, strict=True):
        assert int(torch.linalg.matrix_rank(layer, rtol=1e-5)) == rank
    assert oracle.rank == min(ranks)
    assert (oracle.llc, oracle.multiplicity) == oracles.deep_linear_coefficient(widths, min(ranks))
    assert oracle.attained == (len(set(ranks)) == 1)
    assert oracle.jacobian_rank() == brute_force_rank(oracle)


@pytest.mark.parametrize("name", ["1K", "10K"])
def test_draws_are_of_their_class(name):
    drawn, counts, widths = oracles.CLASSES[name], set(), set()
    larger = 0
    for seed in range(60):
        oracle = oracles.draw_class(name, seed, n_samples=100)
        published = oracles.draw_class(name, seed, aligned=False, n_samples=100)
        shapes = [tuple(p.shape) for p in oracle.model.parameters()]
        assert shapes == [tuple(p.shape) for p in published.model.parameters()]
        assert oracle.rank == published.rank
        assert oracle.attained
        oracle.check()
        counts.add(len(shapes))
        widths.update(size for shape in shapes for size in shape)
        larger += published.jacobian_rank() > 2 * oracle.llc
    assert counts == set(range(drawn.layers[0], drawn.layers[1] + 1))
    assert min(widths) >= drawn.widths[0]
    assert max(widths) <= drawn.widths[1]
    assert max(widths) - min(widths) > 0.9 * (drawn.widths[1] - drawn.widths[0])
    # About a quarter of published networks have a larger coefficient than their formula; within
    # 4 standard deviations of 60 draws.
    assert 0.02 < larger / 60 < 0.48


def test_settings_are_the_published_ones():
    assert list(oracles.CLASSES) == ["1K", "10K", "100K", "1M", "10M", "100M"]
    for drawn in oracles.CLASSES.values():
        sampling = Sampling(**drawn.settings)
        assert sampling.nbeta == default_nbeta(drawn.num_samples)
        assert sampling.num_burnin_steps + sampling.num_draws == drawn.num_steps
        assert sampling.num_draws * 10 == drawn.num_steps
        assert (sampling.localization, sampling.batch_size, sampling.num_chains) == (1, 500, 1)


def test_bad_input_is_refused():
    with refuses(ValueError, "name must be one of 1K, 10K, 100K, 1M, 10M, 100M, got '2K'"):
        oracles.draw_class("2K", 0)
    with refuses(TypeError, "aligned must be a bool, got 1"):
        oracles.draw_class("1K", 0, aligned=1)
    with refuses(ValueError, "ranks must be 2, one a layer, got 1"):
        oracles.truncated_linear([3, 2, 3], [2])
    with refuses(ValueError, "ranks[1] must be >= 0 and < 3, got 3"):
        oracles.truncated_linear([3, 2, 3], [2, 3])
