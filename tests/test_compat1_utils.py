"""Utilities of devinterp 1: temperatures, losses, loaders and sweeps."""

import math
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastllc.compat.devinterp1 import utils
from fastllc.compat.devinterp1.samples import minibatches, open_samples
from fastllc.compat.devinterp1.vis_utils import EpsilonBetaAnalyzer


def loader_of(n=10, size=4, **settings):
    return DataLoader(TensorDataset(torch.arange(float(n)), torch.arange(n)), size, **settings)


def test_the_temperature_is_of_the_samples_of_a_step():
    assert utils.default_nbeta(loader_of(size=4)) == 4 / math.log(4)
    batches = torch.utils.data.BatchSampler(range(9), batch_size=3, drop_last=False)
    data = loader_of(size=4).dataset
    assert utils.default_nbeta(DataLoader(data, batch_sampler=batches)) == 3 / math.log(3)
    with pytest.raises(NotImplementedError, match="batch_size"):
        utils.default_nbeta(DataLoader(data, batch_size=None))
    assert utils.default_nbeta(8, grad_accum_steps=2) == 16 / math.log(16)
    with pytest.raises(NotImplementedError, match="dataloader"):
        utils.default_nbeta(3.0)
    for one in (loader_of(size=1), 1):
        with mock.patch.object(utils, "warnings") as warned:
            assert utils.default_nbeta(one) == 1
        warned.warn.assert_called_with(
            "default nbeta is undefined for batch_size * grad_accum_steps == 1, "
            "falling back to default value of 1"
        )


def test_initial_losses_weigh_batches_alike():
    model = nn.Identity().eval()
    loader = loader_of()  # of 4, 4 and 2

    def evaluate(model, data):
        assert model.training
        return {"loss": data[0].mean()}

    means = [1.5, 5.5, 8.5]
    assert utils.get_init_loss_one_batch(loader, model, evaluate, "cpu") == 1.5
    assert utils.get_init_loss_multi_batch(loader, 2, model, evaluate, "cpu") == 3.5
    for found in (
        utils.get_init_loss_multi_batch(loader, 99, model, evaluate, "cpu", seed=1),
        utils.get_init_loss_full_batch(loader, model, evaluate, "cpu"),
    ):
        assert found == pytest.approx(np.mean(means))


def test_what_evaluate_may_return():
    loss, more = torch.tensor(1.0), torch.tensor(2.0)
    assert utils.split_results(loss) == (loss, None)
    assert utils.split_results((loss, more)) == (loss, (more,))
    assert utils.split_results((loss,)) == (loss, (loss,))
    assert utils.split_results({"loss": loss, "more": more}) == (loss, {"more": more})
    assert utils.split_results(utils.Outputs(loss))[0] is loss

    class Structured:
        pass

    made = Structured()
    with pytest.raises(ValueError, match="evaluate"):
        utils.split_results(made)
    made.loss = loss
    assert utils.split_results(made) == (loss, made)


def test_cycles_read_anew():
    shuffled = loader_of(4, 4, shuffle=True)
    torch.manual_seed(0)
    orders = [tuple(y.tolist()) for _, y in utils.cycle(shuffled, 8)]
    assert len(orders) == 8
    assert len(set(orders)) > 1
    assert list(utils.cycle([1, 2], 0)) == []


def test_seeds_are_of_all_random_states():
    found = []
    for _ in range(2):
        utils.set_seed(np.uint32(3))
        found.append((torch.rand(()).item(), np.random.rand()))  # noqa: NPY002
    assert found[0] == found[1]


@pytest.mark.parametrize("settings", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
@pytest.mark.parametrize("generator", [False, True])
def test_minibatches_are_those_of_the_loader(settings, generator):
    if generator:
        settings = settings | {"generator": torch.Generator()}
    loader = loader_of(10, 4, **settings)
    found = []
    for read in (iter, minibatches):
        torch.manual_seed(5)
        if generator:
            loader.generator.manual_seed(6)
        epochs = [batch for _ in range(2) for batch in read(loader)]
        found.append((epochs, torch.rand(3)))
    (loaded, after), (indexed, after_too) = found
    assert torch.equal(after, after_too)
    for a, b in zip(loaded, indexed, strict=True):
        assert type(a) is type(b)
        assert all(x.equal(y) for x, y in zip(a, b, strict=True))


class Squares(torch.utils.data.Dataset):
    """Samples that are read in Python, with a transform."""

    def __init__(self, n=10, transform=lambda x: x):
        self.n, self.transform = n, transform

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"x": self.transform(torch.tensor(float(i))), "y": i}


def test_samples_are_read_into_memory_where_that_changes_nothing():
    samples = open_samples(DataLoader(Squares(), 4, shuffle=True), wanted=100)
    assert samples.batch_size == 4
    assert not samples.shared
    x, y = samples.data.tensors
    assert x.tolist() == y.tolist() == list(range(10))
    batch = samples.repack((x[:2], y[:2]))
    assert batch.keys() == {"x", "y"}
    assert batch["x"] is not None
    assert open_samples(DataLoader(Squares(3), 4, shuffle=True), 100).batch_size == 3


