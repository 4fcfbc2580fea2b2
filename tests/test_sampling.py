"""`sample` as it is documented: dimensions, coordinates, attributes, and bad input by name."""

import functools
import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from engine import SHORT, assert_same, losses, run
from fastllc import SGLD, Metrics, RMSpropSGLD, Sampling, build_info, default_nbeta, sample
from zoo import Case, N, case, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = normal(N, 3), tokens(N, high=2)


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("grid", [False, True])
def test_the_trace_is_as_documented(engine, checkpoints, grid):
    models = {"a": case("mlp").model, "b": case("mlp", 1).model}
    trace = run(
        Case(models if checkpoints else models["a"], DATA, cross_entropy),
        engine=engine,
        lr=[1e-4, 1e-3] if grid else 1e-3,
        num_burnin_steps=2,
        num_steps_bw_draws=3,
        num_draws=4,
        save_metrics=True,
        save_acceptance=True,
        observables={"test": (DATA[0][:6], DATA[1][:6])},
    )
    at = ("checkpoint",) if checkpoints else ()
    leading = (*at, *(("setting",) if grid else ()), "chain")
    sizes = {"checkpoint": 2, "setting": 2, "chain": 3, "step": 14, "draw": 4, "sample": 6}
    wanted = {
        "/init_loss": at,
        "/diverged_at": leading,
        "/steps/loss": (*leading, "step"),
        "/steps/baseline": (*leading, "step"),
        **{f"/metrics/{name}": (*leading, "draw") for name in Metrics._fields},
        "/metrics/mala_acceptance": (*leading, "draw"),
        "/observables/test/loss": (*leading, "draw", "sample"),
        "/observables/test/init_loss": (*at, "sample"),
    }
    found = {
        f"{node.path.rstrip('/')}/{name}": variable
        for node in trace.subtree
        for name, variable in node.to_dataset(inherit=False).data_vars.items()
    }
    assert {name: variable.dims for name, variable in found.items()} == wanted
    for name, variable in found.items():
        assert variable.shape == tuple(sizes[dim] for dim in variable.dims)
        assert np.isfinite(variable).all()
        assert variable.dtype == {"/diverged_at": np.int64, "/init_loss": np.float64}.get(
            name, np.float32
        )
    assert (trace["diverged_at"].values == -1).all()
    assert trace["steps/loss"].coords["step"].values.tolist() == list(range(14))
    assert trace["chain"].values.tolist() == [0, 1, 2]
    for node in ("metrics", "observables/test"):
        assert trace[node]["draw"].values.tolist() == [0, 1, 2, 3]
        assert trace[node]["step"].values.tolist() == [4, 7, 10, 13]
    if checkpoints:
        assert trace["checkpoint"].values.tolist() == ["a", "b"]
    for name, value in {"lr": [1e-4, 1e-3], "nbeta": 10.0, "localization": 5.0}.items():
        coordinate = trace.coords[name]
        assert coordinate.dims == (("setting",) if grid else ())
        values = value if grid else (value[1] if name == "lr" else value)
        assert coordinate.values.tolist() == (
            np.broadcast_to(values, 2).tolist() if grid else values
        )


def test_what_was_not_asked_for_is_not_there():
    trace = run(case("mlp"), init_loss="full")
    assert set(trace.children) == {"steps"}
    assert set(trace["steps"].data_vars) == {"loss"}


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
def test_attributes_say_how_it_was_made_in_plain_types(engine):
    sampler = functools.partial(RMSpropSGLD, alpha=0.5, adapt_steps=2)
    settings = {
        "sampler": sampler,
        "nbeta": None,
        "bounding_box_size": np.float64(0.5),
        "autocast": torch.bfloat16,
        "mask": {"0.bias": torch.ones(8, dtype=torch.bool)},
        "num_chains": np.int64(2),
        "shared_batches": True,
        "lr": [np.float64(1e-4), 1e-3],
    }
    trace = run(case("mlp"), engine=engine, **settings)
    attrs = trace.attrs
    again = json.loads(json.dumps(attrs))
    assert again == attrs
    assert {type(v) for v in attrs.values()} <= {str, int, float, list}
    assert attrs["sampler"] == "RMSpropSGLD(alpha=0.5, adapt_steps=2)"
    assert attrs["lr"] == [1e-4, 1e-3]
    assert attrs["nbeta"] == "none"
    assert trace["nbeta"].values.tolist() == [default_nbeta(N)] * 2
    assert attrs["mask"] == "0.bias"
    assert attrs["autocast"] == "torch.bfloat16"
    assert attrs["engine"] == engine
    assert attrs["engine_reason"]
    assert (attrs["seed"], attrs["batch_size"], attrs["num_samples"]) == (1, 5, N)
    assert (attrs["shared_batches"], attrs["replacement"]) == (1, 0)
    for name, value in build_info().items():
        assert attrs[f"build_{name}"] == (value if isinstance(value, (int, str)) else str(value))


