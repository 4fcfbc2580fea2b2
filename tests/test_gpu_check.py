"""`make gpu-check` where there is no GPU, and what it makes of what it ran."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import check
from bench.gpu.parts import gpt2, pythia
from bench.gpu.shares import of_copy
from bench.rows import Row

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("module", ["bench.gpu.check", "bench.gpu"])
def test_without_a_gpu_it_says_so(module):
    done = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "torch finds no" in done.stderr
    assert done.stdout == ""


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(check, "NEEDED", ("torch", "no_such_package", "nor_this"))
    assert check.main() == 1
    assert "needs no_such_package, nor_this" in capsys.readouterr().err


@pytest.fixture
def checked(monkeypatch, tmp_path):
    monkeypatch.setattr(check, "HERE", tmp_path / "gpu")
    return check._Check("a GPU", "90")


def test_stages_that_fail_or_take_long_are_told(checked):
    assert checked._run("good", [sys.executable, "-c", "print(5)"], 60) == "5\n"
    assert checked.passed
    assert checked._run("bad", [sys.executable, "-c", "print('why'); exit(3)"], 60) is None
    assert not checked.passed
    assert checked._run("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5) is None
    stages = checked.report["stages"]
    assert [stage["state"] for stage in stages.values()] == [
        "passed",
        "exit status 3",
        "took too long",
    ]
    assert "why" in stages["bad"]["log"]


def test_no_stage_starts_when_the_time_is_over(checked, monkeypatch):
    monkeypatch.setattr(check, "SECONDS", 0)
    assert checked._run("late", [sys.executable, "-c", "print(5)"], 60) is None
    assert checked.report["stages"]["late"]["state"] == "no time was left"


def test_tests_are_counted_and_may_not_all_be_skipped(checked, monkeypatch):
    def run(stage, command, limit):
        path = Path(next(c for c in command if c.startswith("--junitxml=")).partition("=")[2])
        path.parent.mkdir(parents=True)
        path.write_text(
            '<testsuites><testsuite errors="0" failures="0" skipped="2" tests="2">'
            '<testcase><skipped message="torch finds no CUDA device"/></testcase>'
            "</testsuite></testsuites>"
        )
        checked.report["stages"][stage] = {"state": "passed", "seconds": 1.0}

    monkeypatch.setattr(checked, "_run", run)
    checked.test()
    assert not checked.passed
    text = checked.table()
    assert "no test ran" in text
    assert "2 tests, 0 failures, 0 errors, 2 skipped" in text
    assert "skipped: torch finds no CUDA device" in text


def test_the_table_says_what_was_reached(checked):
    copy = Row("fp32", "device copy", 10, 1, [1.0, 2.0])
    ours = Row("fp32", "fastllc", 10, 1, [2.5, 3.2])
    of_copy(ours, copy, 2, ">= 90")
    assert ours.value == pytest.approx((80 + 125) / 2)
    missing = Row("fp32", "devinterp", 10, 1, note="not installed", target=">= 5")
    checked.report["rows"] = [row.to_json() for row in (copy, ours, missing)]
    last = checked.table().splitlines()[-3:]
    assert "102.5 % of copy bandwidth" in last[1]
    assert "reached" in last[1]
    assert last[2].endswith("not installed")


def test_models_have_their_sizes():
    sizes = [(len(s), sum(torch.Size(each).numel() for each in s)) for s in (gpt2(), pythia())]
    assert sizes == [(148, 124_439_808), (292, 1_414_647_808)]
