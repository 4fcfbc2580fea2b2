"""Chains judged in words: each trouble is named, with its place, and health is quiet."""

import math

import numpy as np
import pytest

from fastllc.diagnostics import Summaries, Summary, summarize
from traces import trace_of

WHITE = 5 + np.random.default_rng(1).normal(size=(4, 1000))


def test_summary_of_healthy_chains_is_quiet():
    loss = 5 + np.random.default_rng(0).normal(size=(4, 1000))
    summary = summarize(trace_of(loss, 4.0, metrics={"mala_acceptance": np.full((4, 1000), 0.97)}))
    assert isinstance(summary, Summary)
    assert summary.llc == pytest.approx(2 * (loss.mean() - 4.0), rel=1e-6)
    assert summary.sem == pytest.approx(2 / math.sqrt(4000), rel=0.5)
    assert summary.warnings == ()
    assert summary.num_chains == 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_too_few_draws_give_nan_and_a_warning(shape):
    summary = summarize(trace_of(np.ones(shape)))
    assert math.isnan(summary.sem)
    assert summary.llc == 2.0
    assert any("num_draws" in text for text in summary.warnings)
    assert "nan" in str(summary)


@pytest.mark.parametrize("init_loss", [0.0, 2.3])
def test_chains_that_have_not_moved_are_no_estimate(init_loss):
    """Steps too small for single precision: an LLC of 0 within an error of 0, or of rounding."""
    rounding = 1e-7 * init_loss * np.random.default_rng(0).normal(size=(4, 1000))
    (text,) = summarize(trace_of(init_loss + rounding, init_loss)).warnings
    assert text.endswith("the chains have not moved. Raise lr.")
    moved = init_loss + 1e-5 * WHITE
    assert summarize(trace_of(moved, init_loss)).warnings == ()


def test_diverged_chains_are_named():
    summary = summarize(trace_of(WHITE, diverged_at=[-1, -1, 3, -1]))
    assert summary.diverged == (2,)
    assert "chain 2" in str(summary)
    assert [text for text in summary.warnings if "lower lr" in text]


def test_of_many_diverged_chains_some_are_named_and_all_counted():
    loss = np.random.default_rng(0).normal(5, 1, size=(100, 200))
    diverged_at = np.where(np.arange(100) < 40, 7, -1)
    (text,) = (
        w for w in summarize(trace_of(loss, diverged_at=diverged_at)).warnings if "chain" in w
    )
    assert "10, 11 and 28 more." in text


def test_no_chain_left_is_said_and_nothing_else():
    summary = summarize(trace_of(WHITE, diverged_at=[5] * 4))
    assert math.isnan(summary.llc)
    assert summary.num_chains == 0
    (text,) = summary.warnings
    assert "None is left" in text


def test_interrupted_runs_are_named_with_how_far_they_came():
    loss = WHITE.copy()
    loss[:, 950:] = np.nan
    loss[3, 100:] = np.nan
    (text,) = (w for w in summarize(trace_of(loss)).warnings if "interrupted" in w)
    assert "950 of 1000 draws" in text
    assert "left out: chain 3. Where there is a store, the same call goes on." in text
    loss[:] = np.nan
    assert "0 of 1000" in summarize(trace_of(loss)).warnings[0]


@pytest.mark.parametrize(
    ("loss", "init_loss", "words"),
    [
        (WHITE + np.arange(4)[:, None], 0.0, "R-hat"),
        (WHITE[:, :50], 0.0, "ESS"),
        (WHITE + np.linspace(0, 1, 1000), 0.0, "still rises"),
        (WHITE - np.linspace(0, 1, 1000), 0.0, "still falls"),
        (WHITE, 6.0, "negative"),
        (WHITE - 2 * (np.arange(1000) < 200), 4.0, "dips"),
        (WHITE[:1], 0.0, "one chain"),
    ],
)
@pytest.mark.parametrize("shared", [0, 1])
def test_warnings_name_the_trouble(loss, init_loss, words, shared):
    summary = summarize(trace_of(loss, init_loss, shared_batches=shared))
    assert any(words in text for text in summary.warnings)
    assert words in str(summary)


def test_chains_that_share_minibatches_are_not_to_be_more():
    texts = [
        " ".join(summarize(trace_of(WHITE[:, :50], shared_batches=s)).warnings) for s in (0, 1)
    ]
    assert "num_chains" in texts[0]
    assert "num_chains" not in texts[1]


