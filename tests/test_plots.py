"""What the pictures say: marks, labels, numbers and intervals, read back from the axes."""

import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from fastllc import plots
from fastllc.estimators.coefficient import llc
from fastllc.plots import plot_chain_health, plot_grid, plot_llc_over_checkpoints, plot_trace
from traces import trace_of


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def excess(*shape, level=0.1, seed=0):
    return level + 0.05 * np.random.default_rng(seed).normal(size=shape)


def labels_of(ax):
    return ax.get_legend_handles_labels()[1]


def line(ax, label):
    (found,) = (artist for artist in ax.lines if artist.get_label() == label)
    return found


def drawn(figure, tmp_path):
    figure.savefig(tmp_path / "figure.png")
    return figure.axes


def test_trace_shows_mean_burnin_and_where_chains_diverged(tmp_path):
    loss = excess(4, 500) + 3.0
    loss[2, 240:260] += 1e6
    loss[2, 260:] = np.nan
    trace = trace_of(loss, 3.0, nbeta=50.0, num_burnin_steps=100, diverged_at=[-1, -1, 260, -1])
    upper, lower = drawn(plot_trace(trace), tmp_path)
    assert {"chain 0", "chain 2, diverged at 260", "burn-in", "all chains"} <= set(labels_of(upper))
    assert "chain 2" not in " ".join(labels_of(lower))
    assert "4 chains, 1 diverged" in upper.get_title()
    assert line(upper, "diverged").get_xdata().tolist() == [260]
    mean = line(upper, "all chains")
    window = 500 - len(mean.get_xdata()) + 1
    alive = loss[[0, 1, 3], :window].astype(np.float32).mean() - 3.0
    assert mean.get_ydata()[0] == pytest.approx(alive, rel=1e-5)
    assert mean.get_xdata()[0] == (window - 1) / 2
    assert upper.get_ylim()[1] < 1  # the spike does not set the scale
    assert line(lower, "all chains").get_ydata()[-1] == pytest.approx(float(llc(trace)["llc"]))
    assert line(lower, "all chains").get_xdata()[0] == 100
    assert f"{float(llc(trace)['llc']):.3f} $\\pm$" in lower.get_title()


def test_many_chains_are_bands(tmp_path):
    loss = excess(200, 300)
    loss[:, 250:] = np.nan
    upper, lower = drawn(plot_trace(trace_of(loss, nbeta=50.0)), tmp_path)
    for ax in (upper, lower):
        assert {"90 % of chains", "50 % of chains"} <= set(labels_of(ax))
        assert len(ax.lines) <= 3


def test_trace_of_chains_that_all_diverged_or_made_no_draw(tmp_path):
    loss = excess(3, 100)
    loss[:, 50:] = np.nan
    for trace in (trace_of(loss, diverged_at=[50] * 3), trace_of(loss, num_burnin_steps=60)):
        assert "no chain" in drawn(plot_trace(trace), tmp_path)[1].get_title()


def test_trace_of_a_study_has_a_panel_each_up_to_nine(tmp_path):
    loss = excess(3, 3, 2, 100)
    trace = trace_of(
        loss, np.zeros(3), dims=("checkpoint", "setting"), lr=[0.1, 0.2, 0.3], nbeta=50.0
    )
    axes = drawn(plot_trace(trace), tmp_path)
    assert len(axes) == 9
    assert axes[5].get_title().startswith("checkpoint 1, lr 0.3\nLLC ")
    more = trace_of(excess(5, 2, 2, 100), np.zeros(5), dims=("checkpoint", "setting"))
    with pytest.raises(ValueError, match=r"at most 9 .*, got 5 checkpoints and 2 settings: select"):
        plot_trace(more)
    with pytest.raises(ValueError, match="at most 1 "):
        plot_trace(trace, plt.figure().add_subplot())


def test_trace_draws_losses_into_given_axes():
    ax = plt.figure().add_subplot()
    assert plot_trace(trace_of(excess(2, 100)), ax) is ax.figure
    assert ax.get_xlabel() == "sampler step"
    assert "all chains" in labels_of(ax)


def test_checkpoints_have_95_percent_intervals(tmp_path):
    trace = trace_of(
        excess(5, 4, 200),
        np.zeros(5),
        dims=("checkpoint",),
        checkpoints=[0, 1, 10, 50, 200],
        nbeta=50.0,
    )
    (ax,) = drawn(plot_llc_over_checkpoints(trace), tmp_path)
    found = llc(trace)
    curve = ax.lines[0]
    assert curve.get_xdata().tolist() == [0, 1, 10, 50, 200]
    np.testing.assert_array_equal(curve.get_ydata(), found["llc"])
    corners = ax.collections[0].get_paths()[0].vertices
    low, high = found["llc"] - 1.96 * found["sem"], found["llc"] + 1.96 * found["sem"]
    assert corners[:, 1].min() == pytest.approx(float(low.min()))
    assert corners[:, 1].max() == pytest.approx(float(high.max()))
    assert ax.get_legend() is None


