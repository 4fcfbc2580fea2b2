"""Chains by their coordinates: keys, and boxes of them that run at once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import losses, run
from fastllc import chain_key
from fastllc.engine.study import Box, Chain, Study, grid
from zoo import case

SIZES = st.integers(1, 6)


@given(shape=st.tuples(SIZES, SIZES, SIZES), limit=st.integers(1, 250))
def test_boxes_cover_every_chain_once(shape, limit):
    study = Study(shape, seed=0)
    boxes = list(study.boxes(limit))
    found = [chain for box in boxes for chain in study.chains(box)]
    assert sorted(found) == sorted(itertools.product(*map(range, shape)))
    assert found == sorted(found)  # runs that are interrupted hold whole cells
    for box in boxes:
        assert np.prod(box.shape) == len(study.chains(box)) <= limit


@given(shape=st.tuples(SIZES, SIZES, SIZES))
def test_a_limit_that_holds_everything_makes_one_box(shape):
    (box,) = Study(shape, seed=0).boxes(int(np.prod(shape)))
    assert box.shape == shape


def test_keys_are_those_of_the_coordinates():
    study = Study((3, 4, 5), seed=7)
    chains = study.chains(Box(slice(0, 3), slice(0, 4), slice(0, 5)))
    assert chains[:2] == [Chain(0, 0, 0), Chain(0, 0, 1)]
    for chain in chains:
        assert study.key(chain) == chain_key(7, chain.chain, chain.checkpoint, chain.setting)
    keys = [study.key(chain) for chain in chains] + [study.data_key(chain) for chain in chains]
    assert len(set(keys)) == 2 * 60  # neither noise nor minibatches of two chains are alike
    assert not {chain_key(8, *chain) for chain in chains} & set(keys)


def test_common_random_numbers_leave_out_the_checkpoint_alone():
    study = Study((3, 2, 2), seed=7, common_random_numbers=True)
    for setting, chain in itertools.product(range(2), range(2)):
        at = [Chain(checkpoint, setting, chain) for checkpoint in range(3)]
        assert len({study.key(c) for c in at}) == len({study.data_key(c) for c in at}) == 1
    chains = study.chains(Box(slice(0, 3), slice(0, 2), slice(0, 2)))
    assert len({study.key(c) for c in chains}) == len({study.data_key(c) for c in chains}) == 4


def test_shared_minibatches_have_one_key_that_is_no_chain_s():
    study = Study((2, 2, 3), seed=7, shared_batches=True)
    chains = study.chains(Box(slice(0, 2), slice(0, 2), slice(0, 3)))
    (shared,) = {study.data_key(c) for c in chains}
    assert shared not in {study.key(c) for c in chains}
    assert len({study.key(c) for c in chains}) == 12


def test_the_grid_varies_the_last_fastest():
    found = grid({"lr": [1.0, 2.0], "nbeta": 3.0, "localization": (4.0, 5.0)})
    assert [tuple(point.values()) for point in found] == [
        (1, 3, 4),
        (1, 3, 5),
        (2, 3, 4),
        (2, 3, 5),
    ]


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
def test_a_grid_is_a_dimension_with_its_settings_as_coordinates(engine):
    trace = run(case("mlp"), engine=engine, lr=[1e-4, 1e-3], localization=[1.0, 10.0, 100.0])
    assert dict(trace["steps/loss"].sizes) == {"setting": 6, "chain": 3, "step": 5}
    assert trace.dataset["lr"].values.tolist() == [1e-4] * 3 + [1e-3] * 3
    assert trace.dataset["localization"].values.tolist() == [1.0, 10.0, 100.0] * 2
    assert trace.dataset["nbeta"].values.tolist() == [10.0] * 6


def test_a_list_of_one_setting_is_a_dimension_too():
    trace = run(case("mlp"), lr=[1e-3])
    assert trace["steps/loss"].dims == ("setting", "chain", "step")
    np.testing.assert_array_equal(losses(trace)[0], losses(run(case("mlp"), lr=1e-3)))


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
def test_the_first_setting_of_a_grid_is_the_run_with_it_alone(engine):
    # Every chain's key tells its setting: only setting 0 has the keys of a run without a grid.
    grid = run(case("mlp"), engine=engine, lr=[1e-3, 1e-4], nbeta=[10.0, 20.0])
    alone = run(case("mlp"), engine=engine)
    np.testing.assert_allclose(losses(grid)[0], losses(alone), rtol=3e-6)


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
def test_each_setting_of_a_grid_is_taken(engine):
    """Without noise and with the same minibatches, a cell is the run with its setting."""
    still = {"engine": engine, "noise_level": 0.0, "shared_batches": True}
    grid = run(case("mlp"), lr=[1e-3, 1e-2], nbeta=[10.0, 20.0], localization=[5.0, 50.0], **still)
    for cell in range(8):
        at = grid.dataset.isel(setting=cell)
        setting = {name: float(at[name]) for name in ("lr", "nbeta", "localization")}
        alone = run(case("mlp"), **setting, **still)
        np.testing.assert_allclose(losses(grid)[cell], losses(alone), rtol=3e-6)
    assert len({row.tobytes() for row in losses(grid)[:, 0]}) == 8
