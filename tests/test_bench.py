"""`python -m fastllc bench`: that it measures, relates and reports; nothing about how fast."""

import json
import math
import sys
import types
from dataclasses import replace

import pytest
import torch

from fastllc.bench import command, devinterp1, estimates, pure, timing
from fastllc.bench.comparison import Comparison
from fastllc.bench.picture import draw
from fastllc.bench.problem import LINEAR
from fastllc.bench.steps import compare_steps
from fastllc.bench.table import tables
from fastllc.bench.timing import Call, by_events, interleave
from fastllc.bench.workloads import STEPS, TINY, Workload

PURE = ["torch eager", "torch foreach", "torch.compile"]


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """Compile nothing, as where there is no compiler; what is compiled is run as it is."""

    def refuse(function, **options):
        def fail(*args):
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr("torch._inductor.compile", lambda traced, _: refuse(traced))


@pytest.fixture
def uncompiled(monkeypatch):
    """What would be compiled runs as it is."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr("torch._inductor.compile", lambda traced, _: traced)


@pytest.fixture
def no_devinterp(monkeypatch):
    def version(name):
        raise command.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "devinterp", None)
    monkeypatch.setitem(sys.modules, "devinterp.optim", None)
    for module in (command, estimates):
        names = types.SimpleNamespace(
            version=version,
            PackageNotFoundError=command.importlib.metadata.PackageNotFoundError,
        )
        monkeypatch.setattr(module, "importlib", types.SimpleNamespace(metadata=names))


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


def test_time_on_a_gpu_is_that_between_two_events(monkeypatch):
    log = []

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, other):
            assert other is not self
            return 6.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("idle"))
    call = Call(lambda: log.append("call"), lambda: log.append("prepare"), repeats=3)
    assert by_events("cpu")(call) == pytest.approx(2e-3)
    assert log == ["prepare", "call", "idle", "event", "call", "call", "call", "event", "wait"]


def measured():
    """A fixed measurement, with three rounds of which one was slow."""
    step = Comparison(
        "step",
        "small: 10 weights in 1 tensor",
        {
            "fastllc": [1e-5, 1e-4, 1e-5],
            "torch eager": [3e-5, 30e-5, 3e-5],
            "torch foreach": [2e-5, 21e-5, 2e-5],
            "devinterp": [12e-5, 120e-5, 14e-5],
            "memory floor": [2e-6, 2e-5, 2e-6],
        },
        {"torch.compile": "did not compile: RuntimeError"},
    )
    whole = Comparison(
        "whole LLC",
        "linear 8-8-8-8, 10 chains",
        {
            "fastllc": [0.2, 0.2],
            "fastllc, compiled": [0.08, 0.08],
            "torch vmap": [0.3, 0.3],
            "torch.compile": [0.1, 0.1],
            "torch, chain by chain": [1.0, 1.0],
        },
        {"devinterp": "not in 2.0.1"},
        compile_seconds={"torch.compile": 7.25, "fastllc, compiled": 1.04},
        llc={"fastllc": (20.71, 0.41), "torch vmap": (21.5, 0.39)},
    )
    return [step, whole]


def test_ratios_are_taken_within_rounds_and_the_fastest_by_their_median():
    step, whole = measured()
    assert step.fastest == "torch foreach"
    assert step.ratio("torch foreach") == pytest.approx((2.0, 2.0, 2.05))
    assert step.ratio("devinterp") == pytest.approx((12.0, 12.0, 13.0))
    assert whole.fastest == "torch.compile"
    data = json.loads(json.dumps(whole.to_json()))
    assert data["fastest_pure_pytorch"] == "torch.compile"
    assert data["ratios"]["torch vmap"] == pytest.approx({"low": 1.5, "median": 1.5, "high": 1.5})
    assert "fastllc" not in data["ratios"]
    assert data["median_seconds"]["fastllc"] == 0.2


def test_the_table_of_a_fixed_measurement():
    assert tables(measured(), "2.0.1").splitlines() == [
        "| step                          | fastllc | fastest pure PyTorch       | torch.compile "
        "| devinterp 2.0.1   | memory floor |",
        "|-------------------------------|---------|----------------------------|---------------"
        "|-------------------|--------------|",
        "| small: 10 weights in 1 tensor | 10.0 µs | 2.00x (2.00-2.05), foreach | not available "
        "| 12.0x (12.0-13.0) | 0.20x        |",
        "",
        "| whole LLC                 | fastllc | fastest pure PyTorch       "
        "| fastllc, compiled | torch, chain by chain | torch.compile | devinterp 2.0.1 |",
        "|---------------------------|---------|----------------------------"
        "|-------------------|-----------------------|---------------|-----------------|",
        "| linear 8-8-8-8, 10 chains | 200 ms  | 0.50x (0.50-0.50), compile "
        "| 0.40x + 1.0 s     | 5.00x                 | 0.50x + 7.2 s | not in 2.0.1    |",
    ]


def test_the_report_names_the_machine_the_coefficients_and_a_busy_machine():
    known = command._known("cpu", 0.7)
    text = command.report(measured(), known)
    assert known["machine"]["cpu"] in text
    assert "linear 8-8-8-8, 10 chains: LLC fastllc 20.7 ± 0.4, torch vmap 21.5 ± 0.4." in text
    assert "Other processes used 0.7 cores" in text
    assert "Other processes" not in command.report(measured(), {**known, "cores_used_by_others": 0})


def test_the_picture_has_a_bar_for_everybody_measured():
    ax = draw(measured(), "2.0.1").axes[0]
    ends = sorted(bar.get_x() + bar.get_width() for bar in ax.patches if bar.get_x() == 1)
    assert [round(end, 6) for end in ends if not math.isnan(end)] == [0.2, 0.4, 0.5, 2, 5, 12]


@pytest.mark.parametrize("metrics", [False, True])
@pytest.mark.parametrize("name", PURE)
def test_pure_pytorch_takes_the_step_it_says(name, metrics, uncompiled):
    """Bit for bit no two agree in noise or rounding: the noise of one is taken from its move."""
    generator = torch.Generator().manual_seed(3)
    w, grads, w0, z = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in TINY]
        for _ in range(4)
    )
    lr, nbeta, gamma = 0.01, 7.0, 3.0
    expected = [
        p - lr / 2 * (nbeta * g + gamma * (p - a)) + math.sqrt(lr) * noise
        for p, g, a, noise in zip(w, grads, w0, z, strict=True)
    ]
    flat = [torch.cat([t.flatten() for t in each]) for each in (w, grads, w0, z)]
    p, g, a, noise = flat
    d = p - a
    sums = [p @ p, g @ g, d @ d, noise @ noise, g @ d, g @ noise, d @ noise]
    update = pure.UPDATES[name](lr / 2 * gamma, -lr / 2 * nbeta, math.sqrt(lr), metrics=metrics)
    found = update(w, grads, w0, z)
    for each, right in zip(w, expected, strict=True):
        torch.testing.assert_close(each, right, rtol=1e-12, atol=1e-12)
    if metrics:
        right = torch.stack(sums).to(found.dtype)
        # Eager sums are single precision, of 2,000 products below about 10.
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-3)
    else:
        assert found is None


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


def test_without_compiler_and_devinterp_the_rest_is_measured(no_devinterp):
    found = compare_steps("tiny", TINY, 2, "cpu", metrics=True)
    assert found.missing == {
        "torch.compile": "did not compile: RuntimeError",
        "devinterp": "not installed",
    }
    assert set(found.seconds) == {"fastllc", "torch eager", "torch foreach", "memory floor"}
    whole = estimates.compare_estimates(replace(LINEAR["linear-8"](), chains=2), 4, 2)
    assert whole.missing["fastllc, compiled"].startswith("compile must be False")
    assert {k: v for k, v in whole.missing.items() if k in found.missing} == found.missing
    assert set(whole.seconds) == {"fastllc", "torch vmap", "torch, chain by chain"}
    assert "not available" in tables([found, whole])


def test_everybody_estimates_the_same_llc(uncompiled, no_devinterp):
    """Chains are independent; 5 errors of the difference is once in two million."""
    problem = LINEAR["linear-8"]()
    found = estimates.compare_estimates(problem, 200, 2)
    assert set(found.llc) == {
        "fastllc",
        "fastllc, compiled",
        "torch vmap",
        "torch, chain by chain",
        "torch.compile",
    }
    assert all(found.compile_seconds[n] > 0 for n in ("fastllc, compiled", "torch.compile"))
    ours, error = found.llc["fastllc"]
    for name, (llc, other) in found.llc.items():
        assert abs(llc - ours) < 5 * math.hypot(error, other), name
        assert llc > 10 * other


def test_devinterp_1_is_asked_where_it_is_installed(monkeypatch, uncompiled):
    names = types.SimpleNamespace(version=lambda name: "1.3.2", PackageNotFoundError=ImportError)
    monkeypatch.setattr(estimates, "importlib", types.SimpleNamespace(metadata=names))
    asked = []

    def estimate(problem, draws, seed, *, burnin, device):
        asked.append((draws, burnin, seed, device))
        return {"loss/trace": torch.full((problem.chains, draws), 2.0).numpy()}

    monkeypatch.setattr(devinterp1, "estimate", estimate)
    problem = replace(LINEAR["linear-8"](), chains=2)
    found = estimates.compare_estimates(problem, 5, 2)
    assert asked == [(3, 2, seed, "cpu") for seed in range(3)]
    assert found.llc["devinterp"][0] == pytest.approx(problem.nbeta * (2 - problem.init_loss))


TINIEST = command.Scale({"small": TINY}, {"small": 2}, {"linear-8": 4}, 2)


def test_the_command_writes_table_numbers_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "FULL", TINIEST)
    numbers, picture = tmp_path / "new" / "x.json", tmp_path / "x.png"
    assert command.main(["--json", str(numbers), "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    saved = json.loads(numbers.read_text())
    assert set(saved) == {
        "date",
        "machine",
        "build_info",
        "device",
        "devinterp",
        "cores_used_by_others",
        "comparisons",
    }
    assert [each["kind"] for each in saved["comparisons"]] == ["step", "step", "whole LLC"]
    for each in saved["comparisons"]:
        assert each["case"] in printed
        assert all(len(seconds) == 2 for seconds in each["seconds"].values())
        assert set(each["ratios"]) == set(each["seconds"]) - {"fastllc"}
        for ratio in each["ratios"].values():
            assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
    assert picture.stat().st_size > 10_000


def test_a_plot_without_matplotlib_fails_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "measure", lambda *args: pytest.fail("measured"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(SystemExit) as caught:
        command.main(["--plot", str(tmp_path / "x.png")])
    assert caught.value.code == 2
    assert "pip install 'fastllc[plots]'" in capsys.readouterr().err


@pytest.mark.parametrize(("gpu", "built"), [(True, True), (True, False), (False, True)])
def test_a_gpu_is_measured_where_there_are_kernels_for_it(gpu, built, monkeypatch, capsys):
    places = []

    def measure(scale, place):
        places.append(place)
        return measured()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(command.cuda, "built", lambda: built)
    monkeypatch.setattr(command, "measure", measure)
    assert command.main() == 0
    assert places == ["cuda" if gpu and built else "cpu"]
    printed = capsys.readouterr().out
    assert printed.startswith("a GPU, ") == (gpu and built)
    assert ("no kernels for the GPU" in printed) == (gpu and not built)


def test_on_a_gpu_steps_are_timed_by_events_and_reach_the_kernels(device, monkeypatch):
    """The way through the code alone: tensors of the CPU pose as those of a device."""
    clocks = []

    def events(where):
        clocks.append(where)
        return timing.by_host

    monkeypatch.setattr("fastllc.bench.steps.by_events", events)
    load = Workload(TINY)
    monkeypatch.setattr("fastllc.bench.steps.Workload", lambda shapes, device: load)
    found = compare_steps("small", TINY, 2, "cuda", metrics=False)
    assert clocks == ["cuda"]
    assert device.runs
    assert len(found.seconds["fastllc"]) == 2
