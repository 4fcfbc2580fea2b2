"""Checkpoints: each cell of a study is the run of that checkpoint and setting alone."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import laws
from fastllc import sample
from fastllc.engine.checkpoints import Checkpoints, trainable
from fastllc.seeds import chain_key
from runs import SHORT, assert_close, case, losses, run
from zoo import N, Tied, normal, tokens

one_thread = laws.one_thread

BOTH = ("vectorised", "inplace")
DATA = normal(N, 3), tokens(N, high=2)


class Net(nn.Module):
    """Weights, frozen weights and buffers: of a checkpoint, all of them."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(3, 6)
            self.frozen = nn.Linear(6, 6).requires_grad_(False)
            self.norm = nn.BatchNorm1d(6)
            self.last = nn.Linear(6, 2)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
        self.register_buffer("passing", torch.tensor(1.0), persistent=False)

    def forward(self, x):
        return self.passing * self.last(self.norm(self.frozen(self.first(x).relu())))


def nets(count=3):
    return [Net(seed).eval() for seed in range(count)]


def run_nets(model, **settings):
    return sample(model, DATA, cross_entropy, **SHORT | {"batch_size": 8} | settings)


class WithKey:
    """Makes samplers with keys of our own choosing, whatever the run would give them."""

    def __init__(self, sampler, key):
        self.sampler, self.key = sampler, key

    def __call__(self, params, **settings):
        return self.sampler(params, **settings | {"seed": self.key})


@pytest.mark.parametrize("engine", BOTH)
def test_cells_are_the_runs_of_their_checkpoint_and_setting(kind, engine):
    """Full batches: a chain depends on its noise alone, whose key is the documented hash."""
    models = nets()
    settings = {"batch_size": N, "num_draws": 5, "lr": [1e-3, 3e-3], "num_chains": 2}
    study = run_nets(models, sampler=kind, engine=engine, **settings)
    for c, model in enumerate(models):
        for s, lr in enumerate(settings["lr"]):
            for chain in range(2):
                cell = study.isel(checkpoint=c, setting=s, chain=chain)
                assert float(cell["lr"]) == lr
                alone = run_nets(
                    model,
                    sampler=WithKey(kind, chain_key(3, chain, c, s)),
                    **settings | {"lr": lr, "num_chains": 1, "engine": "inplace"},
                )
                np.testing.assert_allclose(
                    losses(cell), losses(alone)[0], rtol=1e-4, err_msg=f"{c} {s} {chain}"
                )
                assert float(cell["init_loss"]) == pytest.approx(float(alone["init_loss"]))


@pytest.mark.parametrize("name", ["mlp", "conv", "attention", "tied", "scaled"])
def test_engines_agree_on_studies(name):
    made = case(name)
    checkpoints = {seed: case(name, seed).model.state_dict() for seed in (10, 20, 30)}
    settings = {
        "save_metrics": True,
        "num_draws": 5,
        "nbeta": [5.0, 20.0],
        "observables": {"test": made.data},
    }
    fit = {**made.fit, "checkpoints": checkpoints}
    settings = SHORT | settings | {"batch_size": 8}
    stacked, in_place = (sample(**fit, **settings, engine=engine) for engine in BOTH)
    assert_close(stacked, in_place)
    assert stacked["checkpoint"].values.tolist() == [10, 20, 30]
    assert stacked["observables/test/init_loss"].dims == ("checkpoint", "sample")
    init = stacked["init_loss"].values
    assert len(set(init)) == 3
    mean = stacked["observables/test/init_loss"].mean("sample").values
    np.testing.assert_allclose(init, mean, rtol=1e-4)


def test_study_in_chunks_is_the_study():
    whole = run_nets(nets(5), engine="vectorised", lr=[1e-3, 2e-3])
    for chunk in (2, 7, 12):
        cut = run_nets(nets(5), engine="vectorised", lr=[1e-3, 2e-3], chunk_size=chunk)
        assert_close(cut, whole)


