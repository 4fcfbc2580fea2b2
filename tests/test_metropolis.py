"""MALA in loops of one's own: what it proposes, accepts and takes back."""

import copy
import math
import pickle

import pytest
import torch

import fastllc
from fastllc import MALA, SGLD, DivergenceWarning, mala_acceptance
from fastllc.samplers.acceptance import log_uniforms
from helpers import DTYPES, LOW, draw, leaf, raw, same_bits

SETTINGS = {"lr": 0.3, "nbeta": 3.0, "localization": 0.5, "weight_decay": 0.2}


def anharmonic(params, sampler, calls=None):
    """A closure of L = sum w^4/4 + cos w."""

    def closure():
        sampler.zero_grad()
        loss = sum((p.double() ** 4 / 4 + p.double().cos()).sum() for p in params)
        loss.backward()
        if calls is not None:
            calls.append([p.detach().clone() for p in params])
        return loss

    return closure


def chain(steps, seed=0):
    """Weights, probabilities and verdicts of each step."""
    w = leaf(draw(6, torch.float64))
    sampler = MALA([w], seed=seed, **SETTINGS)
    closure = anharmonic([w], sampler)
    found = []
    for _ in range(steps):
        sampler.step(closure)
        found.append((raw(w), sampler.acceptance_probability, sampler.accepted))
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_that_of_sgld_or_none(dtype):
    """Bit for bit, with the probability of `mala_acceptance`, and the verdict of the uniform."""
    w, other = leaf(draw(6, dtype)), leaf(draw(6, dtype))
    sampler, sgld = MALA([w], seed=5, **SETTINGS), SGLD([other], seed=5, **SETTINGS)
    closure, its_closure = anharmonic([w], sampler), anharmonic([other], sgld)
    verdicts = []
    for step in range(100):
        before = w.detach().clone()
        with torch.no_grad():
            other.copy_(w)
        loss = sampler.step(closure)
        its_loss, probability = mala_acceptance(sgld, its_closure)
        assert loss.item() == its_loss.item()
        assert sampler.acceptance_probability == probability
        accepted = log_uniforms([5], step).item() < math.log(probability)
        assert sampler.accepted is accepted
        assert same_bits(w, other if accepted else before)
        assert not torch.equal(before, other)
        verdicts.append(accepted)
    assert 20 < sum(verdicts) < 80
    assert sampler.param_groups[0]["step"] == 100


@pytest.mark.parametrize("dtype", [*DTYPES, *LOW])
def test_what_is_refused_leaves_no_bit_changed(dtype):
    """A step that is far too long; then the chain goes on as if it had slept."""
    start = draw((40, 3), dtype)
    start[0] = -0.0
    w, other = leaf(start), leaf(start)
    # Transposed in memory, too.
    still = draw((5, 4), dtype).t().requires_grad_()
    before = still.detach().clone()
    sampler = MALA([w, still], seed=1, **SETTINGS | {"lr": 1e3})
    for step in range(4):
        sampler.step(anharmonic([w, still], sampler))
        assert sampler.acceptance_probability == 0.0
        assert sampler.accepted is False
        assert same_bits(w, start)
        assert same_bits(still, before)
        assert sampler.param_groups[0]["step"] == step + 1
    # Low precision rounds the weights that losses are of: at this nbeta that hardly matters.
    short = {"lr": 1e-4, "nbeta": 1e-3}
    sampler.param_groups[0].update(short)
    fresh = SGLD([other], seed=1, **SETTINGS | short)
    fresh.param_groups[0]["step"] = 4
    for _ in range(20):
        sampler.step(anharmonic([w], sampler))
        fresh.step(anharmonic([other], fresh))
        assert sampler.accepted
        assert same_bits(w, other)


