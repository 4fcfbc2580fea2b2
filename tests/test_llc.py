"""The LLC against closed forms, and the promises a fit makes to its caller."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fastllc import SGLD, DivergenceError, DivergenceWarning, LLCEstimator, default_nbeta
from fastllc.peers import TorchSGLD

DATA = TensorDataset(torch.zeros(4, 1))
IN_PLACE = {"engine": "inplace"}  # also where the model is in training mode, and says so
SHORT = {"lr": 1e-3, "num_chains": 2, "num_draws": 20, "seed": 3, "progress": False}


class Point(nn.Module):
    """Weights and nothing else; the loss is whatever `evaluate` makes of them."""

    def __init__(self, start):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(start, dtype=torch.float32))

    def forward(self, x):
        return self.w.expand(len(x), -1)


class Net(nn.Module):
    """Dropout and batch normalisation, a frozen layer and a frozen mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Linear(3, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.quiet = nn.Dropout(0.9).eval()
        self.last = nn.Linear(8, 2)
        self.register_buffer("shared", torch.arange(3.0).expand(4, 3))

    def forward(self, x):
        return self.last(self.quiet(self.drop(self.norm(self.frozen(self.first(x).relu())))))


def classes(n=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, generator=generator), torch.arange(n) % 2


def fingerprint(model):
    """Everything of a model that a fit must hand back."""
    return (
        {name: (id(t), t.detach().numpy().tobytes()) for name, t in model.named_parameters()},
        {name: (id(t), t.numpy().tobytes()) for name, t in model.named_buffers()},
        [(id(p.grad), None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [module.training for module in model.modules()],
    )


@pytest.mark.parametrize("sampler", [SGLD, TorchSGLD])
def test_quadratic_with_step_size_bias(sampler):
    """lambda(beta, gamma, eps) of a discretised chain on L = 1/2 sum h w^2, full batch."""
    h = torch.tensor([1.0, 0.5, 0.1, 0.02]).repeat(250)
    nbeta, gamma, lr = 100.0, 5.0, 0.01
    a = nbeta * h + gamma
    exact = (0.5 * nbeta * h / (a * (1 - lr * a / 4))).sum().item()
    continuous = (0.5 * nbeta * h / a).sum().item()
    estimator = LLCEstimator(
        sampler=sampler,
        lr=lr,
        nbeta=nbeta,
        localization=gamma,
        num_chains=4,
        num_burnin_steps=300,
        num_draws=1500,
        seed=0,
        progress=False,
    )
    estimator.fit(Point(torch.zeros(1000)), DATA, evaluate=lambda m, _: 0.5 * (h * m.w**2).sum())
    assert estimator.llc_sem_ < 0.005 * exact
    assert abs(estimator.llc_ - exact) < 4 * estimator.llc_sem_
    assert abs(estimator.llc_ - continuous) > 10 * estimator.llc_sem_
    assert estimator.summary().warnings == ()


def test_quartic_obeys_the_virial_theorem():
    """nbeta E[sum w^4] = d / 4 at every temperature, gamma = 0."""
    d = 2000
    estimator = LLCEstimator(
        lr=3e-4,
        nbeta=100.0,
        localization=0.0,
        num_chains=2,
        num_burnin_steps=1000,
        num_draws=2000,
        seed=0,
        progress=False,
    )
    estimator.fit(Point(torch.zeros(d)), DATA, evaluate=lambda m, _: (m.w**4).sum())
    assert estimator.llc_sem_ < 0.01 * d / 4
    # The step size adds about 1 %.
    assert abs(estimator.llc_ - d / 4) < 4 * estimator.llc_sem_ + 0.015 * d / 4


def test_minibatches_heat_the_chain_as_computed():
    """Loss 1/2 |w - x|^2: variance (1 + eps nbeta^2 / (4 B)) / (a (1 - eps a / 4)) per weight."""
    n, d, batch_size = 20_000, 100, 10
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (n, d), generator=generator) * 2.0 - 1.0
    nbeta, gamma, lr = 100.0, 100.0, 1e-3
    a = nbeta + gamma
    heat = 1 + lr * nbeta**2 / (4 * batch_size)
    exact = 0.5 * nbeta * d * heat / (a * (1 - lr * a / 4))
    estimator = LLCEstimator(
        lr=lr,
        nbeta=nbeta,
        localization=gamma,
        num_chains=4,
        num_burnin_steps=100,
        num_draws=3000,
        batch_size=batch_size,
        seed=0,
        progress=False,
    )
    estimator.fit(
        Point(x.mean(0)), (x, torch.zeros(n)), evaluate=lambda m, b: ((m.w - b[0]) ** 2).sum(1) / 2
    )
    assert estimator.llc_sem_ < 0.02 * exact
    assert abs(estimator.llc_ - exact) < 4 * estimator.llc_sem_


def test_estimate_is_the_formula_on_the_recorded_losses():
    estimator = LLCEstimator(**SHORT | {"num_burnin_steps": 5, "num_steps_bw_draws": 3, "nbeta": 7})
    estimator.fit(Net().eval(), classes(), nn.functional.cross_entropy)
    trace = estimator.trace_["steps"]["loss"].values
    assert trace.shape == (2, 5 + 20 * 3)
    assert trace.dtype == np.float32
    per_chain = 7 * (trace[:, 7::3].astype(float).mean(axis=1) - estimator.init_loss_)
    np.testing.assert_allclose(estimator.llc_chains_, per_chain, rtol=1e-6)
    assert estimator.llc_ == pytest.approx(per_chain.mean())
    assert estimator.llc_std_ == pytest.approx(per_chain.std(ddof=1))


def test_init_loss_is_the_mean_over_all_samples():
    model, data = Net().eval(), classes(11)
    exact = nn.functional.cross_entropy(model(data[0]), data[1]).item()
    for batch_size in (4, 11):
        estimator = LLCEstimator(**SHORT, batch_size=batch_size)
        estimator.fit(model, data, nn.functional.cross_entropy)
        assert estimator.init_loss_ == pytest.approx(exact, rel=1e-6)
        assert estimator.nbeta_ == default_nbeta(11)
    assert LLCEstimator(**SHORT, init_loss=0.25).fit(
        model, data, nn.functional.cross_entropy
    ).init_loss_ == pytest.approx(0.25)


def test_every_form_of_data_and_loss_gives_the_same_full_batch_chain():
    model, (x, y) = Net().eval(), classes()
    cross_entropy = nn.functional.cross_entropy
    each = nn.CrossEntropyLoss(reduction="none")
    dataset = TensorDataset(x, y)
    estimator = LLCEstimator(**SHORT)
    fits = [
        estimator.fit(model, (x, y), cross_entropy).llc_,
        estimator.fit(model, dataset, each).llc_,
        estimator.fit(model, DataLoader(dataset, 40), cross_entropy).llc_,
        estimator.fit(model, (x, y), evaluate=lambda m, b: cross_entropy(m(b[0]), b[1])).llc_,
        estimator.fit(
            model, DataLoader(dataset, 40), evaluate=lambda m, b: each(m(b[0]), b[1])
        ).llc_,
    ]
    assert fits == pytest.approx([fits[0]] * len(fits), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_loader_with_workers():
    loader = DataLoader(
        TensorDataset(*classes()), 8, shuffle=True, num_workers=2, persistent_workers=True
    )
    model = Net().eval()
    first, second = (
        LLCEstimator(**SHORT).fit(model, loader, nn.functional.cross_entropy) for _ in range(2)
    )
    assert first.trace_.identical(second.trace_)
    assert first.trace_.attrs["batch_size"] == 8


def test_data_of_unknown_size_need_nbeta():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(*classes(), strict=True))

    fit = {"model": Net().eval(), "data": Stream(), "loss_fn": nn.functional.cross_entropy}
    with pytest.raises(ValueError, match=r"nbeta must be given .* got None"):
        LLCEstimator(**SHORT, batch_size=10).fit(**fit)
    estimator = LLCEstimator(**SHORT, batch_size=10, nbeta=5.0).fit(**fit)
    assert math.isfinite(estimator.llc_)
    assert estimator.trace_.attrs["num_samples"] == "none"


def test_the_seed_decides_everything():
    model, data = Net().train(), classes()

    def trace(**settings):
        estimator = LLCEstimator(**SHORT | IN_PLACE | {"batch_size": 8} | settings)
        return (
            estimator.fit(model, data, nn.functional.cross_entropy).trace_["steps"]["loss"].values
        )

    first = trace()
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, trace())
    np.testing.assert_array_equal(first[:1], trace(num_chains=1))
    assert not (first == trace(seed=4)).any()
    assert not (first[0] == first[1]).any()


def test_without_a_seed_torch_decides_and_it_is_recorded():
    model, data = Net().eval(), classes()
    estimator = LLCEstimator(**SHORT | {"seed": None})
    torch.manual_seed(1)
    first = estimator.fit(model, data, nn.functional.cross_entropy)
    llc, seed = first.llc_, first.seed_
    assert estimator.fit(model, data, nn.functional.cross_entropy).seed_ != seed
    torch.manual_seed(1)
    assert estimator.fit(model, data, nn.functional.cross_entropy).llc_ == llc
    again = LLCEstimator(**SHORT | {"seed": seed}).fit(model, data, nn.functional.cross_entropy)
    assert again.llc_ == llc
    assert again.trace_.attrs["seed"] == seed


@pytest.mark.parametrize("kind", ["pair", "dataset", "loader"])
def test_random_state_of_the_caller_is_untouched(kind):
    data = classes()
    own = torch.Generator().manual_seed(0)
    if kind == "loader":
        data = DataLoader(TensorDataset(*data), 8, shuffle=True, generator=own)
    elif kind == "dataset":
        data = torch.utils.data.ConcatDataset([TensorDataset(*data)])
    model = Net().train()
    before = torch.get_rng_state(), own.get_state()
    LLCEstimator(**SHORT | IN_PLACE).fit(model, data, nn.functional.cross_entropy)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(own.get_state(), before[1])


@pytest.mark.parametrize("trouble", [None, ValueError, KeyboardInterrupt, "diverge"])
@pytest.mark.parametrize("train", [True, False])
def test_the_model_comes_back_as_it_was(trouble, train):
    model, data = Net(), classes()
    if not train:
        model.eval()
    nn.functional.cross_entropy(model(data[0]), data[1]).backward()
    with torch.no_grad():
        model.last.bias[0] = -0.0
    before = fingerprint(model)
    calls = 0

    def loss_fn(outputs, targets):
        nonlocal calls
        calls += 1
        if calls > 25 and isinstance(trouble, type):
            raise trouble("stop")
        return nn.functional.cross_entropy(outputs, targets)

    lr = 1e30 if trouble == "diverge" else 1e-2
    engine = "inplace" if train else "auto"
    estimator = LLCEstimator(**SHORT | {"lr": lr, "batch_size": 10, "engine": engine})
    if trouble is None:
        estimator.fit(model, data, loss_fn)
    elif trouble is KeyboardInterrupt:
        with pytest.warns(UserWarning, match="the run was interrupted"):
            estimator.fit(model, data, loss_fn)
    else:
        error = DivergenceError if trouble == "diverge" else trouble
        with pytest.raises(error):
            estimator.fit(model, data, loss_fn)
    assert fingerprint(model) == before


def test_chains_start_from_the_same_buffers():
    model, seen = Net().train(), []

    def evaluate(m, batch):
        seen.append(int(m.norm.num_batches_tracked))
        return nn.functional.cross_entropy(m(batch[0]), batch[1])

    settings = SHORT | {"num_draws": 3, "engine": "inplace"}
    LLCEstimator(**settings).fit(model, classes(), evaluate=evaluate)
    assert seen == [0, 0, 0, 1, 2, 0, 1, 2]


def test_frozen_weights_are_not_sampled():
    model, moved = Net().eval(), set()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}

    def evaluate(m, batch):
        moved.update(n for n, p in m.named_parameters() if not torch.equal(p, start[n]))
        return nn.functional.cross_entropy(m(batch[0]), batch[1])

    LLCEstimator(**SHORT).fit(model, classes(), evaluate=evaluate)
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}


