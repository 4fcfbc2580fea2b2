"""The command line."""

import subprocess
import sys
import types

import pytest

import fastllc.demo
from fastllc.cli import main
from fastllc.info import build_info
from fastllc.kernels import cuda


def test_info_prints_every_fact(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*build_info(), *cuda.facts()]


def test_demo_passes_its_options(monkeypatch):
    calls = []
    monkeypatch.setattr(fastllc.demo, "main", lambda *args, **kwargs: calls.append((args, kwargs)))
    assert main(["demo", "--output", "x.png", "--no-progress"]) == 0
    assert main(["demo"]) == 0
    assert calls == [(("x.png",), {"progress": False}), (("trace.png",), {"progress": True})]


def test_bench_runs_the_benchmarks(monkeypatch):
    calls = []
    bench = types.ModuleType("fastllc.bench")
    bench.main = calls.append
    monkeypatch.setitem(sys.modules, "fastllc.bench", bench)
    assert main(["bench", "--quick"]) == 0
    assert calls == [["--quick"]]


@pytest.mark.parametrize("argv", [[], ["unknown"], ["info", "--output"]])
def test_bad_command_lines(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: fastllc" in capsys.readouterr().err


def test_module_runs():
    result = subprocess.run(
        [sys.executable, "-m", "fastllc", "info"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("version")