@pytest.mark.parametrize("dtype", LOW)
def test_a_refused_step_puts_back_what_low_precision_keeps_beside(dtype):
    w = leaf(draw((100,), dtype))
    sampler = MALA([w], lr=1e-4, seed=0)
    closure = anharmonic([w], sampler)
    for _ in range(3):
        sampler.step(closure)
    assert sampler.accepted
    residual = sampler.state[w]["residual"]
    before = w.detach().clone(), residual.clone()
    assert before[1].any()
    sampler.param_groups[0]["lr"] = 100.0
    sampler.step(closure)
    assert not sampler.accepted
    assert same_bits(w, before[0])
    assert same_bits(residual, before[1])


def test_masked_weights_and_those_without_gradients_take_no_part():
    w, idle = leaf(draw(6, torch.float64)), leaf(draw(3, torch.float64))
    mask = torch.tensor([True, False, True, True, False, True])
    before = w.detach().clone()
    sampler = MALA([w, idle], mask=[mask, None], seed=2, **SETTINGS)
    closure = anharmonic([w], sampler)
    for _ in range(30):
        sampler.step(closure)
    assert torch.equal(w[~mask], before[~mask])
    assert torch.equal(idle, draw(3, torch.float64))
    assert (w != before)[mask].all()


def test_the_closure_is_called_at_the_weights_and_at_the_proposal():
    w = leaf(draw(6, torch.float64))
    sampler = MALA([w], seed=0, **SETTINGS)
    calls = []
    closure = anharmonic([w], sampler, calls)
    assert (sampler.acceptance_probability, sampler.accepted) == (None, None)
    for _ in range(10):
        before = w.detach().clone()
        with torch.no_grad():  # gradients are switched on for the closure
            loss = sampler.step(closure)
        (first,), (second,) = calls[-2:]
        assert len(calls) == 2
        assert torch.equal(first, before)
        assert torch.equal(w, second if sampler.accepted else before)
        assert loss.item() == (before**4 / 4 + before.cos()).sum().item()
        calls.clear()


def test_hooks_see_one_step():
    w = leaf(draw(6))
    sampler = MALA([w], seed=0, **SETTINGS)
    seen = []
    sampler.register_step_pre_hook(lambda *_: seen.append("before"))
    sampler.register_step_post_hook(lambda *_: seen.append(sampler.accepted))
    sampler.step(anharmonic([w], sampler))
    assert seen == ["before", sampler.accepted]


def test_metrics_are_those_of_the_proposal():
    w, other = leaf(draw(50)), leaf(draw(50))
    make = {"save_metrics": True, "sketch_dim": 16, "seed": 3, **SETTINGS, "lr": 100.0}
    sampler, sgld = MALA([w], **make), SGLD([other], **make)
    sampler.step(anharmonic([w], sampler))
    sgld.step(anharmonic([other], sgld))
    assert not sampler.accepted
    assert sampler.get_metrics() == sgld.get_metrics()


def test_one_part_is_added_up_whatever_the_groups():
    """Two groups with settings of their own, against the same weights in one test."""
    a, b = leaf(draw(4, torch.float64)), leaf(draw(5, torch.float64, seed=1))
    groups = [{"params": [a], "lr": 0.2}, {"params": [b], "lr": 0.05, "noise_level": 1.3}]
    sampler = MALA(groups, nbeta=2.0, seed=4)
    copies = [leaf(a), leaf(b)]
    sgld = SGLD(
        [{**group, "params": [p]} for group, p in zip(groups, copies, strict=True)],
        nbeta=2.0,
        seed=4,
    )
    for _ in range(30):
        with torch.no_grad():
            for p, q in zip(copies, (a, b), strict=True):
                p.copy_(q)
        sampler.step(anharmonic([a, b], sampler))
        _, probability = mala_acceptance(sgld, anharmonic(copies, sgld))
        assert sampler.acceptance_probability == probability


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.filterwarnings("error")
def test_a_proposal_that_is_not_finite_is_refused(spoilt, what):
    w = leaf(draw(6))
    sampler = MALA([w], seed=0, **SETTINGS)
    inner = anharmonic([w], sampler)
    calls = []

    def closure():
        loss = inner()
        calls.append(0)
        if len(calls) % 2:
            return loss
        if what == "gradient":
            w.grad[0] = spoilt
            return loss - 1e6
        return spoilt

    before = w.detach().clone()
    for _ in range(3):
        sampler.step(closure)
        # An infinite slope at a far better place still is no way back from there.
        assert (sampler.acceptance_probability, sampler.accepted) == (0.0, False)
        assert same_bits(w, before)
    assert sampler.nonfinite_step is None