def test_common_random_numbers_make_equal_checkpoints_equal():
    model = Net().eval()
    for engine in BOTH:
        trace = run_nets(
            model,
            checkpoints=[model.state_dict()] * 2,
            common_random_numbers=True,
            lr=[1e-3, 2e-3],
            engine=engine,
        )
        first, second = losses(trace)
        np.testing.assert_array_equal(first, second)
        assert not np.allclose(first[0], first[1])  # settings have noise of their own
        assert not np.allclose(first[0, 0], first[0, 1])  # and chains
        apart = run_nets(model, checkpoints=[model.state_dict()] * 2, engine=engine)
        assert not np.allclose(*losses(apart))


def test_common_random_numbers_take_the_variance_out_of_differences():
    """Two checkpoints that differ by little: their losses differ by little, step by step."""
    near = Net().eval()
    with torch.no_grad():
        near.last.bias += 0.01
    variance = {}
    for common in (False, True):
        trace = run_nets(
            [Net().eval(), near],
            common_random_numbers=common,
            num_chains=16,
            num_draws=200,
            batch_size=4,
        )
        first, second = losses(trace).mean(-1)
        variance[common] = (second - first).var(ddof=1)
        # Without them, variances add up.
        if not common:
            assert variance[common] == pytest.approx(first.var() + second.var(), rel=0.8)
    assert variance[True] < variance[False] / 100


def test_names_are_coordinates():
    first, second = nets(2)
    by_name = run_nets({"early": first, "late": second})
    assert by_name["checkpoint"].values.tolist() == ["early", "late"]
    assert by_name["steps/loss"].dims == ("checkpoint", "chain", "step")
    by_step = run_nets(first, checkpoints={1000: first, 2000: second.state_dict()})
    assert by_step["checkpoint"].values.tolist() == [1000, 2000]
    np.testing.assert_array_equal(losses(by_name), losses(by_step))
    in_list = run_nets([first, second])
    assert in_list["checkpoint"].values.tolist() == [0, 1]
    np.testing.assert_array_equal(losses(in_list), losses(by_step))
    one = run_nets(first, checkpoints=[first.state_dict()])
    assert one["steps/loss"].dims == ("checkpoint", "chain", "step")
    assert run_nets(first)["steps/loss"].dims == ("chain", "step")


@pytest.mark.parametrize("engine", BOTH)
def test_no_checkpoint_and_no_model_is_changed(engine):
    models = nets()
    given = [model.state_dict() for model in models]
    kept = [{name: t.clone() for name, t in weights.items()} for weights in given]
    pointers = [[p.data_ptr() for p in model.parameters()] for model in models]
    run_nets(models, engine=engine, lr=[1e-3, 2e-3])
    for model, weights, before, places in zip(models, given, kept, pointers, strict=True):
        assert [p.data_ptr() for p in model.parameters()] == places
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name
            assert torch.equal(weights[name], before[name]), name


