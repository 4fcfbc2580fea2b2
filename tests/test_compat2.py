"""devinterp 2 with our samplers in it: same formulas, same answers, and gone when told."""

import copy
import importlib.metadata
import warnings

import pytest
import torch
from torch import nn

import fastllc
from fastllc.compat.devinterp2 import accelerate

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*nbeta set to 1"),
    pytest.mark.filterwarnings("ignore:.*noise_level"),
    pytest.mark.filterwarnings("ignore:NoiseNorm not implemented"),
    pytest.mark.filterwarnings("ignore:.*has been deprecated:DeprecationWarning"),
]

try:
    KNOWN = importlib.metadata.version("devinterp") == "2.0.1"
except importlib.metadata.PackageNotFoundError:
    KNOWN = False
needs_devinterp = pytest.mark.skipif(not KNOWN, reason="devinterp 2.0.1 is not installed")

NORMS = "scaled_grad", "unscaled_grad", "localization", "weight_decay", "noise", "distance"
DOTS = "dot_grad_prior", "dot_grad_noise", "dot_prior_noise"
SETTINGS = {"lr": 0.1, "nbeta": 3.0, "localization": 0.5, "weight_decay": 0.3}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(5, 3)


def groups_of(model, masked):
    """A group for each parameter, as `sample` makes them, every other one with a mask."""
    return [
        {
            "params": p,
            "mask": torch.arange(p.numel()).view(p.shape) % 3 != 0 if masked and i % 2 else None,
        }
        for i, p in enumerate(model.parameters())
    ]


def walk(model, x, sampler, steps=3):
    torch.manual_seed(1)
    for _ in range(steps):
        sampler.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        sampler.step()


def both(make, steps=3):
    """The model and sampler that devinterp makes, and ours in its place."""
    model, x = network()
    found = []
    for active in (False, True):
        own = copy.deepcopy(model)
        acceleration = accelerate() if active else None
        try:
            sampler = make(own)
        finally:
            if acceleration:
                acceleration.restore()
        assert type(sampler).__module__.startswith("fastllc" if active else "devinterp")
        walk(own, x, sampler, steps)
        found.append((own, sampler))
    return found


@needs_devinterp
@pytest.mark.parametrize("method", ["sgld", "rmsprop_sgld", "SGLD"])
@pytest.mark.parametrize("box", [None, 0.03])
@pytest.mark.parametrize("masked", [False, True])
def test_without_noise_the_weights_and_all_metrics_are_the_same(method, box, masked):
    from devinterp.optim import SGLD, SGMCMC

    make = SGLD if method == "SGLD" else getattr(SGMCMC, method)
    given = {**SETTINGS, "noise_level": 0.0, "bounding_box_size": box, "save_metrics": True}
    (model, theirs), (other, ours) = both(lambda of: make(groups_of(of, masked), **given))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b, a)
    pairs = [(theirs.get_metrics(), ours.get_metrics())]
    pairs += zip(theirs.iter_group_metrics(), ours.iter_group_metrics(), strict=True)
    for wanted, found in pairs:
        assert type(found) is type(wanted)
        assert found.numel == wanted.numel
        for name in (*NORMS, *DOTS):
            if masked and method != "SGLD" and name == "unscaled_grad":
                continue  # over masked weights, too, there
            value = getattr(found, name)
            assert value.shape == (1,)
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, getattr(wanted, name), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(found.prior, wanted.prior, atol=1e-6, rtol=1e-4)


@needs_devinterp
@pytest.mark.parametrize("method", ["sgld", "rmsprop_sgld", "sgnht", "SGLD", "SGNHT"])
def test_with_noise_it_is_our_sampler(method):
    import devinterp.optim as theirs

    make = getattr(theirs if method.isupper() else theirs.SGMCMC, method)
    kinds = {
        "sgld": (fastllc.SGLD, {}),
        "SGLD": (fastllc.SGLD, {}),
        "rmsprop_sgld": (fastllc.RMSpropSGLD, {"convention": "devinterp"}),
        "sgnht": (fastllc.SGNHT, {}),
        "SGNHT": (fastllc.SGNHT, {}),
    }
    kind, own = kinds[method]
    thermal = method.lower() == "sgnht"
    given = {"lr": 1e-3, "nbeta": 3.0} if thermal else SETTINGS
    model, x = network()
    other = copy.deepcopy(model)
    with accelerate():
        sampler = make(model.parameters(), **given)
    assert isinstance(sampler, kind)
    walk(model, x, sampler)
    walk(other, x, kind(other.parameters(), **given, **own))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@needs_devinterp
