"""The benchmark of deep linear networks: its scores, what it keeps, and a part of it for real."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import fastllc
from bench.accuracy import __main__ as command
from bench.accuracy import table
from bench.accuracy.estimates import Estimate
from bench.accuracy.runs import Run, load, run, save
from bench.accuracy.scores import kendall, scores
from bench.accuracy.ways import WAYS, Way
from fastllc.oracles import CLASSES, draw_class

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = range(6)
SHORT = {"num_burnin_steps": 10, "num_draws": 30, "batch_size": 50}


def short(drawn):
    return {**drawn.settings, **SHORT}


def a_run(seed, llc, truth, *, attained=True, low=math.nan, high=math.nan, way="SGLD"):
    estimate = Estimate(llc, low, high, ess=20.0, rhat=1.0, seconds=4.0)
    return Run("1K", way, seed, [5, 6, 7], 2, truth, attained, 1, 20, estimate)


def curvatures(oracle):
    r"""Positive eigenvalues of the Hessian of the loss at the minimum, for inputs of any number.

    Of :math:`\frac{1}{H_L} \mathbb E\lVert \Delta W x \rVert^2`, where the product changes by
    :math:`\sum_l A_l dW_l B_l`: those of :math:`\sum_l A_l A_l^T \otimes B_l^T B_l`, times
    :math:`2 \cdot \frac{100}{3} / H_L`.
    """
    layers = oracle.layers()
    outputs, inputs = len(layers[-1]), layers[0].shape[1]
    gram = torch.zeros(outputs * inputs, outputs * inputs, dtype=torch.float64)
    for i in range(len(layers)):
        above, below = torch.eye(outputs).double(), torch.eye(inputs).double()
        for layer in reversed(layers[i + 1 :]):
            above = above @ layer
        for layer in layers[:i]:
            below = layer @ below
        gram += torch.kron(above @ above.T, below.T @ below)
    values = torch.linalg.eigvalsh(gram)[-oracle.jacobian_rank() :].numpy()
    return 2 * 100 / 3 / outputs * values


def test_curvatures_are_those_of_the_loss():
    oracle = draw_class("1K", 1)
    x, _ = oracle.data.tensors
    weights = dict(oracle.model.named_parameters())

    def loss(flat):
        pieces = torch.split(flat, [p.numel() for p in weights.values()])
        product = torch.eye(x.shape[1])
        for piece, p in zip(pieces, weights.values(), strict=True):
            product = piece.view_as(p) @ product
        start = torch.linalg.multi_dot([p.detach() for p in reversed(weights.values())])
        return 100 / 3 * (product - start).square().sum() / len(product)

    at = torch.cat([p.detach().flatten() for p in weights.values()])
    hessian = torch.autograd.functional.hessian(loss, at)
    found = torch.linalg.eigvalsh(hessian.double()).numpy()
    expected = curvatures(oracle)
    assert found[-len(expected) :] == pytest.approx(expected, rel=1e-3)
    assert np.abs(found[: -len(expected)]).max() < 1e-3 * expected.min()


def regular_part(oracle, drawn):
    r"""Mean, its bias by the step size, and variance of what the regular directions add to SGLD.

    One of curvature h is an Ornstein-Uhlenbeck process of rate :math:`a = n\beta h + \gamma` that
    starts at the minimum: :math:`E[n\beta hw_t^2/2] = \frac{n\beta h}{2a}(1 - e^{-\epsilon at})`,
    over :math:`1 - \epsilon a / 4` for steps. Its square forgets at the rate :math:`\epsilon a`, so
    that the mean of T draws has the variance :math:`\frac12 \cdot 2 (x - 1 + e^{-x}) / x^2` with
    :math:`x = \epsilon a T`.
    """
    pull = drawn["nbeta"] * curvatures(oracle)
    a = pull + drawn["localization"]
    stretch = 1 / (1 - drawn["lr"] * a / 4)
    reached = -np.expm1(-drawn["lr"] * a * drawn["num_burnin_steps"])
    x = drawn["lr"] * a * drawn["num_draws"]
    return (
        float((pull / a * stretch * reached).sum() / 2),
        float((stretch - 1).sum() / 2),
        float(((x + np.expm1(-x)) / x**2).sum()),
    )


@pytest.mark.slow
def test_published_settings_are_between_the_regular_part_and_the_coefficient():
    """Estimates of SGLD are at least what the regular directions alone give after so many steps.

    And at most the coefficient with the bias of the steps: what is singular comes from below, since
    neither the temperature nor the number of steps is infinite. It adds loss, half a degree of
    freedom for each half of the coefficient or less, whose variance is at most that mean if all
    draws are one. Four standard errors on either side.
    """
    runs = [run("1K", WAYS["SGLD"], seed) for seed in SEEDS]
    for found in runs:
        oracle = draw_class("1K", found.seed)
        least, bias, variance = regular_part(oracle, CLASSES["1K"].settings)
        assert found.estimate.llc > least - 4 * math.sqrt(variance), oracle.name
        singular = found.truth - found.jacobian_rank / 2
        assert found.estimate.llc < found.truth + bias + 4 * math.sqrt(variance + singular)
    assert scores(runs).failed == 0
    assert scores(runs).kendall >= 13 / 15  # of 15 pairs at most one in the wrong order


@pytest.mark.parametrize(
    "name", [name for name in WAYS if "lr" in WAYS[name].settings(CLASSES["1K"])]
)
def test_steps_of_all_ways_go_equally_far(name):
    """Where there is no gradient, squared distances grow as those of SGLD do."""
    drawn = CLASSES["1K"]
    settings = {"sampler": fastllc.SGLD, **WAYS[name].settings(drawn)}
    w = torch.zeros(20_000, requires_grad=True)
    w.grad = torch.zeros_like(w)
    sampler = settings["sampler"]([w], lr=settings["lr"], seed=0)
    for _ in range(4500):  # the preconditioner forgets its start, momenta theirs
        sampler.step()
    before = w.detach().clone()
    steps = 4000
    for _ in range(steps):
        sampler.step()
    moved = (w.detach() - before).square().mean().item() / (drawn.lr * steps)
    # Standard error of a mean square: sqrt(2 / 20,000), 1 %. Beyond it BAOAB is slower by half its
    # friction, 5 %, and momentum by 1 / (friction steps), 2.5 % of SGNHT.
    assert moved == pytest.approx(1.0, abs=0.04 + (0.05 if name == "BAOAB" else 0.025))


def test_scores_of_exact_cases():
    runs = [
        a_run(0, 10.5, 10.0, low=9.0, high=12.0),
        a_run(1, 16.0, 20.0, low=15.0, high=17.0),
        a_run(2, 33.0, 30.0, low=29.0, high=37.0),
        a_run(3, math.nan, 40.0),
    ]
    found = scores(runs)
    assert (found.networks, found.failed) == (4, 1)
    assert found.mean_error == pytest.approx((0.05 + 0.2 + 0.1) / 3)
    assert found.median_error == pytest.approx(0.1)
    assert found.bias == pytest.approx((0.05 - 0.2 + 0.1) / 3)
    assert (found.regular, found.regular_error) == (1, pytest.approx(0.05))
    assert found.within == 0.5
    assert found.coverage == 0.5
    assert found.kendall == 1.0
    assert (found.seconds, found.ess_per_second) == (4.0, 5.0)


def test_where_the_truth_is_a_bound_coverage_is_of_the_others():
    below = a_run(0, 15.0, 10.0, attained=False, low=14.0, high=16.0)
    assert math.isnan(scores([below]).coverage)
    assert scores([below, a_run(1, 10.0, 10.0, low=9.0, high=11.0)]).coverage == 1.0


def test_where_all_fail_errors_are_unknown():
    found = scores([a_run(0, math.nan, 10.0), a_run(1, math.nan, 20.0)])
    assert (found.networks, found.failed, found.within, found.coverage) == (2, 2, 0.0, 0.0)
    assert math.isnan(found.mean_error)
    assert math.isnan(found.kendall)


@pytest.mark.parametrize(
    ("x", "y", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3], [1, 3, 2], 1 / 3),
        ([1, 2, 3], [1, 1, 2], 2 / math.sqrt(6)),  # 2 pairs agree, of 3 and of 2 without a tie
        ([1, 2], [1, 1], math.nan),
        ([1], [1], math.nan),
    ],
)
def test_kendall(x, y, tau):
    assert kendall(np.array(x, float), np.array(y, float)) == pytest.approx(tau, nan_ok=True)


def test_table_has_a_line_for_each_class_and_way_in_order():
    runs = [
        a_run(0, 100.0, 100.0, low=90.0, high=110.0, way="SGHMC"),
        replace(a_run(0, 50.0, 100.0), drawn="10K"),
        a_run(1, 11.0, 10.0, low=10.5, high=11.5),
        a_run(0, math.nan, 20.0),
    ]
    assert table.table(runs).splitlines()[2:] == [
        "| 1K | SGLD | 2 | 1 | 10 % | 10 % | +10 % | 10 % of 1 | 50 % |  | 0.0 % | 4.0 | 5 |",
        "| 1K | SGHMC | 1 | 0 | 0.0 % | 0.0 % | +0.0 % |  | 100 % |  | 100 % | 4.0 | 5 |",
        "| 10K | SGLD | 1 | 0 | 50 % | 50 % | -50 % |  | 0.0 % |  | 0.0 % | 4.0 | 5 |",
    ]


def test_document_keeps_what_is_around_the_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.START}\nold\n{table.END}\nafter\n")
    table.write(page, "new")
    assert page.read_text() == f"before\n{table.START}\nnew\n{table.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match=r"page.md must have one line '<!-- table"):
        table.write(page, "new")


def test_runs_are_kept_with_what_is_not_a_number(tmp_path):
    path = tmp_path / "results/kept.json"
    assert load(path) == {}
    runs = [a_run(0, 10.0, 12.5, low=9.0, high=11.0), a_run(1, math.nan, 20.0)]
    save(path, runs)
    json.loads(path.read_text(), parse_constant=pytest.fail)  # no NaN, which JSON has not
    found = load(path)
    assert found[runs[0].key] == runs[0]
    assert math.isnan(found[runs[1].key].estimate.llc)
    assert found[runs[1].key].truth == 20.0


def test_a_run_says_what_the_network_is():
    oracle = draw_class("1K", 3)
    found = run("1K", Way("short", short, {"1K": 4}), 3)
    assert found.key == ("1K", "short", 3)
    assert (found.widths, found.rank) == ([7, 42, 38, 33, 25], 1)
    assert (found.truth, found.multiplicity) == (float(oracle.llc), oracle.multiplicity)
    assert found.attained
    assert found.jacobian_rank == oracle.jacobian_rank() == 7 + 25 - 1
    assert found.estimate.low < found.estimate.llc < found.estimate.high
    assert found.estimate.seconds > 0


def test_a_chain_that_diverges_is_a_failed_run():
    way = Way("too far", lambda drawn: {**short(drawn), "lr": 1e3}, {"1K": 1})
    found = run("1K", way, 1)
    assert math.isnan(found.estimate.llc)
    assert scores([found]).failed == 1


def test_what_raises_is_a_failed_run_that_says_why():
    way = Way("wrong", lambda drawn: {**short(drawn), "lr": -1.0}, {"1K": 1})
    found = run("1K", way, 1)
    assert math.isnan(found.estimate.llc)
    assert found.estimate.error.startswith("ValueError: lr must be")


def test_command_estimates_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(WAYS, "SGLD", Way("SGLD", short, {"1K": 3}))
    page = tmp_path / "page.md"
    page.write_text(f"{table.START}\n{table.END}\n")
    kept = tmp_path / "kept.json"
    arguments = ["--only", "1K/SGLD", "--json", str(kept), "--document", str(page)]
    command.main([*arguments, "--networks", "2"])
    first = load(kept)
    assert list(first) == [("1K", "SGLD", 0), ("1K", "SGLD", 1)]
    assert "seed 1, 6-17-21-34 of rank 6" in capsys.readouterr().out
    command.main(arguments)
    both = load(kept)
    assert list(both) == [*first, ("1K", "SGLD", 2)]
    assert {key: both[key] for key in first} == first
    command.main([*arguments, "--minutes", "0"])
    assert "| 1K | SGLD | 3 | 0 |" in page.read_text()
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_command_goes_on_without_devinterp(tmp_path, monkeypatch, capsys):
    def absent(oracle, settings, seed):
        raise ImportError("No module named 'devinterp'")

    name = "devinterp 1.3.2 SGLD"
    monkeypatch.setitem(WAYS, name, Way(name, short, {"1K": 3}, estimate=absent))
    page = tmp_path / "page.md"
    page.write_text(f"{table.START}\n{table.END}\n")
    kept = tmp_path / "kept.json"
    save(kept, [a_run(0, 10.0, 12.0, low=9.0, high=11.0)])
    command.main(["--only", f"1K/{name}", "--json", str(kept), "--document", str(page)])
    assert "1K/devinterp 1.3.2 SGLD: No module named 'devinterp'" in capsys.readouterr().out
    assert len(load(kept)) == 1


def test_document_shows_the_results_that_are_kept():
    text = command.DOCUMENT.read_text()
    assert table.table(load(command.RESULTS).values()) in text
