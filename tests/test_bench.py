"""The benchmark's table: that it measures, relates and reports; nothing about how fast."""

import json

import pytest
import torch

from fastllc.bench import command, family, parts
from fastllc.bench.timing import Call, Entry, Row, interleave, measure, relate
from fastllc.bench.workloads import STEPS, TINY, Unavailable, Workload


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The quick scale, quicker."""
    for module in (command, parts):
        monkeypatch.setattr(module, "QUICK", parts.Scale(20_000, 4, False))


def test_calls_take_turns_and_some_are_not_kept():
    log = []
    times = interleave(
        {
            "a": Call(lambda: log.append("A"), lambda: log.append("p"), repeats=2),
            "b": Call(lambda: log.append("B")),
        },
        rounds=2,
    )
    assert "".join(log) == 3 * "pApApAB"  # one round to warm up, one call of a row to warm up
    assert [len(seconds) for seconds in times.values()] == [2, 2]


def test_ratios_are_taken_within_rounds():
    rows = [Row("", "slow", seconds=[2.0, 30.0, 4.0]), Row("", "fast", seconds=[1.0, 10.0, 1.0])]
    relate(rows, [Entry("slow", "fast", ">= 3"), Entry("fast", "us", "<= 20")])
    assert (rows[0].value, rows[0].unit, rows[0].passed) == (3.0, "x fast", True)
    assert (rows[1].value, rows[1].unit, rows[1].passed) == (1e6, "us", False)


@pytest.mark.parametrize(
    ("value", "target", "passed"),
    [(1.6, "<= 1.6", True), (1.7, "<= 1.6", False), (9.9, ">= 10", False), (10, ">= 10", True)],
)
def test_targets(value, target, passed):
    row = Row("part", "name", value=value, target=target)
    assert row.passed is passed
    assert str(row).endswith("pass" if passed else "MISSED")
    assert Row("part", "name", target=target).passed is None
    assert Row("part", "name", value=value).passed is None


def test_rows_survive_json():
    row = Row("part", "name", 10, 1, [0.5, 1.5], "x other", 2.0, [1.0, 3.0], "<= 1", "")
    data = json.loads(json.dumps(row.to_json()))
    assert data["median_seconds"] == 1.0
    assert data["passed"] is False
    assert Row.from_json(data) == row


def test_a_missing_rival_says_why(monkeypatch):
    def refuse(load):
        raise Unavailable("not installed")

    monkeypatch.setitem(STEPS, "devinterp 2.0.1", refuse)
    entries = [Entry("fastllc"), Entry("devinterp 2.0.1", "fastllc", ">= 10")]
    ours, rival = measure("part", TINY, 2, entries)
    assert (len(ours.seconds), rival.seconds, rival.passed) == (2, [], None)
    assert str(rival).split(maxsplit=2)[2] == "not installed"


@pytest.mark.parametrize("name", ["torch addcmul_, the floor", "torch foreach", "fastllc"])
def test_steps_change_all_weights_and_keep_them_finite(name):
    load = Workload(TINY)
    before = [p.clone() for p in load.params]
    step = STEPS[name](load)
    with torch.no_grad():
        for _ in range(3):
            load.rotate()
            step()
    for old, new in zip(before, load.params, strict=True):
        assert new.isfinite().all()
        assert (new != old).float().mean() > 0.9
    assert all((grad != 0).all() for grad in load.grads)


def test_quick_prints_and_writes_every_part(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "TABLE", [(part, None) for part in parts.PARTS])
    monkeypatch.setenv("FASTLLC_COMMIT", "abc123")
    path = tmp_path / "results" / "quick.json"
    assert command.main(["--quick", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    saved = json.loads(path.read_text())
    assert saved["commit"] == "abc123"
    assert saved["build_info"]["simd"] == parts.SIMD
    titles = {row["part"] for row in saved["rows"]}
    assert len(titles) == len(parts.PARTS) - 1 + len(family.DTYPES)  # the family has several
    assert all(row["part"] in printed and row["name"] in printed for row in saved["rows"])
    assert all(row["passed"] is None for row in saved["rows"])
    ours = [row for row in saved["rows"] if row["name"].startswith("fastllc") and row["elements"]]
    assert all(row["value"] is not None or row["seconds"] for row in ours)
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_a_part_in_a_process_of_its_own():
    rows = command._apart("tiny", True, {"FASTLLC_SIMD": "baseline"})
    assert rows[0].seconds
    (row,) = command._apart("tiny", True, {"FASTLLC_SIMD": "nonsense"})
    assert "nonsense" in row.note
    assert row.passed is None