@pytest.mark.parametrize(
    ("loader", "shared"),
    [
        (DataLoader(Squares(), 4), True),
        (DataLoader(Squares(), 4, shuffle=True, collate_fn=lambda samples: samples), False),
        (DataLoader(Squares(transform=lambda x: x + torch.randn(())), 4, shuffle=True), False),
        (
            DataLoader(Squares(transform=lambda x: x + np.random.rand()), 4, shuffle=True),  # noqa: NPY002
            False,
        ),
        (
            DataLoader(
                Squares(),
                4,
                sampler=torch.utils.data.RandomSampler(range(10), replacement=True),
            ),
            False,
        ),
    ],
)
def test_other_loaders_are_used_as_they_are(loader, shared):
    samples = open_samples(loader, wanted=100)
    assert samples.data is loader
    assert samples.batch_size is None
    assert samples.shared == shared


def test_a_loader_that_is_read_less_than_once_is_not_read_at_all():
    read = []
    loader = DataLoader(Squares(transform=lambda x: read.append(x) or x), 4, shuffle=True)
    assert open_samples(loader, wanted=8).data is loader
    assert not read


def estimator(epsilon, beta, fails=()):
    if beta in fails:
        raise RuntimeError("NaN detected")
    return {"llc/trace": np.full((2, 60), beta) * np.linspace(0, 1, 60), "kind": beta > 1}


def test_a_sweep_is_a_row_for_each_point():
    analyzer = EpsilonBetaAnalyzer()
    with pytest.raises(AssertionError, match="configure_sweep"):
        analyzer.sweep()
    analyzer.configure_sweep(
        estimator, {"fails": (1.0,)}, epsilon_samples=3, beta_range=[0.5, 1.0, 2.0]
    )
    np.testing.assert_allclose(analyzer.sweep_config.epsilon_range, [1e-6, 1e-4, 1e-2])
    for rows in (6, 12):
        with pytest.warns(UserWarning, match="beta=1.0 is left out: NaN"):
            analyzer.sweep(add_to_existing=True)
        assert len(analyzer.sweep_df) == rows
    assert set(analyzer.sweep_df["beta"]) == {0.5, 2.0}
    analyzer.configure_sweep(estimator, {}, dataloader=loader_of(size=4), beta_samples=2)
    nbeta = 4 / math.log(4)
    np.testing.assert_allclose(analyzer.sweep_config.beta_range, [1e-2 * nbeta, 1e3 * nbeta])


def test_what_a_sweep_refuses():
    analyzer = EpsilonBetaAnalyzer()
    with pytest.raises(ValueError, match="min_beta and max_beta"):
        analyzer.configure_sweep(estimator, {})
    for name in ("epsilon", "beta"):
        ranges = {"epsilon_range": [1e-3], "beta_range": [1.0]}
        with pytest.raises(AssertionError, match="list-like"):
            analyzer.configure_sweep(estimator, {}, **{**ranges, f"{name}_range": 1.0})
        with pytest.raises(AssertionError, match=f"{name} values"):
            analyzer.configure_sweep(estimator, {}, **{**ranges, f"{name}_range": [0.0]})
    with pytest.warns(UserWarning, match="1e-2"):
        analyzer.configure_sweep(estimator, {}, epsilon_range=[0.1], beta_range=[1.0])
    with pytest.raises(AssertionError, match="No figure"):
        analyzer.save_fig("nowhere.html")


def test_a_sweep_is_plotted(tmp_path):
    pytest.importorskip("plotly", reason="plotly is not installed")
    analyzer = EpsilonBetaAnalyzer()
    with pytest.raises(AssertionError, match="No data"):
        analyzer.plot()
    analyzer.configure_sweep(estimator, {}, epsilon_samples=2, beta_range=[0.5, 2.0])
    analyzer.sweep()
    figure = analyzer.plot(num_last_steps_to_average=1)
    assert sorted(figure.data[0].z) == [0.5, 0.5, 2.0, 2.0]
    assert len(analyzer.plot(true_lambda=0.5).data) == 2
    ratio = analyzer.plot(true_lambda=0.5, color="log_delta_lambda").data[0].marker.color
    np.testing.assert_allclose(sorted(ratio), np.log10([1, 1, 4, 4]))
    assert len(analyzer.plot(slider="kind").data) == 2
    assert len(analyzer.plot(slider="beta", slider_plane=True).data) == 4
    analyzer.save_fig(str(tmp_path / "sweep.html"))
    assert (tmp_path / "sweep.html").exists()


def test_plots_without_plotly_say_what_to_install():
    analyzer = EpsilonBetaAnalyzer()
    without = mock.patch.dict("sys.modules", {"plotly": None, "plotly.express": None})
    with without, pytest.raises(ImportError, match="pip install plotly"):
        analyzer.plot()


def test_traces_are_plotted(monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tight layouts
        utils.plot_trace(np.arange(6.0).reshape(2, 3), "loss", true_lc=1.0)
    axes = plt.gca()
    assert len(axes.lines) == 4
    assert axes.get_ylabel() == "loss"
    plt.close()