@pytest.mark.filterwarnings("error")
def test_weights_that_overflow_are_refused():
    """Loss and gradient there are finite, and the ratio infinite."""
    w = leaf(torch.full((4,), 3e38))
    sampler = MALA([w], lr=1.0, seed=0)

    def closure():
        w.grad = torch.where(w.detach().isfinite(), -1e38, 3e38)
        return 1.0

    before = w.detach().clone()
    sampler.step(closure)
    assert (sampler.acceptance_probability, sampler.accepted) == (0.0, False)
    assert same_bits(w, before)
    assert sampler.nonfinite_step is None


def test_a_chain_that_starts_where_there_is_no_loss_is_told_of():
    w = leaf(draw(6))
    sampler = MALA([w], seed=0)

    def closure():
        w.grad = torch.zeros_like(w)
        return math.nan

    with pytest.warns(DivergenceWarning, match="where the chain is must be finite, got nan"):
        sampler.step(closure)
    assert not sampler.accepted


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_closure_that_is_interrupted_leaves_a_state_of_the_chain(error):
    w = leaf(draw(6))
    sampler = MALA([w], seed=0, lr=1e-4)
    inner = anharmonic([w], sampler)
    calls = []

    def closure():
        calls.append(w.detach().clone())
        if len(calls) == 2:
            raise error("stop")
        return inner()

    before = w.detach().clone()
    with pytest.raises(error, match="stop"):
        sampler.step(closure)
    assert not torch.equal(calls[1], before)
    assert same_bits(w, before)
    assert sampler.accepted is False
    sampler.step(closure)
    assert sampler.accepted


def test_the_uniform_is_not_the_proposal_s_noise():
    """Verdicts are independent of how large the noise of their step is."""
    w = leaf(torch.zeros(2, dtype=torch.float64))
    sampler = MALA([w], lr=1e-12, seed=8)
    noise, uniforms = [], []
    for step in range(4000):
        before = w.detach().clone()
        w.grad = torch.zeros_like(w)
        sampler.step(lambda: 0.0)
        noise.append((w - before).square().sum().detach())
        uniforms.append(log_uniforms([8], step)[0])
    both = torch.stack([torch.stack(noise), torch.cat(uniforms)])
    assert abs(torch.corrcoef(both)[0, 1].item()) < 5 / math.sqrt(4000)


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_a_chain_resumes_with_the_same_bits(dtype, way):
    def walk(w, sampler, steps):
        closure = anharmonic([w], sampler)
        for _ in range(steps):
            sampler.step(closure)
            found.append((raw(w), sampler.acceptance_probability, sampler.accepted))

    settings = SETTINGS | {"lr": 0.1}
    found = []
    w = leaf(draw(8, dtype))
    sampler = MALA([w], seed=3, **settings)
    walk(w, sampler, 7)
    if way == "state_dict":
        saved = copy.deepcopy(sampler.state_dict())
        other = leaf(w)
        again = MALA([other], **settings)
        again.load_state_dict(saved)
    else:
        again = pickle.loads(pickle.dumps(sampler)) if way == "pickle" else copy.deepcopy(sampler)
        other = again.param_groups[0]["params"][0]
    walk(w, sampler, 20)
    wanted = found[7:]
    found = []
    walk(other, again, 20)
    assert found == wanted
    assert {verdict for *_, verdict in found} == {True, False}