def test_gradient_mode_of_the_caller_does_not_matter():
    with torch.no_grad():
        LLCEstimator(**SHORT).fit(Net().eval(), classes(), nn.functional.cross_entropy)
        assert not torch.is_grad_enabled()


def nan_in(chain, step):
    """Loss that turns NaN in one chain: a chain begins where the weights are those at the start."""
    begun, steps = -1, 0

    def evaluate(model, batch):
        nonlocal begun, steps
        if torch.is_grad_enabled() and not model.w.any():
            # The first look at the loss is the check, not a chain.
            begun, steps = begun + 1, 0
        loss = (model.w**2).sum()
        if begun - 1 == chain and steps == step:
            loss = loss * math.nan
        steps += 1
        return loss

    return evaluate


def test_a_chain_that_turns_nan_is_frozen_named_and_left_out():
    estimator = LLCEstimator(
        **SHORT | {"num_chains": 4, "nbeta": 10.0, "num_draws": 250, "engine": "inplace"}
    )
    with pytest.warns(DivergenceWarning, match=r"1 of 4 chains .* \(chain 1 at step 130\)"):
        estimator.fit(Point(torch.zeros(3)), DATA, evaluate=nan_in(chain=1, step=130))
    trace = estimator.trace_
    losses = trace["steps"]["loss"]
    assert trace["diverged_at"].values.tolist() == [-1, 130, -1, -1]
    assert np.isfinite(losses[1, :130]).all()
    assert np.isnan(losses[1, 130:]).all()
    assert np.isfinite(losses[[0, 2, 3]]).all()
    assert math.isnan(estimator.llc_chains_[1])
    assert estimator.llc_ == pytest.approx(estimator.llc_chains_[[0, 2, 3]].mean())
    assert estimator.llc_std_ == pytest.approx(estimator.llc_chains_[[0, 2, 3]].std(ddof=1))
    summary = estimator.summary()
    assert summary.diverged == (1,)
    assert summary.num_chains == 3
    assert "chain 1" in str(summary)
    assert len(estimator.plot_trace().axes) == 2


