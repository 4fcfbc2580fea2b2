"""Stacked chains against the same chains one after another, and stacks of any size."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from engine import SHORT, assert_close, assert_same, losses, run
from fastllc import BAOAB, SGHMC, Observable, Sampling
from fastllc.samplers.stack import Stack
from zoo import CASES, N, case, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

# Of the largest value; what differs is the order in which products of matrices are summed.
# Double precision, too, is recorded as single.
ROUNDING, LOW_ROUNDING = 3e-6, 2**-6


def both(made, **settings):
    """The traces of a case from both engines, and what rounding may make of them."""
    stacked, in_place = (
        run(made, engine=engine, **settings) for engine in ("vectorised", "inplace")
    )
    assert [t.attrs["engine"] for t in (stacked, in_place)] == ["vectorised", "inplace"]
    low = settings.get("autocast", next(made.model.parameters()).dtype) == torch.bfloat16
    return stacked, in_place, LOW_ROUNDING if low else ROUNDING


@pytest.mark.parametrize("name", CASES)
def test_engines_agree_on_models_of_every_kind(name):
    stacked, in_place, rounding = both(case(name), num_draws=8)
    assert_close(stacked, in_place, rounding)
    first = losses(stacked)[:, 0]
    assert len(set(first.tolist())) == 3  # at the same weights: minibatches of their own
    other = losses(run(case(name), engine="vectorised", num_draws=8, seed=2))
    assert np.abs(other - losses(stacked)).max() > 10 * rounding * np.abs(other).max()


def test_engines_agree_for_every_sampler(kind):
    stacked, in_place, rounding = both(
        case("mlp"), sampler=kind, save_metrics=True, num_draws=8, weight_decay=0.5
    )
    assert_close(stacked, in_place, rounding)
    assert np.abs(losses(stacked)[:, 7] - losses(stacked)[:, 0]).min() > 1e-3


def half(model):
    """Masks of every second weight of the first parameter that is trained."""
    name, weights = next((n, p) for n, p in model.named_parameters() if p.requires_grad)
    return {name: (torch.arange(weights.numel()) % 2 == 0).view(weights.shape)}


@pytest.mark.parametrize(
    "settings",
    [
        {"bounding_box_size": 0.02},
        {"accumulation": 3},
        {"shared_batches": True},
        {"replacement": True},
        {"shared_batches": True, "replacement": True, "accumulation": 2},
        {"num_burnin_steps": 3, "num_steps_bw_draws": 4, "num_draws": 3, "save_metrics": True},
        {"autocast": torch.bfloat16},
        {"batch_size": N, "save_metrics": True, "noise_level": 0.0},
        {"lr": [1e-4, 1e-3], "nbeta": [5.0, 50.0], "localization": [0.0, 100.0]},
        {"save_acceptance": True},
        {"localization": 0.0},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_engines_agree_for_every_setting(settings):
    stacked, in_place, rounding = both(case("mlp"), **settings)
    # The logarithm of an acceptance is a difference of large terms.
    assert_close(stacked, in_place, 1e-3 if "save_acceptance" in settings else rounding)


@pytest.mark.parametrize("name", ["mlp", "tied", "bfloat16"])
def test_engines_agree_under_masks(name):
    made = case(name)
    mask = half(made.model)
    stacked, in_place, rounding = both(made, mask=mask, save_metrics=True)
    assert_close(stacked, in_place, rounding)

    still = torch.cat(
        [
            ~mask.get(name, torch.ones_like(p, dtype=torch.bool)).flatten()
            for name, p in made.model.named_parameters()
        ]
    )
    for engine in ("vectorised", "inplace"):
        moved = []
        sampling = Sampling(**SHORT, mask=mask, batch_size=5, engine=engine)
        sampling.run(**made.fit, watch=lambda _, delta, moved=moved: moved.append(delta != 0))
        assert torch.equal(~torch.stack(moved).any(0), still)


def test_engines_agree_on_observables():
    data = normal(7, 3, seed=5), tokens(7, high=2, seed=6)
    stacked, in_place, rounding = both(
        case("mlp"), observables={"test": data, "few": Observable(data, num_samples=4, every=2)}
    )
    assert_close(stacked, in_place, rounding)


def test_engines_agree_on_groups_with_settings_of_their_own():
    def sampler(params, **settings):
        groups = [{"params": params[:1], "lr": 1e-5}, {"params": params[1:], "localization": 50.0}]
        return SGHMC(groups, **settings)

    stacked, in_place, rounding = both(case("mlp"), sampler=sampler, save_metrics=True)
    assert_close(stacked, in_place, rounding)
    assert not np.array_equal(losses(stacked), losses(run(case("mlp"), sampler=SGHMC)))


def test_shared_minibatches_are_the_same_for_all_chains():
    trace = losses(run(case("mlp"), engine="vectorised", shared_batches=True))
    assert len(set(trace[:, 0].tolist())) == 1
    assert len(set(trace[:, 1].tolist())) == 3


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared"])
@pytest.mark.parametrize("chunk_size", [1, 2, 5, 11, 12, 1000])
def test_chains_do_not_depend_on_the_size_of_the_stack(chunk_size, shared):
    settings = {
        "engine": "vectorised",
        "lr": [1e-4, 1e-3],
        "num_chains": 6,
        "shared_batches": shared,
        "sampler": functools.partial(BAOAB, friction=0.25),
        "save_metrics": True,
    }
    whole = run(case("mlp"), **settings)
    cut = run(case("mlp"), chunk_size=chunk_size, **settings)
    assert cut.attrs["chunk_size"] == min(chunk_size, 12)
    assert_close(cut, whole, ROUNDING)


def test_more_chains_leave_those_that_there_were():
    few, many = (run(case("mlp"), engine="vectorised", num_chains=k) for k in (2, 6))
    np.testing.assert_allclose(losses(few), losses(many)[:2], rtol=3e-6)


class Spare(nn.Module):
    """Has a weight that its outputs do not depend on, and a buffer that they do."""

    def __init__(self):
        super().__init__()
        self.layer, self.spare = nn.Linear(3, 2), nn.Parameter(torch.ones(4))
        self.register_buffer("scale", torch.tensor([0.5, 2.0]))

    def forward(self, x):
        return self.scale * self.layer(x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "settings",
    [{}, {"accumulation": 3, "save_metrics": True}, {"shared_batches": True}],
    ids=lambda settings: "-".join(settings),
)
def test_compiled_gradients_agree(settings):
    made = case("mlp")._replace(model=Spare().eval())
    plain, compiled = (
        run(made, engine="vectorised", num_draws=8, compile=how, **settings)
        for how in (False, True)
    )
    assert_close(compiled, plain, ROUNDING)


def test_losses_that_look_at_numbers_are_not_compiled():
    def loss(outputs, targets):
        return cross_entropy(outputs, targets) * (2.0 if targets.float().mean().item() else 1.0)

    made = case("mlp")._replace(loss_fn=loss)
    with pytest.raises(ValueError, match="compile must be False for this model and loss"):
        run(made, engine="vectorised", compile=True, shared_batches=True)


def test_minibatches_of_all_kinds_are_not_compiled(monkeypatch):
    monkeypatch.setattr("torch._inductor.compile", lambda traced, _: traced)
    made = case("mlp")
    sizes = DataLoader(TensorDataset(*made.data), batch_sampler=[range(i) for i in range(1, 20)])
    settings = {"engine": "vectorised", "compile": True}
    run(made._replace(data=sizes), num_draws=16, **settings)
    with pytest.raises(ValueError, match=r"compile must be False for minibatches .* more than 16"):
        run(made._replace(data=sizes), num_draws=17, **settings)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_run_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    pytest.importorskip("zarr", reason="needs Python 3.11")
    settings = {"engine": "vectorised", "compile": True, "num_draws": 9}
    whole = run(case("mlp"), **settings)

    def stop(self, grads, step, active, move=Stack.step):
        if step == 4:
            raise KeyboardInterrupt
        return move(self, grads, step, active)

    with monkeypatch.context() as patched:
        patched.setattr(Stack, "step", stop)
        with pytest.warns(UserWarning, match="the run was interrupted"):
            cut = run(case("mlp"), store=tmp_path / "run", **settings)
    assert np.isfinite(losses(cut)).sum() == 3 * 4
    assert_same(run(case("mlp"), store=tmp_path / "run", **settings), whole)
