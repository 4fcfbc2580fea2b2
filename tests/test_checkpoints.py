"""Checkpoints: cell by cell the chains of a loop of one's own, names, buffers, frozen weights."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from engine import SHORT, assert_same, losses, run
from fastllc import BAOAB, SGLD, Sampling, chain_key, sample
from fastllc.engine.checkpoints import Checkpoints, trainable
from zoo import Case, N, Scaled, Tied, case, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
TRAIN = normal(N, 3), tokens(N, high=2)


def mlp(seed):
    return case("mlp", seed).model


def loop(model, seed, sampler=SGLD, **setting):
    """The losses of one chain over all data, without the engine."""
    model = copy.deepcopy(model)
    optimizer = sampler([p for p in model.parameters() if p.requires_grad], seed=seed, **setting)
    found = []
    for _ in range(SHORT["num_draws"]):
        optimizer.zero_grad()
        loss = cross_entropy(model(TRAIN[0]), TRAIN[1])
        loss.backward()
        found.append(loss.item())
        optimizer.step()
    return found


@ENGINES
@pytest.mark.parametrize("sampler", [SGLD, BAOAB])
@pytest.mark.parametrize("common", [False, True], ids=["own", "common"])
def test_each_cell_is_a_plain_loop_seeded_with_its_key(engine, sampler, common):
    models = [mlp(seed) for seed in (0, 1, 2)]
    grid = {"lr": [1e-3, 1e-2], "nbeta": 10.0, "localization": [5.0, 50.0]}
    trace = run(
        Case(models, TRAIN, cross_entropy),
        **grid,
        sampler=sampler,
        engine=engine,
        batch_size=N,
        common_random_numbers=common,
    )
    assert dict(trace["steps/loss"].sizes) == {"checkpoint": 3, "setting": 4, "chain": 3, "step": 5}
    settings = list(itertools.product(grid["lr"], grid["localization"]))
    for at in itertools.product(range(3), range(4), range(3)):
        lr, localization = settings[at[1]]
        alone = loop(
            models[at[0]],
            chain_key(1, at[2], 0 if common else at[0], at[1]),
            sampler,
            lr=lr,
            nbeta=10.0,
            localization=localization,
        )
        np.testing.assert_allclose(losses(trace)[at], alone, rtol=3e-6)


@ENGINES
def test_with_common_random_numbers_each_checkpoint_is_the_run_of_it_alone(engine):
    """Minibatches included: the keys are those of the first checkpoint."""
    models = [mlp(seed) for seed in (0, 1, 2)]
    settings = {"engine": engine, "common_random_numbers": True, "init_loss": "paired"}
    together = run(Case(models, TRAIN, cross_entropy), **settings)
    for index, model in enumerate(models):
        alone = run(Case(model, TRAIN, cross_entropy), engine=engine)
        np.testing.assert_allclose(losses(together)[index], losses(alone), rtol=3e-6)
        np.testing.assert_allclose(
            together["steps/baseline"][index], alone["steps/baseline"], rtol=3e-6
        )
        np.testing.assert_allclose(together["init_loss"][index], alone["init_loss"], rtol=1e-6)


def test_common_random_numbers_make_differences_precise():
    """On quadratics that differ by a factor in their curvature alone, chains move together."""
    h = torch.linspace(0.5, 1.0, 20)

    class Bowl(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(20))
            self.register_buffer("h", factor * h)

        def forward(self, x):
            return (0.5 * self.h * self.w**2).sum()

    settings = {"lr": 0.02, "nbeta": 100.0, "num_chains": 64, "num_draws": 200}

    def differences(common):
        trace = sample(
            [Bowl(1.0), Bowl(1.05)],
            (torch.zeros(4, 1), torch.zeros(4)),
            lambda loss, _: loss,
            **SHORT | settings | {"common_random_numbers": common},
        )
        means = losses(trace)[..., 50:].mean(-1)
        return (means[1] - means[0]).std(ddof=1)

    # Without them both means have their own variance; with them what is common to both drops out.
    assert differences(common=True) < 0.2 * differences(common=False)


@ENGINES
def test_buffers_and_frozen_weights_are_those_of_their_checkpoint(engine):
    def net(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
        model.train()(normal(N, 3, seed=seed))
        model[2].requires_grad_(False)
        return model.eval()

    with torch.random.fork_rng():
        nets = [net(seed) for seed in (3, 4, 5)]
    for chunk_size in (1, 4, 9):
        trace = run(
            Case(nets, TRAIN, cross_entropy), engine=engine, batch_size=N, chunk_size=chunk_size
        )
        for checkpoint, chain in itertools.product(range(3), range(3)):
            key = chain_key(1, chain, checkpoint, 0)
            alone = loop(nets[checkpoint], key, lr=1e-3, nbeta=10.0, localization=5.0)
            np.testing.assert_allclose(losses(trace)[checkpoint, chain], alone, rtol=1e-5)


@ENGINES
def test_flags_of_the_first_model_decide_what_is_frozen(engine):
    models = [mlp(0), mlp(1)]
    models[0][0].requires_grad_(False)
    trace = run(Case(models, TRAIN, cross_entropy), engine=engine, batch_size=N)
    models[1][0].requires_grad_(False)
    alone = loop(models[1], chain_key(1, 2, 1, 0), lr=1e-3, nbeta=10.0, localization=5.0)
    np.testing.assert_allclose(losses(trace)[1, 2], alone, rtol=3e-6)


def test_every_form_of_checkpoints_is_the_same_run():
    models = [mlp(seed) for seed in (0, 1)]
    states = [model.state_dict() for model in models]
    names = ["start", "end"]
    forms = [
        {"model": models},
        {"model": tuple(models)},
        {"model": dict(zip(names, models, strict=True))},
        {"model": models[0], "checkpoints": models},
        {"model": models[0], "checkpoints": states},
        {"model": mlp(7), "checkpoints": dict(zip(names, states, strict=True))},
    ]
    traces = [
        sample(data=TRAIN, loss_fn=cross_entropy, **form, **SHORT, batch_size=5) for form in forms
    ]
    for form, trace in zip(forms, traces, strict=True):
        assert_same(trace, traces[0])
        named = any(isinstance(given, dict) for given in form.values())
        assert trace["checkpoint"].values.tolist() == (names if named else [0, 1])


def test_numbers_of_steps_are_names():
    models = {100: mlp(0), 1000: mlp(1)}
    trace = run(Case(models, TRAIN, cross_entropy))
    assert trace["checkpoint"].values.tolist() == [100, 1000]
    assert trace["steps/loss"].sel(checkpoint=1000).shape == (3, 5)


def test_checkpoints_of_part_of_the_weights_are_refused_by_name():
    weights = mlp(0).state_dict()
    del weights["2.bias"]
    with pytest.raises(ValueError, match=r"without \['2.bias'\] and with none"):
        Checkpoints(mlp(0), [weights])


def test_what_is_frozen_or_a_buffer_may_be_left_out():
    model = Scaled()
    weights = model.state_dict()
    del weights["fixed"]
    found = Checkpoints(model, [weights])[0]
    assert torch.equal(found["fixed"], model.fixed)


def test_tied_weights_go_by_any_of_their_names():
    model = Tied()
    weights = model.state_dict()
    assert {"embed.weight", "readout.weight"} <= set(weights)
    del weights["embed.weight"]
    found = Checkpoints(model, [weights])[0]
    assert torch.equal(found["embed.weight"], model.embed.weight)
    untied = {**model.state_dict(), "readout.weight": torch.zeros(7, 6)}
    with pytest.raises(ValueError, match="must equal what it is tied to"):
        Checkpoints(model, [untied])


def test_anchors_of_one_checkpoint_are_its_own_memory():
    model = mlp(0)
    anchors = Checkpoints(model).anchors(slice(0, 1))
    for name, param in trainable(model).items():
        assert anchors[name].data_ptr() == param.data_ptr()
        assert anchors[name].shape == (1, *param.shape)
    stacked = Checkpoints(model, [model, mlp(1)]).anchors(slice(0, 2))
    assert torch.equal(stacked["0.weight"][0], model[0].weight)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "checkpoints must hold at least one state dict, got none"),
        ({}, ValueError, "checkpoints must hold at least one state dict, got none"),
        (mlp(0), TypeError, "checkpoints must be a list or a mapping .* got Sequential"),
        ("last.pt", TypeError, "checkpoints must be a list or a mapping .* got str"),
        ({(1, 2): mlp(0)}, TypeError, r"checkpoints must have names or numbers, got \(1, 2\)"),
        (["last.pt"], TypeError, r"checkpoints\[0\] must be a state dict or a module, got str"),
        (mlp(0).state_dict(), TypeError, r"checkpoints\['0.weight'\] must be a state dict"),
        (
            [{**mlp(0).state_dict(), "extra": torch.ones(1)}],
            ValueError,
            r"checkpoints\[0\] .* without none and with \['extra'\]",
        ),
        (
            {"end": {**mlp(0).state_dict(), "0.bias": torch.ones(3)}},
            ValueError,
            r"checkpoints\['end'\]\['0.bias'\] must be float32 of shape \(8,\), "
            r"got float32 of shape \(3,\)",
        ),
        (
            [{**mlp(0).state_dict(), "0.bias": torch.ones(8).double()}],
            ValueError,
            "must be float32 of shape .* got float64",
        ),
        (
            [{**mlp(0).state_dict(), "0.bias": [0.0] * 8}],
            TypeError,
            r"checkpoints\[0\]\['0.bias'\] must be a tensor, got list",
        ),
        ([mlp(0), nn.Linear(3, 2)], ValueError, r"checkpoints\[1\] must hold the weights"),
    ],
)
def test_bad_checkpoints(given, error, message):
    with pytest.raises(error, match=message):
        sample(mlp(0), TRAIN, cross_entropy, checkpoints=given, **SHORT)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ([], ValueError, "model must be a module or several of them, got none"),
        ([mlp(0), nn.Linear(3, 2)], ValueError, "model must be modules of one class"),
        ([mlp(0), "end"], ValueError, "model must be modules of one class"),
        (["start", "end"], TypeError, r"model must be a torch\.nn\.Module, got str"),
        ("model", TypeError, r"model must be a torch\.nn\.Module, got str"),
        (nn.ReLU(), ValueError, "model must have a parameter that requires a gradient, got none"),
    ],
)
def test_bad_models(model, error, message):
    with pytest.raises(error, match=message):
        sample(model, TRAIN, mse_loss, **SHORT)


def test_several_models_have_no_checkpoints_beside_them():
    with pytest.raises(ValueError, match="checkpoints must be None if several models are given"):
        sample([mlp(0)], TRAIN, mse_loss, checkpoints=[mlp(0)], **SHORT)


@ENGINES
def test_a_checkpoint_whose_loss_is_not_finite_is_refused(engine):
    broken = mlp(1)
    with torch.no_grad():
        broken[0].bias[0] = torch.inf
    with pytest.raises(ValueError, match="loss_fn must be finite"):
        run(Case([mlp(0), broken], TRAIN, cross_entropy), engine=engine)


def test_anchors_are_in_plain_order_whatever_the_weights_are_in():
    model = torch.nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
    found = Checkpoints(model, [model, model])
    for rows in (slice(0, 1), slice(0, 2)):
        for name, stacked in found.anchors(rows).items():
            assert stacked.is_contiguous()
            assert all(torch.equal(w0, model.get_parameter(name)) for w0 in stacked)


@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
def test_chains_are_watched_from_their_own_checkpoint(engine):
    given = case("linear")
    moved = {k: v + 0.5 for k, v in given.model.state_dict().items()}
    seen = {}

    def watch(chain, delta):
        seen.setdefault(chain.checkpoint, []).append(delta.clone())

    Sampling(**SHORT, engine=engine).run(**given.fit, checkpoints=[given.model, moved], watch=watch)
    for deltas in seen.values():
        starts = deltas[: SHORT["num_chains"]] if engine == "vectorised" else deltas[:1]
        assert all((start == 0).all() for start in starts)
        assert all((delta.abs() < 0.4).all() for delta in deltas)
    assert len(seen[0]) == len(seen[1]) == SHORT["num_chains"] * SHORT["num_draws"]
