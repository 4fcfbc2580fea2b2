"""Losses of samples of interest at each draw: those of single samples at the draw's weights."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from engine import SHORT, run
from fastllc import Observable, Sampling
from fastllc.engine.observables import open_observables
from zoo import CASES, Case, case, normal, on_rows, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
CPU = torch.device("cpu")
TEST = normal(7, 3, seed=5), tokens(7, high=2, seed=6)


def singly(made, batches):
    """The losses of single samples where a model is."""

    def one(*tensors):
        if made.evaluate is not None:
            return made.evaluate(made.model, dict(zip(("inputs", "labels"), tensors, strict=True)))
        outputs = made.model(tensors[0])
        outputs = outputs["logits"] if isinstance(outputs, dict) else outputs
        return made.loss_fn(getattr(outputs, "logits", outputs), tensors[1]).mean()

    with torch.no_grad():
        found = [one(*(t[i : i + 1] for t in b)) for b in batches for i in range(len(b[0]))]
    return torch.stack(found).float().numpy()


@ENGINES
@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_single_samples_at_the_weights_of_the_draw(name, engine):
    made = case(name)
    rows = name == "rows"
    data = made.data.dataset if rows else made.data
    batches = [(data.x, data.y)] if rows else [data]
    places = {}
    settings = SHORT | {
        "engine": engine,
        "num_draws": 2,
        "batch_size": None if rows else 5,
        "observables": {"all": data},
        "num_steps_bw_draws": 2,
    }
    trace = Sampling(**settings).run(
        **made.fit, watch=lambda at, delta: places.setdefault(at.chain, []).append(delta.clone())
    )
    found = trace["observables/all"]
    atol = 2**-6 if name == "bfloat16" else 1e-5
    np.testing.assert_allclose(found["init_loss"], singly(made, batches), atol=atol)
    params = [p for p in made.model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in params]
    for chain in range(3):
        for draw in range(2):
            parts = torch.split(places[chain][draw], [p.numel() for p in params])
            with torch.no_grad():
                for p, w0, delta in zip(params, start, parts, strict=True):
                    p.copy_(w0 + delta.view(p.shape))
            wanted = singly(made, batches)
            np.testing.assert_allclose(found["loss"][chain, draw], wanted, atol=atol)
    assert np.abs(found["loss"].values - found["init_loss"].values).max() > 10 * atol


@ENGINES
def test_num_samples_and_every(engine):
    made = case("mlp")
    whole = run(made, engine=engine, observables={"a": TEST})
    few = run(made, engine=engine, observables={"a": Observable(TEST, num_samples=3, every=2)})
    found, wanted = few["observables/a"], whole["observables/a"]
    assert dict(found["loss"].sizes) == {"chain": 3, "draw": 3, "sample": 3}
    assert found["draw"].values.tolist() == [0, 2, 4]
    assert found["step"].values.tolist() == [0, 2, 4]
    np.testing.assert_allclose(found["loss"], wanted["loss"][:, ::2, :3], rtol=1e-5)
    np.testing.assert_allclose(found["init_loss"], wanted["init_loss"][:3], rtol=1e-6)


@ENGINES
def test_checkpoints_have_initial_losses_of_their_own(engine):
    models = [case("mlp", seed).model for seed in range(2)]
    made = Case(models, case("mlp").data, cross_entropy)
    found = run(made, engine=engine, observables={"a": TEST})["observables/a"]
    assert found["init_loss"].dims == ("checkpoint", "sample")
    for index, model in enumerate(models):
        wanted = singly(made._replace(model=model), [TEST])
        np.testing.assert_allclose(found["init_loss"][index], wanted, atol=1e-6)
    assert found["loss"].dims == ("checkpoint", "chain", "draw", "sample")


def test_observing_changes_nothing():
    plain = run(case("mlp"))["steps/loss"].values
    seen = run(case("mlp"), observables={"a": TEST, "b": Observable(TEST, every=3)})
    np.testing.assert_array_equal(seen["steps/loss"].values, plain)


def test_a_loss_that_returns_one_value_a_sample_is_taken_as_it_is():
    each = case("per-sample")
    found = run(each, observables={"a": TEST})["observables/a/loss"].values
    wanted = run(case("mlp"), observables={"a": TEST})["observables/a/loss"].values
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*TEST, strict=True))


class Map(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, i):
        return TEST[0][i], TEST[1][i]


SOURCES = {
    "pair": TEST,
    "dataset": TensorDataset(*TEST),
    "map": Map(),
    "subset": Subset(Map(), range(7)),
    "loader": DataLoader(Map(), 3),
    "stream": Stream(),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("num_samples", [None, 1, 3, 4, 7])
def test_samples_come_in_order_from_every_source(name, num_samples):
    found = open_observables({"a": Observable(SOURCES[name], num_samples)}, CPU)["a"]
    count = num_samples or 7
    assert found.num_samples == count
    assert torch.equal(torch.cat([batch[0] for batch in found.batches]), TEST[0][:count])
    assert torch.equal(torch.cat([batch[1] for batch in found.batches]), TEST[1][:count])


def test_evaluate_sees_the_observables_batches():
    made = case("rows")
    trace = run(made, observables={"a": made.data.dataset})
    assert trace["observables/a/loss"].shape == (3, 5, 24)
    assert on_rows is made.evaluate


class Empty(Dataset):
    def __len__(self):
        return 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (TEST, TypeError, "observables must be data by name, got tuple"),
        ({"a/b": TEST}, ValueError, "observables must have names without '/', got 'a/b'"),
        ({"": TEST}, ValueError, "observables must have names without '/', got ''"),
        ({3: TEST}, TypeError, "observables must have names that are strings, got 3"),
        (
            {"a": Observable(TEST, num_samples=8)},
            ValueError,
            r"observables\['a'\].num_samples must be <= 7, its samples, got 8",
        ),
        (
            {"a": Observable(TEST, num_samples=0)},
            ValueError,
            r"observables\['a'\].num_samples must be >= 1, got 0",
        ),
        (
            {"a": Observable(TEST, every=0)},
            ValueError,
            r"observables\['a'\].every must be >= 1, got 0",
        ),
        (
            {"a": Observable(TEST, every=1.5)},
            TypeError,
            r"observables\['a'\].every must be an int, got 1.5",
        ),
        (
            {"a": Observable(TEST, every=True)},
            TypeError,
            r"observables\['a'\].every must be an int, got True",
        ),
        (
            {"a": Observable(TEST, every=None)},
            TypeError,
            r"observables\['a'\].every must be an int, got None",
        ),
        ({"a": [1, 2]}, TypeError, r"observables\['a'\]: data must be an .* pair"),
        ({"a": Empty()}, ValueError, r"observables\['a'\]: data must hold at least one sample"),
    ],
)
def test_bad_observables(given, error, message):
    with pytest.raises(error, match=message):
        run(case("mlp"), observables=given)


def test_samples_of_another_shape_change_nothing():
    made = case("mlp")
    before = made.model[0].weight.detach().clone()
    with pytest.raises(RuntimeError, match="shape"):
        run(made, observables={"a": (normal(7, 4), TEST[1])})
    assert torch.equal(made.model[0].weight, before)