def test_it_is_reversible_and_finds_names_imported_before():
    from devinterp.optim import SGMCMC

    constructor = SGMCMC.__init__
    acceleration = accelerate()
    assert acceleration.active
    with accelerate() as inner:
        assert isinstance(SGMCMC.sgld([nn.Parameter(torch.zeros(1))]), fastllc.SGLD)
    assert not inner.active
    assert isinstance(SGMCMC([nn.Parameter(torch.zeros(1))]), fastllc.SGLD)
    acceleration.restore()
    acceleration.restore()
    assert not acceleration.active
    assert SGMCMC.__init__ is constructor
    assert type(SGMCMC.sgld([nn.Parameter(torch.zeros(1))])) is SGMCMC
    with pytest.raises(KeyError), accelerate():
        raise KeyError
    assert SGMCMC.__init__ is constructor


@needs_devinterp
def test_one_that_ends_before_another_leaves_it_in_effect():
    from devinterp.optim import SGMCMC

    constructor = SGMCMC.__init__
    first, second = accelerate(), accelerate()
    first.restore()
    assert second.active
    assert isinstance(SGMCMC.sgld([nn.Parameter(torch.zeros(1))]), fastllc.SGLD)
    second.restore()
    assert SGMCMC.__init__ is constructor


@needs_devinterp
def test_what_no_fused_step_can_do_stays_theirs():
    from devinterp.optim import SGMCMC, SGNHT
    from devinterp.optim.prior import GaussianPrior

    class Own(SGMCMC):
        pass

    def params():
        return [nn.Parameter(torch.zeros(2))]

    with accelerate():
        kept = [
            Own(params()),
            SGMCMC(params(), prior=GaussianPrior(1.0, center=[torch.ones(2)])),
            SGMCMC([{"params": params(), "prior": 2.0}]),
            SGMCMC.rmsprop_sgld(params(), alpha=1.0),
            SGMCMC.sgld(params(), bounding_box_size=0.0),
            SGMCMC.sgld(params(), bounding_box_size=-1.0),
            SGMCMC.sgld(params(), nbeta=-1.0),
            SGMCMC(params(), prior=-1.0),
            SGMCMC.sgld(params(), sketch_dim=70_000),
            SGMCMC.sgld(params(), sketch_dim=8, sketch_seed=-1),
            SGNHT(params(), save_noise=True),
            SGMCMC.sgld(params(), mask=[torch.tensor([0.5, 1.0])]),
        ]
        with pytest.raises(ValueError, match="Mask shape"):
            SGMCMC.sgld(params(), mask=torch.ones(3))
        with pytest.raises(TypeError):
            SGMCMC.sgld(params(), speed=1.0)
        with pytest.raises(TypeError):
            SGMCMC(params(), preconditioner_kwargs={"alpha": 0.5})
    for sampler in kept:
        assert type(sampler).__module__ != "fastllc.compat.devinterp2.samplers"


@needs_devinterp
@pytest.mark.parametrize("method", ["SGMCMC", "sgld", "rmsprop_sgld", "sgnht", "SGLD", "SGNHT"])
def test_there_are_as_many_warnings_as_without(method):
    import devinterp.optim as theirs

    make = getattr(theirs if method.isupper() else theirs.SGMCMC, method)
    settings = {} if method.lower() == "sgnht" else {"noise_level": 0.5}

    def kinds():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make([nn.Parameter(torch.zeros(2))], nbeta=1.0, **settings)
        return sorted(w.category.__name__ for w in caught)

    without = kinds()
    with accelerate():
        assert kinds() == without


@needs_devinterp
def test_priors_are_localization_and_decay():
    from devinterp.optim import SGMCMC
    from devinterp.optim.prior import CompositePrior, GaussianPrior, UniformPrior

    pulls = {
        None: (0.0, 0.0),
        "initial": (1.0, 0.0),
        2: (2.0, 0.0),
        UniformPrior(): (0.0, 0.0),
        GaussianPrior(3.0, center=None): (0.0, 3.0),
        CompositePrior([GaussianPrior(2.0), GaussianPrior(3.0, center=None)]): (2.0, 3.0),
    }
    with accelerate():
        for prior, wanted in pulls.items():
            (group,) = SGMCMC([nn.Parameter(torch.zeros(2))], prior=prior).param_groups
            assert (group["localization"], group["weight_decay"]) == wanted


