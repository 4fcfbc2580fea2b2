"""What tells one stored run from another, and how it is said."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastllc
from fastllc import RMSpropSGLD
from fastllc.engine.fingerprint import differences, digest, machine

pytest.importorskip("zarr", reason="needs Python 3.11")

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(30, 3, generator=GENERATOR), torch.randn(30, 2, generator=GENERATOR)


def net(activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.Dropout(0.5), nn.Linear(4, 2)).eval()


def changed(model, name, by=1e-6):
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[0] += by
    return model


def squares(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def fit(store, **settings):
    base = {
        "model": net(),
        "data": (X, Y),
        "loss_fn": squares,
        "lr": 1e-3,
        "num_chains": 2,
        "num_draws": 3,
        "batch_size": 10,
        "seed": 0,
        "progress": False,
    }
    return fastllc.sample(store=store, **base | settings)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("fingerprint") / "store"
    fit(path)
    return path


MASK = {"0.bias": torch.tensor([True, False, True, True])}
OTHERS = {
    "lr": ({"lr": 2e-3}, ["lr (kept 0.001, now 0.002)"]),
    "a grid": ({"lr": [1e-3]}, ["lr (kept 0.001, now [0.001])"]),
    "nbeta": ({"nbeta": 5.0}, ["nbeta (kept none, now 5.0)"]),
    "seed": ({"seed": 1}, ["seed (kept 0, now 1)"]),
    "draws": ({"num_draws": 4}, ["num_draws (kept 3, now 4)"]),
    "engine": ({"engine": "inplace"}, ["engine (kept auto, now inplace)"]),
    "two at once": (
        {"noise_level": 0.5, "num_chains": 3},
        ["noise_level (kept 1.0, now 0.5)", "num_chains (kept 2, now 3)"],
    ),
    "sampler": (
        {"sampler": RMSpropSGLD},
        ["alpha of group 0 (kept none, now 0.99)", "sampler (kept SGLD, now RMSpropSGLD)"],
    ),
    "a lambda's sampler": (
        {"sampler": lambda p, **k: RMSpropSGLD(p, alpha=0.5, **k)},
        ["alpha of group 0 (kept none, now 0.5)"],
    ),
    "mask": ({"mask": MASK}, ["mask (kept none, now "]),
    "observables": ({"observables": {"a": (X, Y)}}, ["observables['a'] (kept none, now "]),
    "weights": ({"model": changed(net(), "3.bias")}, ["weights of 0 (kept "]),
    "checkpoints": (
        {"checkpoints": {"end": net().state_dict()}},
        ["weights of 0 (kept ", "weights of end (kept none, now "],
    ),
    "trained weights": ({"model": net()}, ["model (kept Sequential that trains "]),
    "a module of other code": ({"model": net(nn.Sigmoid)}, ["loss beside w* (kept "]),
    "mode": ({"model": net().train()}, ["loss beside w* (kept "]),
    "data": ({"data": (X, Y + torch.eye(30, 2) * 1e-6)}, ["data (kept "]),
    "fewer samples": (
        {"data": (X[:29], Y[:29])},
        ["data (kept ", "num_samples (kept 30, now 29)"],
    ),
    "batch_size": ({"batch_size": 11}, ["batch_size (kept 10, now 11)"]),
    "loss": (
        {"loss_fn": nn.functional.mse_loss},
        ["loss (kept squares, now mse_loss)"],
    ),
    "a loss of the same name": (
        {"loss_fn": functools.wraps(squares)(lambda o, t: 1.01 * squares(o, t))},
        ["loss beside w* (kept "],
    ),
}
OTHERS["trained weights"][0]["model"][0].bias.requires_grad_(False)


@pytest.mark.parametrize("change", OTHERS)
def test_another_run_is_refused_and_the_difference_named(change, kept):
    settings, expected = OTHERS[change]
    with pytest.raises(ValueError, match=f"store must hold .* got {kept} of another: ") as refused:
        fit(kept, **settings)
    for text in expected:
        assert text in str(refused.value)


@pytest.mark.parametrize("change", ["lr", "nbeta", "draws", "engine", "two at once", "batch_size"])
def test_nothing_else_is_named(change, kept):
    settings, expected = OTHERS[change]
    with pytest.raises(ValueError, match="of another: ") as refused:
        fit(kept, **settings)
    found = str(refused.value).partition("of another: ")[2].split("; ")
    # The first minibatch has other samples where there are more of them.
    assert [text for text in found if not text.startswith("loss beside")] == sorted(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"progress": True},
        {"seed": None},
        {"data": TensorDataset(X.clone(), Y.clone())},
        {"loss_fn": functools.wraps(squares)(lambda o, t: squares(o, t))},
    ],
    ids=["progress", "no seed", "the same data elsewhere", "the same loss elsewhere"],
)
def test_what_does_not_matter_may_change(settings, kept, tmp_path):
    assert fit(kept, **settings).identical(fit(None))
    kept.rename(tmp_path / "moved")
    try:
        assert fit(tmp_path / "moved", **settings).identical(fit(None))
    finally:
        (tmp_path / "moved").rename(kept)


def test_other_versions_are_refused(kept, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(ValueError, match=r"torch \(kept .*, now 1.0\)"):
        fit(kept)


class Loss:
    """An object whose own name has an address."""

    def __call__(self, outputs, targets):
        return squares(outputs, targets)


def test_objects_are_known_without_their_address(tmp_path):
    losses = [Loss(), Loss()]
    assert repr(losses[0]) != repr(losses[1])
    first, second = (fit(tmp_path / "store", loss_fn=loss) for loss in losses)
    assert first.identical(second)


def test_loader_is_known_by_its_first_minibatch(tmp_path):
    def loader(y=Y, **settings):
        return {"data": DataLoader(TensorDataset(X, y), shuffle=True, **settings)}

    path = tmp_path / "store"
    fit(path, batch_size=None, **loader(batch_size=10))
    fit(path, batch_size=None, **loader(batch_size=10))
    with pytest.raises(ValueError, match=r"data \(kept .*loss beside w\*"):
        fit(path, batch_size=None, **loader(Y + 1, batch_size=10))
    with pytest.raises(ValueError, match=r"batch_size \(kept 10, now 5\)"):
        fit(path, batch_size=None, **loader(batch_size=5))


def test_loss_that_is_random_by_itself_is_known_by_the_rest(tmp_path):
    rng = np.random.default_rng(0)

    @functools.wraps(squares)
    def loss(outputs, targets):
        return squares(outputs, targets) * rng.uniform(0.5, 1.5)

    settings = {"engine": "inplace", "store": tmp_path / "store"}
    first, second = (fit(loss_fn=loss, **settings).load() for _ in range(2))
    assert first.identical(second)
    with pytest.raises(ValueError, match=r"another: loss beside w\*"):
        fit(**settings)


def test_random_state_is_left_alone(tmp_path):
    settings = {"model": net().train(), "engine": "inplace"}
    before = torch.get_rng_state()
    kept = fit(tmp_path / "store", **settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert kept.identical(fit(None, **settings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_digest_sees_every_bit(dtype):
    values = torch.arange(12).reshape(3, 4).to(dtype)
    found = digest(values)
    assert digest(values.clone()) == found
    assert digest(values.t().contiguous().t()) == found
    assert digest(values.reshape(4, 3)) != found
    bits = values.clone().view(torch.uint8)
    bits[-1, -1] ^= 1
    assert digest(bits.view(dtype)) != found


def test_digest_sees_names_types_and_order():
    a, b = torch.zeros(2), torch.ones(2)
    assert digest({"a": a, "b": b}) == digest({"b": b, "a": a})
    assert digest({"a": a, "b": b}) != digest({"a": b, "b": a})
    assert digest((a, b)) != digest((b, a))
    assert digest(a) != digest(a.int())
    assert digest(torch.zeros(0)) != digest(torch.zeros(()))
    assert digest(a[:1].expand(2)) == digest(a)


def test_losses_may_differ_by_rounding():
    kept = {"loss": 1.0, "lr": "1"}
    assert differences(kept, {"loss": 1 + 1e-6, "lr": "1"}) == []
    assert differences(kept, {"loss": 1.001, "lr": "1"}) == ["loss (kept 1.0, now 1.001)"]
    assert differences(kept, {"loss": 1.001, "lr": "1"}, alike=False) == []
    assert len(differences(kept, {"loss": 1.1, "lr": "1"}, alike=False)) == 1
    assert differences({"loss": math.nan}, {"loss": math.nan}) == []
    assert differences({"loss": 1.0}, {}) == ["loss (kept 1.0, now none)"]


def test_machine_tells_threads(threads):
    threads(1)
    assert machine()["threads"] == "1"
    assert set(machine()) == {"threads", "processor", "build"}
    assert np.all([isinstance(text, str) and text for text in machine().values()])
