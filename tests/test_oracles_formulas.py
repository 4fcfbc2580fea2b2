"""Formulas of learning coefficients of linear networks."""

import math
import time
from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastllc.oracles import deep_linear_coefficient, reduced_rank_coefficient
from refusals import refuses

GOLDEN = [
    ([5, 3, 5], 3, 10.5, 1),
    ([5, 3, 5], 2, 9.5, 2),
    ([5, 3, 5], 0, 6.5, 2),
    ([5, 4, 5], 4, 12, 1),
    ([4, 3, 8], 3, 13.5, 1),
    ([8, 3, 4], 3, 13.5, 1),
    ([3, 8, 4], 3, 6, 1),
    ([10, 10, 10], 5, 47, 2),
    ([10, 10, 10, 10], 5, 46, 3),
    ([20, 15, 30, 12, 25], 6, 144, 2),
    ([64] * 5, 32, 1856, 1),
    ([100] * 5, 50, 4531.5, 5),
    ([185, 259, 286, 885, 235, 204, 274, 252], 92, 20564, 4),
]


@st.composite
def networks(draw, width=9, layers=6):
    widths = draw(st.lists(st.integers(1, width), min_size=2, max_size=layers))
    return widths, draw(st.integers(0, min(widths)))


def published(widths, rank):
    """The paper's definition to the letter: whichever set S of indices fulfils its conditions."""
    m = [h - rank for h in widths]
    found = set()
    for size in range(2, len(m) + 1):
        for chosen in combinations(range(len(m)), size):
            ell, inside = size - 1, [m[i] for i in chosen]
            outside = [m[i] for i in range(len(m)) if i not in chosen] or [math.inf]
            if max(inside) >= min(outside):
                continue
            if not ell * max(inside) <= sum(inside) < ell * min(outside):
                continue
            q = Fraction(sum(inside))
            a = q - (math.ceil(q / ell) - 1) * ell
            pairs = sum(x * y for x, y in combinations(inside, 2))
            llc = Fraction(-(rank**2) + rank * (widths[0] + widths[-1]), 2)
            llc += a * (ell - a) / (4 * ell) - Fraction(ell * (ell - 1), 4) * (q / ell) ** 2
            found.add((llc + Fraction(pairs, 2), a * (ell - a) + 1))
    return found


@pytest.mark.parametrize(("widths", "rank", "llc", "multiplicity"), GOLDEN)
def test_known_networks(widths, rank, llc, multiplicity):
    assert deep_linear_coefficient(widths, rank) == (Fraction(llc), multiplicity)
    assert deep_linear_coefficient(widths[::-1], rank) == (Fraction(llc), multiplicity)


def test_one_hidden_layer_is_reduced_rank_regression():
    sizes = [(*s, r) for s in product(range(1, 11), repeat=3) for r in range(min(s) + 1)]
    assert len(sizes) == 4025
    for *widths, rank in sizes:
        assert deep_linear_coefficient(widths, rank) == reduced_rank_coefficient(*widths, rank)


@given(networks())
def test_it_is_the_published_definition(network):
    assert published(*network) == {deep_linear_coefficient(*network)}


@given(networks(width=40, layers=12), st.randoms(use_true_random=False))
def test_what_every_network_has(network, random):
    widths, rank = network
    llc, multiplicity = deep_linear_coefficient(widths, rank)
    assert multiplicity >= 1
    assert (4 * llc).denominator == 1
    # Half the rank of the Jacobian, that of matrices of rank r; and half of all parameters of the
    # smallest network that has this product: the product itself.
    assert rank * (widths[0] + widths[-1] - rank) <= 2 * llc <= widths[0] * widths[-1]
    assert deep_linear_coefficient(widths[::-1], rank) == (llc, multiplicity)
    hidden = widths[1:-1]
    random.shuffle(hidden)
    assert deep_linear_coefficient([widths[0], *hidden, widths[-1]], rank) == (llc, multiplicity)


@given(st.integers(1, 30), st.integers(1, 30))
def test_one_layer_is_regular(inputs, outputs):
    for rank in range(min(inputs, outputs) + 1):
        found = deep_linear_coefficient([inputs, outputs], rank)
        assert found == (Fraction(inputs * outputs, 2), 1)


def test_networks_of_full_rank_are_regular():
    """Of d/2 - what GL(r) of each hidden layer leaves as it is."""
    for layers in range(1, 8):
        widths = [6] * (layers + 1)
        assert deep_linear_coefficient(widths, 6) == (Fraction(36, 2), 1)


def test_the_largest_published_networks_take_no_time():
    start = time.perf_counter()
    llc, multiplicity = deep_linear_coefficient([3000] * 41, 1499)
    assert time.perf_counter() - start < 0.1
    # Q = 41 * 1501, l = 40, a = 1541 - 1540 + 20.
    q, a = 41 * 1501, 41 * 1501 - 1538 * 40
    assert multiplicity == a * (40 - a) + 1 == 400
    expected = Fraction(1499 * (6000 - 1499), 2) + Fraction(a * (40 - a), 160)
    assert llc == expected - Fraction(39 * q * q, 160) + Fraction(41 * 40 * 1501**2, 4)


def test_bad_sizes_are_refused():
    with refuses(ValueError, "widths must be two or more, got [3]"):
        deep_linear_coefficient([3], 1)
    with refuses(ValueError, "widths[1] must be >= 1, got 0"):
        deep_linear_coefficient([3, 0], 0)
    with refuses(TypeError, "widths[0] must be an int, got 3.0"):
        deep_linear_coefficient([3.0, 2], 0)
    with refuses(ValueError, "rank must be >= 0 and < 3, got 3"):
        deep_linear_coefficient([3, 2], 3)
    with refuses(ValueError, "rank must be >= 0 and < 3, got -1"):
        reduced_rank_coefficient(2, 3, 4, -1)
    with refuses(ValueError, "hidden must be >= 1, got 0"):
        reduced_rank_coefficient(2, 0, 4, 0)