def test_settings_are_lines_and_lost_checkpoints_crosses(tmp_path):
    diverged_at = np.full((3, 2, 4), -1)
    diverged_at[1, 1] = 5
    trace = trace_of(
        excess(3, 2, 4, 100),
        np.zeros(3),
        dims=("checkpoint", "setting"),
        checkpoints=["first", "middle", "last"],
        lr=[1e-3, 1e-2],
        diverged_at=diverged_at,
    )
    (ax,) = drawn(plot_llc_over_checkpoints(trace), tmp_path)
    assert labels_of(ax) == ["lr 0.001", "lr 0.01", "lr 0.01: no chain left"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["first", "middle", "last"]
    lost = line(ax, "lr 0.01: no chain left")
    assert lost.get_xdata().tolist() == [1]
    assert lost.get_color() == line(ax, "lr 0.01").get_color()


def test_one_checkpoint_is_no_line():
    with pytest.raises(ValueError, match="trace must have a dimension checkpoint"):
        plot_llc_over_checkpoints(trace_of(excess(4, 100)))


def study(**changes):
    """LLCs 10 lr + localization on a 3 x 2 grid, told in an order of no consequence."""
    lr, localization = [3.0, 1.0, 2.0, 1.0, 2.0, 3.0], [10.0, 10.0, 10.0, 20.0, 20.0, 20.0]
    noise = 0.02 * np.random.default_rng(0).normal(size=(6, 4, 1000))
    level = (10 * np.array(lr) + localization) / 50
    return trace_of(
        level[:, None, None] + noise + changes.pop("drift", 0),
        dims=("setting",),
        nbeta=50.0,
        lr=lr,
        localization=localization,
        **changes,
    )


def test_grid_writes_every_value_in_its_cell(tmp_path):
    ax, bar = drawn(plot_grid(study()), tmp_path)
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), [[20, 30, 40], [30, 40, 50]], rtol=0.01)
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    for (x, y), text in texts.items():
        assert float(text.split()[0]) == pytest.approx(10 * (x + 1) + 10 * (y + 1), rel=0.01)
        assert "pm" in text
    assert len(texts) == 6
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "3"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["10", "20"]
    assert not ax.patches
    assert bar.get_ylabel() == "LLC (dimensionless)"


def test_grid_hatches_what_the_summary_warns_about_and_does_not_scale_by_it(tmp_path):
    drift = np.zeros((6, 1, 1000))
    drift[0] = 100 * np.linspace(0, 1, 1000)  # at lr 3, localization 10
    diverged_at = np.full((6, 4), -1)
    diverged_at[3] = 7  # at lr 1, localization 20
    ax, _ = drawn(plot_grid(study(drift=drift, diverged_at=diverged_at)), tmp_path)
    (hatched,) = ax.patches
    assert hatched.get_hatch()
    assert hatched.get_xy() == (1.5, -0.5)
    assert max(ax.images[0].get_clim()) == pytest.approx(50, rel=0.01)
    assert [t.get_position() for t in ax.texts if "no chain" in t.get_text()] == [(0, 1)]
    assert "hatched" in ax.get_title()


def test_grid_that_differs_a_hundredfold_is_logarithmic():
    ax = plot_grid(study(drift=np.geomspace(1e-3, 100, 6)[:, None, None])).axes[0]
    assert isinstance(ax.images[0].norm, LogNorm)
    assert not isinstance(plot_grid(study()).axes[0].images[0].norm, LogNorm)


def test_grid_refuses_what_is_no_grid():
    with pytest.raises(ValueError, match="trace must have a dimension setting"):
        plot_grid(trace_of(excess(4, 100)))
    with pytest.raises(ValueError, match=r"one checkpoint, got 2 checkpoints: .*checkpoint=0"):
        plot_grid(trace_of(excess(2, 3, 4, 100), np.zeros(2), dims=("checkpoint", "setting")))
    with pytest.raises(ValueError, match="one setting for each lr and localization"):
        plot_grid(trace_of(excess(2, 4, 100), dims=("setting",), nbeta=[1.0, 2.0]))


@pytest.mark.parametrize("num_chains", [4, 1000])
def test_health_shows_every_chain_and_names_those_far_off(num_chains, tmp_path):
    loss = excess(num_chains, 100)
    loss[1] += 0.1
    diverged_at = np.full(num_chains, -1)
    diverged_at[3] = 50
    trace = trace_of(loss, nbeta=50.0, diverged_at=diverged_at)
    top, middle, bottom = drawn(plot_chain_health(trace), tmp_path)
    found = llc(trace)
    kept = np.delete(np.arange(num_chains), 3)
    marks = {bars.get_label(): bars[0].get_xydata() for bars in top.containers}
    points = np.concatenate(list(marks.values()))
    points = points[np.argsort(points[:, 0])]
    np.testing.assert_array_equal(points[:, 0], kept)
    np.testing.assert_allclose(points[:, 1], found["llc_chains"].values[kept])
    assert 1 in marks["far from all"][:, 0]
    assert line(top, "diverged: 1").get_xdata().tolist() == [3]
    assert f"{num_chains - 1} of {num_chains} chains" in top.get_title()
    assert len(middle.lines[0].get_xdata()) == len(bottom.lines[0].get_xdata()) == num_chains - 1
    assert middle.lines[1].get_ydata()[0] == 1.01
    assert bottom.lines[1].get_ydata()[0] == 400 / (num_chains - 1)


def test_health_of_lost_chains_and_of_several_cells(tmp_path):
    axes = drawn(plot_chain_health(trace_of(excess(3, 50), diverged_at=[1, 2, 3])), tmp_path)
    assert "no chain left" in axes[0].get_title()
    with pytest.raises(ValueError, match=r"one checkpoint and one setting, got 2 settings"):
        plot_chain_health(trace_of(excess(2, 3, 50), dims=("setting",)))


@pytest.mark.parametrize("name", plots.__all__)
def test_without_matplotlib_it_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf"{name} needs matplotlib: .*fastllc\[plots\]"):
        getattr(plots, name)(trace_of(excess(2, 50)))


def test_importing_plots_does_not_import_matplotlib(run_python):
    script = "import fastllc.plots, sys; assert 'matplotlib' not in sys.modules"
    result = run_python(script)
    assert result.returncode == 0, result.stderr