def test_a_lost_chain_is_not_asked_again():
    asked = 0

    def evaluate(model, batch):
        nonlocal asked
        asked += torch.is_grad_enabled()
        if not model.w.isfinite().all():
            raise AssertionError("the weights are not finite")
        return (model.w**2).sum() * (math.nan if asked == 5 else 1.0)

    estimator = LLCEstimator(**SHORT | {"num_chains": 1})
    with pytest.raises(DivergenceError, match="the first at step 3"):
        estimator.fit(Point(torch.zeros(3)), DATA, evaluate=evaluate)
    assert asked == 5


def test_weights_that_turn_nan_behind_a_finite_loss_are_found():
    class Spoils(TorchSGLD):
        def step(self, closure=None):
            super().step(closure)
            with torch.no_grad():
                self.param_groups[0]["params"][0][0] = math.nan

    estimator = LLCEstimator(**SHORT | {"sampler": Spoils})
    with pytest.raises(DivergenceError):
        estimator.fit(
            Point(torch.zeros(3)), DATA, evaluate=lambda m, _: (m.w.nan_to_num() ** 2).sum()
        )


@pytest.mark.parametrize("sampler", [SGLD, TorchSGLD])
def test_if_every_chain_diverges_the_error_says_what_to_change(sampler):
    estimator = LLCEstimator(**SHORT | {"sampler": sampler, "lr": 1e3, "num_draws": 300})
    with pytest.raises(
        DivergenceError, match=r"all 2 chains diverged.*lower lr \(got 1000\)"
    ) as caught:
        estimator.fit(Point(torch.zeros(3)), DATA, evaluate=lambda m, _: (m.w**2).sum())
    losses = caught.value.trace["steps"]["loss"].values
    assert losses[0, 0] == 0
    assert np.isfinite(losses[:, :3]).all()