def test_buffers_that_share_memory_stay_as_they_are():
    class Wide(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.register_buffer("wide", torch.zeros(1, 2).expand(4, 2))

        def forward(self, x):
            return super().forward(x) + self.wide[0]

    model = Wide()
    place = model.wide.data_ptr()
    other = {**model.state_dict(), "wide": torch.ones(4, 2)}
    both = [
        run_nets(model, checkpoints=[model.state_dict(), other], engine=engine) for engine in BOTH
    ]
    assert_close(*both)
    assert model.wide.data_ptr() == place
    assert model.wide.stride() == (0, 1)
    assert (model.wide == 0).all()


def test_tied_weights_have_one_value():
    model = Tied()
    weights = model.state_dict()
    assert set(Checkpoints(model)[0]) == set(dict(model.named_parameters()))
    one = {name: t for name, t in weights.items() if name != "embed.weight"}
    assert torch.equal(Checkpoints(model, [one])[0]["embed.weight"], model.embed.weight)
    untied = {**weights, "readout.weight": weights["readout.weight"] + 1}
    with pytest.raises(ValueError, match=r"checkpoints\['end'\]\['readout.weight'\] must equal"):
        Checkpoints(model, {"end": untied})


def test_state_that_is_no_tensor_passes():
    class Counted(nn.Linear):
        def get_extra_state(self):
            return {"count": 3}

        def set_extra_state(self, state):
            pass

    model = Counted(3, 2)
    trace = run_nets(model, checkpoints=[model.state_dict()])
    np.testing.assert_array_equal(losses(trace)[0], losses(run_nets(model)))


def test_constants_are_stacked_where_they_differ():
    first, second = Net(0), Net(1)
    second.frozen.load_state_dict(first.frozen.state_dict())
    constants, stacked = Checkpoints(first, [first, second]).constants(slice(0, 2))
    assert stacked == {"norm.running_mean", "norm.running_var"}
    assert constants["norm.running_mean"].shape == (2, 6)
    assert constants["frozen.weight"].shape == (6, 6)
    assert constants["norm.num_batches_tracked"].ndim == 0
    assert constants["norm.num_batches_tracked"] is not first.norm.num_batches_tracked
    _, stacked = Checkpoints(first, [first, second]).constants(slice(1, 2))
    assert stacked == set()


def test_anchors_of_one_checkpoint_are_not_copied():
    model = Net()
    anchors = Checkpoints(model).anchors(slice(0, 1))
    for name, p in trainable(model).items():
        assert anchors[name].data_ptr() == p.data_ptr()
        assert anchors[name].shape == (1, *p.shape)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("weights", TypeError, "checkpoints must be a list or a mapping .* got str"),
        ([], ValueError, "checkpoints must hold at least one state dict, got none"),
        ({}, ValueError, "checkpoints must hold at least one state dict, got none"),
        ([3], TypeError, r"checkpoints\[0\] must be a state dict or a module, got int"),
        (
            {"end": {"weight": torch.zeros(2, 3)}},
            ValueError,
            r"checkpoints\['end'\] must hold .* without \['bias'\] and with none",
        ),
        (
            [nn.Sequential(nn.Linear(3, 2))],
            ValueError,
            r"without \['bias', 'weight'\] and with \['0.bias', '0.weight'\]",
        ),
        (
            [nn.Linear(3, 4)],
            ValueError,
            r"checkpoints\[0\]\['weight'\] must be float32 of shape \(2, 3\), got float32 of shape "
            r"\(4, 3\)",
        ),
        ([nn.Linear(3, 2).double()], ValueError, r"\['weight'\] must be float32 .* got float64"),
        (
            [{"weight": np.zeros((2, 3)), "bias": torch.zeros(2)}],
            TypeError,
            r"checkpoints\[0\]\['weight'\] must be a tensor, got ndarray",
        ),
    ],
)
def test_bad_checkpoints(given, error, message):
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(error, match=message):
        run_nets(model, checkpoints=given)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        ([], ValueError, "model must be a module or several of them, got none"),
        ([nn.Linear(3, 2), Net()], ValueError, "modules of one class, got Linear and Net"),
        ([1, 2], TypeError, r"model must be a torch\.nn\.Module, got int"),
        ("net", TypeError, r"model must be a torch\.nn\.Module, got str"),
        ([nn.Linear(3, 2), nn.Linear(4, 2)], ValueError, r"checkpoints\[1\]\['weight'\]"),
    ],
)
def test_bad_models(models, error, message):
    with pytest.raises(error, match=message):
        run_nets(models)


def test_models_and_checkpoints_exclude_each_other():
    with pytest.raises(ValueError, match="checkpoints must be None if several models are given"):
        run_nets(nets(), checkpoints=[Net()])


def test_weights_that_share_memory_are_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    with pytest.raises(ValueError, match="params must not share memory"):
        run(case("mlp")._replace(model=model))
