"""The developers' table of steps: that it measures, relates and reports; nothing about how fast."""

import json

import pytest

from bench.rows import Entry, Row, measure, relate
from bench.steps import command, family, parts
from fastllc.bench.workloads import STEPS, TINY, Unavailable


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The quick scale, quicker."""
    for module in (command, parts):
        monkeypatch.setattr(module, "QUICK", parts.Scale(20_000, 4, False))


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
