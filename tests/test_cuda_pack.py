"""From tables of segments to launches: every element in one tile of one launch, and no other."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from emulated import native_kernels
from fastllc._core import SEGMENT, DType, Rule

_emulated = native_kernels()

CHUNK, SPAN = 16384, 64 * 16384
MOST_CHAINS = 65535
UNIT = {dtype: 2 if dtype == DType.float64 else 4 for dtype in DType}
SIZE = {DType.float32: 4, DType.float64: 8, DType.bfloat16: 2, DType.float16: 2}


def table_of(*rows):
    """SEGMENT rows from dicts, at aligned addresses of their own unless they say otherwise."""
    table = np.zeros(len(rows), SEGMENT)
    for i, (row, given_) in enumerate(zip(table, rows, strict=True)):
        row["w"], row["grad"] = (i + 1) << 50, (i + 1) << 50 | 1 << 49
        for name, value in given_.items():
            row[name] = value
    return table


def pack(table, chains=1, sums=False, rule=Rule.sgld, groups=1):
    return _emulated.pack(int(rule), table, chains, groups, sums)


def pieces(first, numel, size):
    return -(-(first + numel) // size) - first // size if numel else 0


sizes = st.one_of(
    st.integers(0, 5000), st.integers(0, 2**36), st.sampled_from([0, 1, CHUNK, SPAN, 2**31, 2**33])
)
segments = st.builds(
    lambda numel, first, dtype: {
        "numel": numel,
        "first": first,
        "dtype": int(dtype),
        "w_stride": numel,
    },
    sizes,
    st.one_of(st.just(0), st.integers(0, 2**40)),
    st.sampled_from(list(DType)),
)


@given(st.lists(segments, min_size=1, max_size=40), st.sampled_from([1, 2, 7]), st.booleans())
def test_every_element_is_in_one_tile(rows, chains, sums):
    table = table_of(*rows)
    launches = pack(table, chains, sums)
    seen = []
    for dtype, tile, first_chain, tiles, width, entries in launches:
        assert (first_chain, width) == (0, chains)
        assert tile == CHUNK if sums else 1024 <= tile <= CHUNK and tile & (tile - 1) == 0
        assert tiles < 2**31
        at = 0
        for index, first_tile, _, _, _ in entries:
            row = table[index]
            assert row["dtype"] == dtype
            assert first_tile == at
            at += pieces(int(row["first"]), int(row["numel"]), tile)
            seen.append(index)
        assert at == tiles or (tiles == 1 and not table["numel"].any())
    filled = [i for i, row in enumerate(rows) if row["numel"] > 0]
    assert sorted(seen) == (filled or [0])
    assert len({launch[0] for launch in launches}) == len(launches)


@given(st.lists(segments, min_size=1, max_size=40), st.booleans())
def test_sums_have_places_of_their_own_in_the_order_of_the_table(rows, sums):
    """Whatever the launch, so that totals are added in one order."""
    table = table_of(*rows)
    places = {}
    for launch in pack(table, sums=sums):
        for index, _, chunks, spans, _ in launch[-1]:
            places[index] = chunks, spans
    chunk = span = 0
    for i, row in enumerate(rows):
        if row["numel"] > 0:
            assert places[i] == (chunk, span)
        chunk += pieces(row["first"], row["numel"], CHUNK)
        span += pieces(row["first"], row["numel"], SPAN)


@pytest.mark.parametrize("chains", [1, MOST_CHAINS, MOST_CHAINS + 1, 3 * MOST_CHAINS])
def test_more_chains_than_a_grid_holds_take_more_launches(chains):
    launches = pack(table_of({"numel": 5}, {"numel": 3, "dtype": 1}), chains)
    for dtype in (0, 1):
        own = [launch for launch in launches if launch[0] == dtype]
        firsts = [launch[2] for launch in own]
        assert firsts == list(range(0, chains, MOST_CHAINS))
        assert sum(launch[4] for launch in own) == chains
        assert all(launch[4] <= MOST_CHAINS for launch in own)


def test_small_steps_have_small_tiles_and_large_ones_large_tiles():
    def tile(numel, chains=1):
        return pack(table_of({"numel": numel, "w_stride": numel}), chains)[0][1]

    assert tile(1) == tile(2 * 2**20) == 1024
    assert tile(2 * 2**20 + 1024) == 2048
    assert tile(2**30) == tile(2**40) == CHUNK
    assert tile(2**20, chains=64) == CHUNK


arrays = st.sampled_from(["w", "grad", "w0", "mask", "momentum", "square_avg", "residual"])


@given(arrays, st.integers(0, 15), st.integers(0, 7), st.sampled_from(list(DType)))
def test_vectors_where_every_array_lies_on_their_multiples(name, off, first, dtype):
    size = 1 if name == "mask" else SIZE[dtype]
    if name in ("momentum", "square_avg"):
        size = 8 if dtype == DType.float64 else 4
    if name == "residual":
        size = 4 if dtype in (DType.float32, DType.float16) else size
    address = (1 << 40) + off * size
    base = {"numel": 9, "first": 0, "dtype": int(dtype), name: address}
    unit = UNIT[dtype]
    aligned = pack(table_of(base))[0][-1][0][-1]
    assert aligned == (off % unit == 0)
    # A shard begins in the middle of a unit: it must lie as the whole tensor would.
    others = {"w": 1 << 50, "grad": 1 << 51}
    shard = {k: v + first * SIZE[dtype] for k, v in others.items()} | base
    shard |= {"first": first, name: (1 << 40) + off * size}
    aligned = pack(table_of(shard))[0][-1][0][-1]
    assert aligned == ((off - first) % unit == 0)


@pytest.mark.parametrize("stride", ["w_stride", "w0_stride", "mask_stride"])
def test_strides_matter_with_several_chains_only(stride):
    row = {"numel": 6, "w0": 1 << 40, "mask": 1 << 41, stride: 6}
    assert pack(table_of(row), chains=1)[0][-1][0][-1] is True
    assert pack(table_of(row), chains=2)[0][-1][0][-1] is False
    assert pack(table_of(row | {stride: 8}), chains=2)[0][-1][0][-1] is True


REFUSED = [
    ({"dtype": 4}, r"segments\[0\].dtype must be in \[0, 4\), got 4"),
    ({"dtype": -1}, r"segments\[0\].dtype must be in \[0, 4\), got -1"),
    ({"group": 1}, r"segments\[0\].group must be in \[0, 1\), got 1"),
    ({"param": 2**24}, r"segments\[0\].param must be in \[0, 16777216\), got 16777216"),
    ({"numel": -1}, r"segments\[0\].numel must be in \[0, \d+\), got -1"),
    ({"numel": 2**44 + 1}, r"segments\[0\].numel must be in \[0, \d+\), got 17592186044417"),
    ({"first": -4}, r"segments\[0\].first must be in \[0, \d+\), got -4"),
    ({"w": 0}, r"segments\[0\].w must be an address, got 0"),
    ({"grad": 0}, r"segments\[0\].grad must be an address, got 0"),
    ({"w": 2}, r"segments\[0\].w must be a multiple of 4, got 2"),
    ({"w0": 6}, r"segments\[0\].w0 must be a multiple of 4, got 6"),
    ({"w_stride": -1}, r"segments\[0\].w's stride must be in \[0, \d+\), got -1"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda x: str(x)[:30])
def test_tables_that_no_kernel_could_follow_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pack(table_of({"numel": 8} | change))


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (Rule.sgld, []),
        (Rule.rmsprop, ["square_avg"]),
        (Rule.adam, ["momentum", "square_avg"]),
        (Rule.sghmc, ["momentum"]),
        (Rule.sgnht, ["momentum"]),
        (Rule.baoab, ["momentum"]),
    ],
)
def test_rules_need_their_state(rule, names):
    full = {"numel": 8} | dict.fromkeys(names, 1 << 40)
    assert pack(table_of(full), rule=rule)
    for name in names:
        with pytest.raises(ValueError, match=rf"segments\[0\].{name} must be an address, got 0"):
            pack(table_of(full | {name: 0}), rule=rule)


def test_other_refusals():
    table = table_of({"numel": 8})
    with pytest.raises(ValueError, match=r"rule must be one of fastllc._core.Rule, got 6"):
        _emulated.pack(6, table, 1, 1, False)
    with pytest.raises(ValueError, match="segments must have a row, got none"):
        pack(table[:0])
    with pytest.raises(ValueError, match=r"n_chains must be in \[1, 2\^44\], got 0"):
        pack(table, chains=0)
    with pytest.raises(ValueError, match=r"segments must be contiguous rows of 128 bytes"):
        pack(table["numel"].copy())
    with pytest.raises(ValueError, match=r"less than 2\^32 tiles"):
        pack(table_of({"numel": 1}), chains=2**33)