def test_dips_of_paired_losses_are_seen_under_the_noise_of_minibatches():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 10, size=(4, 1000))
    excess = 1 + rng.normal(0, 0.1, size=base.shape) - 1.2 * (np.arange(1000) < 200)
    dips = [
        any("dips" in w for w in summarize(trace_of(base + excess, baseline=b)).warnings)
        for b in (base, None)
    ]
    assert dips == [True, False]


def test_noise_that_chains_share_is_no_dip():
    common = 0.1 + np.random.default_rng(0).normal(size=1000)
    loss = np.repeat(common[None], 32, axis=0)
    dips = [
        any("dips" in w for w in summarize(trace_of(loss, shared_batches=s)).warnings)
        for s in (0, 1)
    ]
    assert dips == [True, False]


def test_dips_are_seen_beyond_the_end_of_a_diverged_chain():
    loss = WHITE - 2 * (np.arange(1000) >= 800)
    loss[2, 600:] = np.nan
    trace = trace_of(loss, 4.0, diverged_at=[-1, -1, 600, -1])
    assert any("dips" in w for w in summarize(trace).warnings)


@pytest.mark.parametrize(("acceptance", "told"), [(0.85, True), (0.95, False)])
def test_steps_that_a_metropolis_test_would_refuse(acceptance, told):
    metric = np.full((4, 1000), acceptance)
    metric[2] = 1 - told  # a diverged chain's does not count
    metric[3, 500:] = np.nan
    trace = trace_of(WHITE, metrics={"mala_acceptance": metric}, diverged_at=[-1, -1, 9, -1])
    found = [w for w in summarize(trace).warnings if "Metropolis" in w]
    assert bool(found) == told
    assert not told or "85%" in found[0]
    trace.attrs["corrected"] = 1  # whose refusals are its own
    assert not [w for w in summarize(trace).warnings if "Metropolis" in w]


def study():
    """3 checkpoints x 2 settings, healthy but for one drifting cell and one diverged chain."""
    loss = 5 + np.random.default_rng(2).normal(size=(3, 2, 4, 1000))
    loss[1, 0] += np.linspace(0, 1, 1000)
    diverged_at = np.full((3, 2, 4), -1)
    diverged_at[2, 1, 3] = 17
    return trace_of(
        loss,
        [1.0, 2.0, 3.0],
        dims=("checkpoint", "setting"),
        checkpoints=[100, 200, 300],
        lr=[1e-4, 1e-3],
        localization=[10.0, 10.0],
        diverged_at=diverged_at,
    )


def test_several_cells_have_a_summary_each_in_order():
    trace = study()
    found = summarize(trace)
    assert isinstance(found, Summaries)
    assert len(found) == 6
    singles = [summarize(trace.isel(checkpoint=c, setting=s)) for c in range(3) for s in range(2)]
    assert list(found) == singles
    assert found[-1].diverged == (3,)
    assert len(found[2:4]) == 2
    assert list(found.labels[3]) == ["checkpoint", "lr"]
    assert found.labels[3] == {"checkpoint": "200", "lr": "0.001"}


def test_the_table_has_a_row_each_and_warnings_name_their_place():
    lines = str(summarize(study())).splitlines()
    assert lines[0].split()[:3] == ["checkpoint", "lr", "LLC"]
    assert [line.split()[:2] for line in lines[1:7]] == [
        [c, lr] for c in ("100", "200", "300") for lr in ("0.0001", "0.001")
    ]
    assert lines[6].endswith("3 of 4")
    ends = {line.rindex("  ") for line in lines[1:6]}
    assert len(ends) == 1  # aligned
    told = lines[7:]
    assert all(line.startswith("warning: checkpoint ") for line in told)
    assert any("checkpoint 200, lr 0.0001: the loss still rises" in line for line in told)
    assert any("checkpoint 300, lr 0.001: diverged" in line for line in told)
    assert not any("checkpoint 100" in line for line in told)


def test_what_holds_everywhere_is_said_once():
    text = str(summarize(trace_of(np.ones((3, 1, 2)), dims=("checkpoint",))))
    assert text.count("one chain") == 1
    assert "everywhere: one chain" in text


def test_settings_that_do_not_vary_are_numbered():
    loss = np.random.default_rng(0).normal(size=(2, 4, 100))
    found = summarize(trace_of(loss, dims=("setting",), lr=[0.1, 0.1]))
    assert [dict(label) for label in found.labels] == [{"setting": "0"}, {"setting": "1"}]