def test_without_a_grid_attributes_hold_what_was_used():
    attrs = run(case("mlp"), nbeta=None).attrs
    assert attrs["nbeta"] == default_nbeta(N)
    assert attrs["lr"] == 1e-3


def test_a_recorded_seed_gives_the_same_run():
    torch.manual_seed(5)
    first = run(case("mlp"), seed=None)
    second = run(case("mlp"), seed=None)
    assert first.attrs["seed"] != second.attrs["seed"]
    assert 0 <= first.attrs["seed"] < 2**63
    assert_same(run(case("mlp"), seed=first.attrs["seed"]), first)
    torch.manual_seed(5)
    assert_same(run(case("mlp"), seed=None), first)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_seeds_of_any_size(seed):
    assert run(case("mlp"), seed=seed).attrs["seed"] == seed


def test_settings_are_checked_when_they_are_run():
    assert Sampling(lr=-1.0).lr == -1.0


def model_state(model):
    return {name: (t.data_ptr(), t.tolist()) for name, t in model.state_dict().items()}


FINITE = "must be finite and > 0"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sampler": "SGLD"}, TypeError, "sampler must be callable, got 'SGLD'"),
        ({"lr": 0.0}, ValueError, f"lr {FINITE}, got 0.0"),
        ({"lr": []}, ValueError, "lr must be a number or a list of them, got an empty list"),
        ({"lr": [1e-3, -1.0]}, ValueError, rf"lr\[1\] {FINITE}, got -1.0"),
        ({"lr": "1e-3"}, TypeError, f"lr {FINITE}, got '1e-3'"),
        ({"lr": np.array([1e-3])}, TypeError, f"lr {FINITE}"),
        ({"nbeta": math.inf}, ValueError, f"nbeta {FINITE}, got inf"),
        ({"nbeta": [1.0, True]}, TypeError, rf"nbeta\[1\] {FINITE}, got True"),
        ({"localization": -1.0}, ValueError, "localization must be finite and >= 0, got -1.0"),
        ({"localization": [math.nan]}, ValueError, r"localization\[0\] must be finite and >= 0"),
        ({"noise_level": -1}, ValueError, "noise_level must be finite and >= 0, got -1"),
        ({"noise_level": [1.0]}, TypeError, r"noise_level must be finite and >= 0, got \[1.0\]"),
        ({"weight_decay": "no"}, TypeError, "weight_decay must be finite and >= 0, got 'no'"),
        ({"bounding_box_size": 0.0}, ValueError, f"bounding_box_size {FINITE}, got 0.0"),
        ({"mask": [True]}, TypeError, "mask must be tensors by name, got list"),
        ({"mask": {"9.bias": torch.ones(8) > 0}}, ValueError, r"mask .* got \['9.bias'\]"),
        ({"mask": {"0.bias": torch.ones(8)}}, TypeError, "mask.* bool"),
        ({"mask": {"0.bias": torch.ones(3) > 0}}, ValueError, "mask.* shape"),
        ({"num_chains": 0}, ValueError, "num_chains must be >= 1, got 0"),
        ({"num_chains": 2.0}, TypeError, "num_chains must be an int, got 2.0"),
        ({"num_draws": -3}, ValueError, "num_draws must be >= 1, got -3"),
        ({"num_burnin_steps": -1}, ValueError, "num_burnin_steps must be >= 0, got -1"),
        ({"num_steps_bw_draws": 0}, ValueError, "num_steps_bw_draws must be >= 1, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
        ({"batch_size": N + 1}, ValueError, rf"batch_size must be <= {N} .* got {N + 1}"),
        ({"replacement": 1}, TypeError, "replacement must be a bool, got 1"),
        ({"shared_batches": "yes"}, TypeError, "shared_batches must be a bool, got 'yes'"),
        ({"accumulation": 0}, ValueError, "accumulation must be >= 1, got 0"),
        ({"autocast": "bfloat16"}, ValueError, "autocast must be torch.bfloat16"),
        ({"autocast": torch.int32}, ValueError, "autocast must be .* got torch.int32"),
        ({"init_loss": "half"}, TypeError, 'init_loss must be a finite number, "full" or "paired"'),
        ({"init_loss": math.nan}, ValueError, "init_loss must be a finite number"),
        ({"save_metrics": None}, TypeError, "save_metrics must be a bool, got None"),
        ({"save_acceptance": 1}, TypeError, "save_acceptance must be a bool, got 1"),
        (
            {"save_acceptance": True, "sampler": RMSpropSGLD},
            TypeError,
            "mala_acceptance needs an SGLD sampler, got RMSpropSGLD",
        ),
        ({"seed": -1}, ValueError, r"seed must be >= 0 and < \d+, got -1"),
        ({"seed": 2**63}, ValueError, "seed must be >= 0 and <"),
        ({"seed": 1.0}, TypeError, "seed must be an int, got 1.0"),
        ({"common_random_numbers": 0}, TypeError, "common_random_numbers must be a bool, got 0"),
        ({"engine": "fast"}, ValueError, "engine must be 'auto', 'vectorised' or 'inplace'"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be >= 1, got 0"),
        ({"compile": 1}, TypeError, "compile must be a bool, got 1"),
        ({"progress": None}, TypeError, "progress must be a bool, got None"),
        ({"observables": 3}, TypeError, "observables must be data by name, got int"),
        ({"store": 3}, TypeError, "store must be a path, got 3"),
        ({"temperature": 1.0}, TypeError, "temperature"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("engine", ["auto", "inplace"])
def test_bad_settings_are_named_and_change_nothing(settings, error, message, engine):
    model = case("mlp").model
    before, state = model_state(model), torch.get_rng_state()
    with pytest.raises(error, match=message):
        sample(model, DATA, cross_entropy, **SHORT | {"engine": engine} | settings)
    assert model_state(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def loader(**how):
    return DataLoader(TensorDataset(*DATA), 5, **how)


@pytest.mark.parametrize(
    ("data", "settings", "error", "message"),
    [
        (torch.zeros(3), {}, TypeError, "data must be .* got Tensor"),
        ((torch.zeros(3),), {}, TypeError, r"data must be .* got a tuple of 1 \(Tensor\)"),
        (([1], [2]), {}, TypeError, r"data must be .* got a tuple of 2 \(list, list\)"),
        ((torch.zeros(3), torch.zeros(4)), {}, ValueError, r"data .* shapes \[3\] and \[4\]"),
        ((torch.tensor(1.0), torch.zeros(4)), {}, ValueError, r"data .* shapes \[\] and \[4\]"),
        ((torch.zeros(0, 3), torch.zeros(0)), {}, ValueError, "data must hold at least one sample"),
        (loader(), {"batch_size": 5}, ValueError, "batch_size must be None with a DataLoader"),
        (loader(), {"replacement": True}, ValueError, "replacement must be False with data that"),
        (DataLoader([]), {}, ValueError, "data must yield at least one batch"),
        ("data.pt", {}, TypeError, "data must be .* got str"),
        (None, {}, TypeError, "data must be .* got NoneType"),
    ],
)
def test_bad_data_are_named(data, settings, error, message):
    with pytest.raises(error, match=message):
        sample(case("mlp").model, data, cross_entropy, **SHORT | settings)


def test_a_loss_is_given_once():
    model = case("mlp").model
    with pytest.raises(TypeError, match=r"exactly one of loss_fn and evaluate .* got neither"):
        sample(model, DATA, **SHORT)
    with pytest.raises(TypeError, match=r"exactly one of loss_fn and evaluate .* got both"):
        sample(model, DATA, cross_entropy, evaluate=lambda m, b: m(b[0]).sum(), **SHORT)


def test_evaluate_is_the_loss_of_pairs_too():
    def evaluate(model, batch):
        return cross_entropy(model(batch[0]), batch[1])

    plain = run(case("mlp"))
    assert_same(run(case("mlp")._replace(loss_fn=None, evaluate=evaluate)), plain)


def test_watching_and_storing_exclude_each_other(tmp_path):
    sampling = Sampling(**SHORT, store=tmp_path / "run")
    with pytest.raises(ValueError, match="store must be None"):
        sampling.run(case("mlp").model, DATA, cross_entropy, watch=lambda at, delta: None)


def test_a_sampler_that_takes_less_says_so():
    def sampler(params, lr):
        return SGLD(params, lr=lr)

    with pytest.raises(TypeError, match="nbeta"):
        run(case("mlp"), sampler=sampler)


def test_losses_of_double_precision_are_kept_as_single():
    assert losses(run(case("float64"))).dtype == np.float32
