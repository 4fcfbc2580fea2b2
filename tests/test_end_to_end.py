"""The benchmark of whole estimates: that it measures, relates and reports; nothing of how fast."""

import json
import math
import time
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch

from bench.end_to_end import __main__ as command
from bench.end_to_end import ours, problems
from bench.end_to_end.measure import Entry, measure
from bench.end_to_end.plans import PLANS
from bench.end_to_end.problems import PROBLEMS
from bench.end_to_end.runs import Run, shuffled, timed
from bench.end_to_end.table import Row
from fastllc.engine import choose

PROBLEM_NAMES = ["normal-crossing", "linear-8", "linear-50", "superposition"]
TRAINED = ["mlp", "transformer"]  # for longer than a test has
WEIGHTS = {
    "normal-crossing": 2,
    "linear-8": 3 * 8**2,
    "linear-50": 3 * 50**2,
    "mlp": 784 * 128 + 128 + 128 * 10 + 10,
    "superposition": 2 * 6 + 6,
    "transformer": pytest.approx(2e6, rel=0.1),
}


@cache
def problem(name):
    return PROBLEMS[name]()


@pytest.mark.parametrize("name", PROBLEM_NAMES)
def test_problems_are_at_a_minimum(name):
    given = problem(name)
    n = len(given.x)
    assert given.parameters == WEIGHTS[name]
    assert n % given.batch_size == 0  # all minibatches have one size, whoever makes them
    assert given.nbeta == pytest.approx(n / math.log(n))
    with torch.no_grad():
        at_minimum = given.loss(given.model(given.x), given.y).item()
    assert given.init_loss == pytest.approx(at_minimum, rel=1e-5)
    before = [p.detach().clone() for p in given.model.parameters()]
    generator = torch.Generator().manual_seed(0)
    higher = []
    for _ in range(5):
        with torch.no_grad():
            for p, w0 in zip(given.model.parameters(), before, strict=True):
                p.copy_(w0 + 0.03 * torch.randn(p.shape, generator=generator))
            higher.append(given.loss(given.model(given.x), given.y).item() > at_minimum)
            for p, w0 in zip(given.model.parameters(), before, strict=True):
                p.copy_(w0)
    # At the crossing the loss is quartic: its minimum over all data is a little off the origin.
    assert sum(higher) >= (1 if name == "normal-crossing" else 5)


def test_problems_are_the_same_each_time_and_leave_torchs_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = PROBLEMS["superposition"](), PROBLEMS["superposition"]()
    assert torch.rand(1) == expected
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.model.W, second.model.W)


def test_llc_of_chains():
    given = replace(problem("linear-8"))
    losses = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    expected = given.nbeta * (np.array([1.5, 4.0]) - given.init_loss)
    np.testing.assert_allclose(given.llc(losses), expected)


@pytest.mark.parametrize("name", [*PROBLEM_NAMES, *TRAINED])
def test_ours_runs_and_puts_the_model_back(name, monkeypatch):
    if name in TRAINED:
        monkeypatch.setattr(problems, "descend", lambda *args, **settings: None)
    given = replace(PROBLEMS[name]() if name in TRAINED else problem(name), chains=2)
    assert given.parameters == WEIGHTS[name]
    before = [p.detach().clone() for p in given.model.parameters()]
    found = ours.run(given, 4, seed=1)
    assert np.isfinite(found.llc).all()
    assert len(found.llc) == 2
    assert found.seconds > 0
    assert found.llc == ours.run(given, 4, seed=1).llc != ours.run(given, 4, seed=2).llc
    alone = ours.gradient(given, 4, seed=1)
    assert alone.llc == found.llc
    assert alone.seconds > 0
    for p, w0 in zip(given.model.parameters(), before, strict=True):
        assert torch.equal(p, w0)
        assert p.grad is None


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
def test_gradients_take_their_part_of_an_estimate(engine, monkeypatch):
    if engine == "inplace":
        monkeypatch.setattr(choose, "MAX_WEIGHTS", 0)
    kind = ours.InPlaceWalkers if engine == "inplace" else ours.VectorisedWalkers
    gradient, move = kind.gradient, kind.move

    def loss(outputs, targets):
        time.sleep(0.002)
        return torch.nn.functional.mse_loss(outputs, targets)

    def slow(*args):
        time.sleep(0.004)
        return move(*args)

    monkeypatch.setattr(kind, "move", slow)
    calls = 20 * (3 if engine == "inplace" else 1)
    start = time.perf_counter()
    found = ours.gradient(replace(problem("linear-8"), chains=3, loss=loss), 20, seed=0)
    whole = time.perf_counter() - start
    assert 0.002 * calls < found.seconds < whole - 0.004 * calls
    assert kind.gradient is gradient


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_estimates_are_the_same_and_tell_what_compiling_took(monkeypatch):
    compile, given = ours.Compiled._compile, problem("linear-8")

    def slow(*args, **kwargs):
        time.sleep(0.5)
        return compile(*args, **kwargs)

    monkeypatch.setattr(ours.Compiled, "_compile", slow)
    start = time.perf_counter()
    found = ours.compiled(given, 10, seed=1)
    whole = time.perf_counter() - start
    assert found.compile_seconds > 0.5
    assert 0 < found.seconds < whole - found.compile_seconds
    plain = ours.run(given, 10, seed=1)
    np.testing.assert_allclose(found.llc, plain.llc, rtol=1e-4)
    assert plain.compile_seconds == 0


def test_paired_estimates_are_closer_to_each_other():
    """The teacher's noise is in the loss of every minibatch, and not in that above w*."""
    given = problem("linear-8")
    spreads = [np.std(f(given, 100, seed=0).llc, ddof=1) for f in (ours.run, ours.paired)]
    assert spreads[1] < spreads[0]