def test_threads_change_nothing(threads):
    """The ratio, too, is added up in an order of its own."""
    found = []
    for n in (1, 2, 3):
        threads(n)
        w = leaf(draw((200_003,)))
        sampler = MALA([w], lr=0.05, seed=1)

        def closure(w=w):  # its own sum does not depend on them
            w.grad = w.detach().clone()
            return 0.5 * sum(part.square().sum() for part in w.detach().double().split(10_000))

        for _ in range(8):
            sampler.step(closure)
            found.append((raw(w), sampler.acceptance_probability, sampler.accepted))
    assert found[:8] == found[8:16] == found[16:]
    assert sum(0 < probability < 1 for _, probability, _ in found[:8]) > 2


def test_seeds_and_generators_decide():
    assert chain(30, seed=1) == chain(30, seed=1)
    assert chain(30, seed=1) != chain(30, seed=2)
    results = []
    for _ in range(2):
        w = leaf(draw(6, torch.float64))
        sampler = MALA([w], **SETTINGS)
        closure, generator = anharmonic([w], sampler), torch.Generator().manual_seed(0)
        for _ in range(30):
            sampler.step(closure, noise_generator=generator)
            results.append((raw(w), sampler.accepted))
    assert results[:30] == results[30:]
    assert {verdict for _, verdict in results} == {True, False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_level": 0.0}, "noise_level must be > 0, got 0"),
        ({"bounding_box_size": 1.0}, "bounding_box_size must be None, got 1"),
        ({"lr": -1.0}, "lr must be finite and >= 0, got -1"),
    ],
)
def test_unfit_settings_are_refused_when_they_come(settings, message):
    w = leaf(draw(6))
    with pytest.raises(ValueError, match=message):
        MALA([w], **settings)
    sampler = MALA([w], seed=0)
    with pytest.raises(ValueError, match=message):
        sampler.add_param_group({"params": [leaf(draw(2))], **settings})
    assert len(sampler.param_groups) == 1
    sampler.param_groups[0].update(settings)
    before = w.detach().clone()
    with pytest.raises(ValueError, match=message):
        sampler.step(anharmonic([w], sampler))
    assert same_bits(w, before)


def test_bad_use():
    w, other = leaf(draw(6)), leaf(draw(2))
    sampler = MALA([w], nbeta=2.0)
    w.grad = torch.zeros_like(w)
    with pytest.raises(TypeError, match="closure must compute the loss and its gradients"):
        sampler.step()
    with pytest.raises(TypeError, match="closure must return the loss, a number, got None"):
        sampler.step(lambda: None)
    with pytest.raises(ValueError, match=r"nbeta must be the same in all groups, got 2\.0 and 3"):
        sampler.add_param_group({"params": [other], "nbeta": 3.0})
    assert same_bits(w, draw(6))
    assert sampler.param_groups[0]["step"] == 0
    with pytest.raises(TypeError, match="needs an SGLD sampler, got MALA"):
        mala_acceptance(sampler, anharmonic([w], sampler))
    low = leaf(draw(6, torch.bfloat16))
    with pytest.raises(ValueError, match="rounding must be 'exact', got 'stochastic'"):
        MALA([low], lr=0.1, rounding="stochastic")

    def forgetful(calls=[0]):  # noqa: B006
        calls[0] += 1
        w.grad = torch.zeros_like(w) if calls[0] == 1 else None
        return 1.0

    with pytest.raises(RuntimeError, match=r"no gradient for params\[0\]"):
        sampler.step(forgetful)
    assert same_bits(w, draw(6))


def test_devices_that_would_have_to_be_waited_for_are_refused():
    fastllc.use_reference()
    try:
        with pytest.raises(ValueError, match=r"params\[0\] must be on cpu for MALA, got meta"):
            MALA([torch.zeros(2, device="meta", requires_grad=True)])
    finally:
        fastllc.use_reference(False)


def test_the_reference_walks_the_same_chain():
    wanted = chain(30)
    fastllc.use_reference()
    try:
        with pytest.warns(UserWarning, match="no native kernel"):
            found = chain(30)
    finally:
        fastllc.use_reference(False)
    assert found == wanted