def test_samples_record_how_they_were_made():
    estimator = LLCEstimator(**SHORT, bounding_box_size=np.float64(2.0))
    estimator.fit(Net().eval(), classes(), nn.functional.cross_entropy)
    attrs = estimator.trace_.attrs
    assert {type(value) for value in attrs.values()} <= {str, int, float}
    json.dumps(attrs)
    expected = {
        "sampler": "SGLD",
        "lr": 1e-3,
        "nbeta": default_nbeta(40),
        "localization": 100.0,
        "noise_level": 1.0,
        "weight_decay": 0.0,
        "bounding_box_size": 2.0,
        "num_chains": 2,
        "num_draws": 20,
        "num_burnin_steps": 0,
        "num_steps_bw_draws": 1,
        "batch_size": 40,
        "num_samples": 40,
        "init_loss": "full",
        "seed": 3,
    }
    assert attrs.items() >= expected.items()
    assert {"build_version", "build_torch", "build_noise_format"} <= attrs.keys()
    assert dict(estimator.trace_["steps"]["loss"].sizes) == {"chain": 2, "step": 20}


def test_results_before_fit_say_so():
    with pytest.raises(AttributeError, match="call fit first"):
        LLCEstimator().summary()
    with pytest.raises(AttributeError, match="call fit first"):
        LLCEstimator().plot_trace()