def test_every_chain_has_an_order_of_its_own_in_every_epoch():
    given = replace(problem("linear-8"), chains=3)
    epochs = np.array(list(islice(shuffled(given, seed=0), 10))).reshape(2, 5, 3, 200)
    orders = epochs.swapaxes(1, 2).reshape(6, 1000)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(1000), (6, 1)))
    assert len({order.tobytes() for order in orders}) == 6
    again = np.array(list(islice(shuffled(given, seed=0), 10)))
    np.testing.assert_array_equal(again.reshape(epochs.shape), epochs)


def test_timed_sees_memory_that_is_given_back():
    found = timed(lambda: np.ones(2**22).reshape(2, -1).mean(axis=1))
    assert found.llc == [1.0, 1.0]
    assert 30 * 2**20 < found.peak < 40 * 2**20


def rows():
    ours = Row("p", "fastllc", 2, 100, [Run(1.0, 0, [1.0, 3.0]), Run(10.0, 0, [2.0, 2.0])])
    rival = Row("p", "rival", 2, 10, [Run(2.0, 2**21, []), Run(10.0, 2**22, [])], "fastllc")
    twin = Row("p", "twin", 2, 100, [Run(3.0, 0, [5.0, 7.0], 1.0), Run(30.0, 0, [6.0, 6.0], 1.0)])
    twin.against, twin.whole = "fastllc", True
    return ours, rival, twin


def test_ratios_are_of_a_step_of_a_chain_within_rounds():
    ours, rival, twin = rows()
    for row in (ours, rival, twin):
        row.relate([ours, rival, twin])
    assert (ours.ratios, rival.ratios) == ([], [20.0, 10.0])
    assert twin.ratios == pytest.approx([4.0, 3.1])
    more = Row("p", "more", 20, 100, [Run(5.0, 0, []), Run(50.0, 0, [])], "fastllc")
    more.relate([ours, more])
    assert more.ratios == [0.5, 0.5]


def test_estimates_are_compared_in_standard_errors_of_the_difference():
    ours, rival, twin = rows()
    for row in (ours, rival, twin):
        row.relate([ours, rival, twin])
    error = math.sqrt(2 / 3) / 2  # of 4 chains with variance 2/3
    assert ours.llc == pytest.approx((2.0, error))
    assert twin.apart == pytest.approx(4.0 / (error * math.sqrt(2)))
    assert "!" in str(twin)
    assert ours.apart is None
    assert rival.apart is None  # another number of steps is another expectation


@pytest.mark.parametrize(
    ("target", "passed"), [(">= 15", True), (">= 15.1", False), ("<= 15", True), ("<= 14", False)]
)
def test_targets_are_of_the_median_ratio(target, passed):
    ours, rival, _ = rows()
    rival.target = target
    assert rival.passed is None
    rival.relate([ours, rival])
    assert rival.passed is passed
    assert str(rival).endswith("pass" if passed else "MISSED")
    assert "2.00" in str(rival)  # MiB a chain
    data = json.loads(json.dumps(rival.to_json()))
    assert (data["ratio"], data["passed"], data["median_seconds"]) == (15.0, passed, 6.0)
    assert data["llc"] is None


def test_everyone_takes_turns_in_a_process_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "stub.py").write_text(
        "import os\n"
        "from bench.end_to_end.runs import Run\n"
        "def run(problem, steps, seed):\n"
        f"    open(r'{tmp_path / 'log'}', 'a').write(f'{{problem.chains}}-{{steps}}-{{seed}} ')\n"
        "    return Run(os.getpid(), 0, [float(seed)] * problem.chains)\n"
    )
    (tmp_path / "other.py").write_text("from stub import run\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        Entry("a", "stub", 40),
        Entry("b", "stub", 20, chains=3),
        Entry("c", "other", 10, "a"),
        Entry("d", "stub.missing", 10, "a", ">= 1"),
    ]
    a, b, c, d = measure(problem("linear-8"), entries, rounds=2)
    warm = "10-4-0 3-2-0 10-2-0 "
    log = warm + "".join(f"10-40-{seed} 3-20-{seed} 10-10-{seed} " for seed in range(2))
    assert (tmp_path / "log").read_text() == log
    assert a.runs[0].seconds == b.runs[1].seconds != c.runs[0].seconds
    assert [len(row.runs) for row in (a, b, c, d)] == [2, 2, 2, 0]
    assert len(c.ratios) == 2
    assert "not installed" in str(d)
    assert d.passed is None


def test_plans_name_rows_that_exist():
    for name, plan in PLANS.items():
        if name == "transformer":
            continue  # takes half a minute to train
        entries = plan.entries(problem("linear-8" if name == "growth" else name))
        names = [entry.name for entry in entries]
        assert len(set(names)) == len(names)
        assert {entry.against for entry in entries} <= {"", *names}
        assert all(bool(entry.target) <= bool(entry.against) for entry in entries)


def test_quick_prints_and_writes_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FASTLLC_COMMIT", "abc123")
    path = tmp_path / "results" / "quick.json"
    assert command.main(["--quick", "--only", "linear-8", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    saved = json.loads(path.read_text())
    assert saved["commit"] == "abc123"
    assert saved["problems"]["linear-8"]["parameters"] == 192
    assert {"devinterp", "jax", "posteriors"} <= set(saved["peers"])
    assert all(row["name"] in printed and row["passed"] is None for row in saved["rows"])
    mine = [row for row in saved["rows"] if row["name"].startswith("fastllc")]
    assert all(len(row["runs"]) == 1 and row["llc"] is not None for row in mine)
    rivals = [row for row in saved["rows"] if row not in mine]
    assert all(row["runs"] or "not installed" in row["note"] for row in rivals)
