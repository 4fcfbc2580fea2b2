"""Reading a trace: draws, cells, and the chains that count."""

import numpy as np
import pytest
import xarray as xr

from fastllc.estimators.traces import cells, draws, over_cells, usable
from traces import trace_of

RNG = np.random.default_rng(0)


def test_draws_are_the_last_steps_of_their_spans_above_the_initial_loss():
    loss = RNG.normal(size=(3, 17)).astype(np.float32)
    found = draws(trace_of(loss, 0.5, num_burnin_steps=5, num_steps_bw_draws=4))
    assert found.dims == ("chain", "draw")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found["step"], [8, 12, 16])
    np.testing.assert_array_equal(found, loss[:, [8, 12, 16]].astype(float) - 0.5)


def test_paired_draws_are_above_the_same_minibatch():
    # Differences of 1e-3 beside losses of 2: exact, since both numbers are single precision.
    base = RNG.normal(size=(3, 20)).astype(np.float32)
    loss = base + np.float32(2**-10)
    found = draws(trace_of(loss, 100.0, baseline=base, num_burnin_steps=10))
    np.testing.assert_array_equal(found, (loss.astype(float) - base)[:, 10:])


def test_leading_dimensions_meet_their_own_initial_loss():
    loss = RNG.normal(size=(2, 3, 4, 10)).astype(np.float32)
    trace = trace_of(loss, [1.0, 2.0], dims=("checkpoint", "setting"), checkpoints=[10, 500])
    found = draws(trace)
    assert found.dims == ("checkpoint", "setting", "chain", "draw")
    np.testing.assert_array_equal(found.sel(checkpoint=500), loss[1].astype(float) - 2.0)
    single = draws(trace.isel(checkpoint=1, setting=2))
    np.testing.assert_array_equal(single, found[1, 2])


def test_diverged_chains_have_no_draws_and_interrupted_ones_those_they_made():
    loss = np.zeros((3, 10))
    loss[1, 6:] = np.nan
    loss[2, 8:] = np.nan
    found = draws(trace_of(loss, diverged_at=[-1, 6, -1], num_burnin_steps=2))
    np.testing.assert_array_equal(found.notnull().sum("draw"), [8, 0, 6])


@pytest.mark.parametrize(
    ("lengths", "chains", "length"),
    [
        ([10, 10], [0, 1], 10),
        ([10, 5, 4], [0, 1], 5),
        ([3, 0, 7], [2], 7),
        ([0, 0], [], 0),
        ([1], [0], 1),
    ],
)
def test_chains_half_as_long_as_the_longest_count(lengths, chains, length):
    found = usable(np.arange(10) < np.array(lengths)[:, None])
    assert found[0].tolist() == chains
    assert found[1] == length


def test_a_chain_ends_before_its_first_gap():
    finite = np.ones((2, 10), dtype=bool)
    finite[1, 7] = False
    chains, length = usable(finite)
    assert (chains.tolist(), length) == ([0, 1], 7)
    assert usable(np.ones((2, 0), dtype=bool))[1] == 0


def test_results_of_cells_lie_where_the_cells_were():
    loss = RNG.normal(size=(2, 3, 4, 10))
    trace = trace_of(
        loss, dims=("checkpoint", "setting"), lr=[1.0, 2.0, 3.0], checkpoints=["a", "b"]
    )
    found = over_cells(
        trace,
        lambda cell: {
            "lr_seen": ((), np.asarray(float(cell["lr"]))),
            "first": (("chain",), cell["steps/loss"].values[:, 0]),
        },
    )
    assert found["lr_seen"].dims == ("checkpoint", "setting")
    np.testing.assert_array_equal(found["lr_seen"], [[1, 2, 3], [1, 2, 3]])
    np.testing.assert_array_equal(found["first"], trace["steps/loss"][..., 0])
    assert found["lr"].dims == ("setting",)
    assert found["checkpoint"].values.tolist() == ["a", "b"]
    assert float(found["nbeta"]) == 2.0


def test_a_single_cell_has_results_without_dimensions():
    trace = trace_of(np.zeros((2, 10)))
    assert list(cells(trace)) == [{}]
    found = over_cells(trace, lambda cell: {"one": ((), np.asarray(1.0))})
    assert found["one"].dims == ()
    assert "chain" not in found.coords
    assert isinstance(found, xr.Dataset)