def test_constructor_only_stores():
    estimator = LLCEstimator(lr=-1.0, num_draws="many")
    assert estimator.lr == -1.0
    assert estimator.num_draws == "many"


def test_a_model_off_its_minimum_is_reported():
    estimator = LLCEstimator(**SHORT | {"lr": 0.01, "nbeta": 100.0, "localization": 0.0})
    estimator.fit(Point(torch.ones(3)), DATA, evaluate=lambda m, _: (m.w**2).sum())
    assert estimator.llc_ < 0
    assert any("negative" in text for text in estimator.summary().warnings)


def test_plot_trace_draws_and_writes(tmp_path):
    from matplotlib import pyplot as plt

    estimator = LLCEstimator(**SHORT, num_burnin_steps=10)
    estimator.fit(Net().eval(), classes(), nn.functional.cross_entropy)
    figure = estimator.plot_trace()
    figure.savefig(tmp_path / "trace.png")
    assert [bool(ax.get_ylabel()) for ax in figure.axes] == [True, True]
    assert figure.axes[-1].get_xlabel() == "sampler step"
    other, ax = plt.subplots()
    assert estimator.plot_trace(ax) is other
    assert ax.lines
    plt.close("all")


def test_plot_without_matplotlib_says_what_to_install(monkeypatch):
    estimator = LLCEstimator(**SHORT).fit(Net().eval(), classes(), nn.functional.cross_entropy)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"fastllc\[plots\]"):
        estimator.plot_trace()