@needs_devinterp
def test_sketches_and_generators():
    from devinterp.optim import SGMCMC
    from devinterp.optim.sketch import SketchBuffer

    model, x = network()
    moved = []
    for seed in (5, 5, 6):
        own = copy.deepcopy(model)
        with accelerate():
            sampler = SGMCMC.sgld(
                own.parameters(), **SETTINGS, sketch_dim=32, sketch_seed=3, save_metrics=True
            )
        assert sampler.save_metrics
        assert sampler.save_sketches
        own(x).square().mean().backward()
        sampler.step(noise_generator=torch.Generator().manual_seed(seed))
        moved.append(torch.cat([p.detach().flatten() for p in own.parameters()]))
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])
    sketches, metrics = sampler.get_sketches(), sampler.get_metrics()
    assert type(sketches) is SketchBuffer
    for name in SketchBuffer.QUANTITIES:
        sketch = getattr(sketches, name)
        assert (sketch.dtype, sketch.shape) == (torch.float32, (32,))
        # <S(v), S(v)> has mean |v|^2 and a variance of at most 2 |v|^4 / 32.
        square = getattr(metrics, name).square().item()
        assert abs(sketch.square().sum().item() - square) <= 4 * (2 / 32) ** 0.5 * square
    with accelerate():
        plain = SGMCMC.sgld([nn.Parameter(torch.zeros(2))], nbeta=2.0)
    with pytest.raises(RuntimeError):
        plain.get_metrics()
    with pytest.raises(RuntimeError):
        plain.get_sketches()


@needs_devinterp
@pytest.mark.slow
@pytest.mark.parametrize("method", ["sgld", "sgnht"])
def test_the_law_is_the_posterior(method):
    """On L = w^2 / 2 with nbeta = 100 each weight's coefficient is 1/2, with SGLD's step bias."""
    from devinterp.optim import SGMCMC

    w = nn.Parameter(torch.zeros(20_000))
    torch.manual_seed(2)
    lr = 1e-4
    with accelerate():
        sampler = getattr(SGMCMC, method)([w], lr=lr, nbeta=100.0)
    found = []
    for step in range(1500):
        w.grad = w.detach().clone()
        sampler.step()
        if step >= 500:
            found.append(50 * w.detach().square().mean().item())
    mean = sum(found) / len(found)
    assert abs(mean - 0.5) < 0.5 * 4 * (2 / 20_000) ** 0.5 + 0.005


@pytest.mark.parametrize("found", ["1.3.2", "2.1.0"])
def test_a_version_that_is_not_known_is_refused(found, monkeypatch):
    monkeypatch.setattr("fastllc.compat.devinterp2.swap.version", lambda name: found)
    with pytest.raises(ImportError, match=rf"2\.0\.1, got {found}"):
        accelerate()


def test_without_devinterp_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("fastllc.compat.devinterp2.swap.version", missing)
    with pytest.raises(ImportError, match="pip install devinterp"):
        accelerate()


class Tokens(torch.utils.data.Dataset):
    """Rows of tokens, as devinterp reads them from a dataset of HuggingFace's."""

    def __init__(self, n=64):
        self.ids = torch.randint(16, (n, 9), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i]}


class Bigrams(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(16, 8)
        self.out = nn.Linear(8, 16)

    def forward(self, ids):
        logits = self.out(self.embed(ids))
        return type("Output", (), {"logits": logits})()


@needs_devinterp
@pytest.mark.slow
def test_an_unchanged_llc_gives_the_same_within_errors(tmp_path):
    for name in ("datasets", "pydantic", "zarr"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from devinterp.slt.llc import llc

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return llc(
                Bigrams(),
                Tokens(),
                {},
                lr=1e-3,
                n_beta=10.0,
                localization=10.0,
                num_chains=4,
                num_draws=150,
                num_burnin_steps=50,
                batch_size=16,
                device="cpu",
                save_metrics=True,
            )

    theirs = run()
    with accelerate():
        ours = run()
    difference = float(ours["llc_mean"]) - float(theirs["llc_mean"])
    error = ((float(ours["llc_std"]) ** 2 + float(theirs["llc_std"]) ** 2) / 4) ** 0.5
    assert abs(difference) < 4 * error