def test_progress_shows_rate_llc_and_losses(capsys):
    estimator = LLCEstimator(
        **SHORT | {"progress": True, "num_chains": 3, "nbeta": 10.0, "engine": "inplace"}
    )
    with pytest.warns(DivergenceWarning):
        estimator.fit(Point(torch.zeros(3)), DATA, evaluate=nan_in(chain=0, step=4))
    shown = capsys.readouterr().err
    for words in ("step/s", "llc=", "diverged=1", "chains=3"):
        assert words in shown
    LLCEstimator(**SHORT).fit(Net().eval(), classes(), nn.functional.cross_entropy)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, "lr must be finite and > 0, got 0.0"),
        ({"lr": math.nan}, ValueError, "lr must be finite and > 0, got nan"),
        ({"lr": "fast"}, TypeError, "lr must be finite and > 0, got 'fast'"),
        ({"nbeta": -1.0}, ValueError, "nbeta must be finite and > 0, got -1.0"),
        ({"localization": -1.0}, ValueError, "localization must be finite and >= 0, got -1.0"),
        ({"noise_level": math.inf}, ValueError, "noise_level must be finite and >= 0, got inf"),
        ({"weight_decay": True}, TypeError, "weight_decay must be finite and >= 0, got True"),
        ({"bounding_box_size": 0}, ValueError, "bounding_box_size must be finite and > 0, got 0"),
        ({"num_chains": 0}, ValueError, "num_chains must be >= 1, got 0"),
        ({"num_draws": 0}, ValueError, "num_draws must be >= 1, got 0"),
        ({"num_draws": 2.5}, TypeError, "num_draws must be an int, got 2.5"),
        ({"num_burnin_steps": -1}, ValueError, "num_burnin_steps must be >= 0, got -1"),
        ({"num_steps_bw_draws": 0}, ValueError, "num_steps_bw_draws must be >= 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
        ({"batch_size": 41}, ValueError, r"batch_size must be <= 40 .* got 41"),
        ({"init_loss": "half"}, TypeError, 'init_loss must be a finite number, "full" or "paired"'),
        (
            {"init_loss": math.nan},
            ValueError,
            'init_loss must be a finite number, "full" or "paired"',
        ),
        ({"seed": -1}, ValueError, r"seed must be >= 0 and < \d+, got -1"),
        ({"seed": 2**63}, ValueError, "seed must be"),
        ({"sampler": "SGLD"}, TypeError, "sampler must be callable, got 'SGLD'"),
    ],
)
def test_bad_settings(settings, error, message):
    model = Net()
    before = fingerprint(model)
    with pytest.raises(error, match=message):
        LLCEstimator(**SHORT | settings).fit(model, classes(), nn.functional.cross_entropy)
    assert fingerprint(model) == before


@pytest.mark.parametrize(
    ("loss_fn", "error", "message"),
    [
        (lambda o, t: 1.0, TypeError, "loss_fn must return a torch.Tensor, got float"),
        (lambda o, t: o, ValueError, r"loss_fn must .* shape \[40\], got shape \[40, 2\]"),
        (lambda o, t: o[:7, 0], ValueError, r"loss_fn must .* shape \[40\], got shape \[7\]"),
        (lambda o, t: o.sum() / 0, ValueError, "loss_fn must be finite .* on the first batch"),
        (lambda o, t: o.detach().sum(), ValueError, "loss_fn must depend on the trainable"),
        ("mse", TypeError, "loss_fn must be callable, got str"),
        (None, TypeError, "exactly one of loss_fn and evaluate must be given, got neither"),
    ],
)
def test_bad_losses(loss_fn, error, message):
    model = Net()
    before = fingerprint(model)
    with pytest.raises(error, match=message):
        LLCEstimator(**SHORT).fit(model, classes(), loss_fn)
    assert fingerprint(model) == before


def test_more_bad_input():
    model, data = Net(), classes()
    estimator = LLCEstimator(**SHORT)
    loss_fn = nn.functional.cross_entropy
    with pytest.raises(TypeError, match=r"exactly one .* got both"):
        estimator.fit(model, data, loss_fn, evaluate=lambda m, b: 0)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        estimator.fit(loss_fn, data, loss_fn)
    with pytest.raises(ValueError, match="model must have a parameter that requires a gradient"):
        estimator.fit(Net().requires_grad_(False), data, loss_fn)
    with pytest.raises(ValueError, match=r"data must yield .* give evaluate"):
        estimator.fit(model, DATA, loss_fn)
    with pytest.raises(ValueError, match="evaluate must be finite"):
        estimator.fit(model, data, evaluate=lambda m, b: m(b[0]).sum() * math.inf)
    with pytest.raises(ValueError, match="nbeta must be given for data of fewer than 2 samples"):
        estimator.fit(model, classes(1), loss_fn)


def test_a_loss_that_is_finite_on_the_first_batch_alone_is_found():
    x, y = classes()
    x[-1] = math.nan
    data = DataLoader(TensorDataset(x, y), 10)
    with pytest.raises(ValueError, match=r"loss_fn must be finite .* over the full data"):
        LLCEstimator(**SHORT).fit(Net().eval(), data, nn.functional.cross_entropy)


def test_default_nbeta():
    assert default_nbeta(1000) == pytest.approx(1000 / math.log(1000))
    for bad, error in ((1, ValueError), (0, ValueError), (10.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="num_samples must be"):
            default_nbeta(bad)
