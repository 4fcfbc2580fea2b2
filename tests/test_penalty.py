"""The localization penalty: value, gradient, both, for lists of tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastllc import SGLD, localization_penalty, localization_penalty_and_grad
from refusals import F32, F64, refuses

DTYPES = [torch.float32, torch.float64]


def draw(shapes, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    return params, [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


@settings(max_examples=40)
@given(
    shapes=st.lists(
        st.lists(st.integers(0, 20), max_size=3).map(tuple) | st.just((257, 65)),
        min_size=1,
        max_size=4,
    ),
    strength=st.floats(0, 1e3),
    dtype=st.sampled_from(DTYPES),
)
def test_value_and_gradient_are_those_of_autograd(shapes, strength, dtype):
    params, anchors = draw(shapes, dtype)
    ours = [p.clone().requires_grad_() for p in params]
    theirs = [p.clone().double().requires_grad_() for p in params]
    value = localization_penalty(ours, anchors, strength)
    exact = sum(
        (
            strength / 2 * (w - w0.double()).square().sum()
            for w, w0 in zip(theirs, anchors, strict=True)
        ),
        start=torch.zeros((), dtype=torch.float64),
    )
    (3 * value).backward()
    (3 * exact).backward()
    rtol, atol = (1e-5, 1e-4) if dtype == torch.float32 else (1e-13, 1e-12)
    assert value.dtype == dtype
    assert value.shape == ()
    torch.testing.assert_close(value.double(), exact, rtol=rtol, atol=1e-30)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=rtol, atol=atol)


def test_value_and_gradient_in_one_pass_are_the_separate_ones():
    params, anchors = draw([(100, 300), (5,), ()], torch.float32)
    value, grads = localization_penalty_and_grad(params, anchors, 2.5)
    leaves = [p.clone().requires_grad_() for p in params]
    separate = localization_penalty(leaves, anchors, 2.5)
    separate.backward()
    assert torch.equal(value, separate)
    for grad, leaf in zip(grads, leaves, strict=True):
        assert torch.equal(grad, leaf.grad)
        assert grad.shape == leaf.shape


@pytest.mark.parametrize("dtype", DTYPES)
def test_non_contiguous_tensors(dtype):
    base = torch.randn(40, 30, dtype=dtype)
    views = [base.t(), base[::3, 1:], base.expand(2, 40, 30)[0]]
    anchors = [torch.zeros_like(v, memory_format=torch.contiguous_format) for v in views]
    leaves = [v.detach().clone(memory_format=torch.preserve_format).requires_grad_() for v in views]
    value = localization_penalty(leaves, anchors, 1.0)
    value.backward()
    assert value.item() == pytest.approx(
        sum(0.5 * v.square().sum().item() for v in views), rel=1e-5
    )
    for leaf in leaves:
        assert torch.equal(leaf.grad, leaf.detach())


def test_only_wanted_gradients_are_computed():
    a, b = torch.ones(3, requires_grad=True), torch.ones(4)
    localization_penalty([a, b], [torch.zeros(3), torch.zeros(4)], 1.0).backward()
    assert torch.equal(a.grad, torch.ones(3))
    assert b.grad is None


def test_gradients_of_both_orders():
    params, anchors = draw([(5, 3), (2,)], torch.float64)
    leaves = [p.requires_grad_() for p in params]

    def penalty(*weights):
        return localization_penalty(weights, anchors, 1.7)

    assert torch.autograd.gradcheck(penalty, leaves)
    assert torch.autograd.gradgradcheck(penalty, leaves)


def test_not_a_number_shows_in_the_value():
    w = torch.ones(1000)
    w[567] = math.nan
    assert localization_penalty([w], [torch.zeros(1000)], 1.0).isnan()


def one(**options):
    return [torch.ones(3, **options)]


HALF, DOUBLE = {"dtype": torch.float16}, {"dtype": torch.float64}


@pytest.mark.parametrize(
    ("params", "anchors", "strength", "error", "message"),
    [
        (one(), one(), -1.0, ValueError, "strength must be finite and >= 0, got -1.0"),
        (one(), one(), math.nan, ValueError, "strength must be finite"),
        ([], [], 1.0, ValueError, "params must not be empty"),
        (one(), [], 1.0, ValueError, r"anchors must be as many as params \(1\), got 0"),
        (one(), [torch.ones(4)], 1.0, ValueError, r"anchors\[0\] must have shape \(3,\)"),
        (one(), one(**DOUBLE), 1.0, TypeError, r"anchors\[0\] must be float32"),
        (one(**HALF), one(**HALF), 1.0, TypeError, r"params\[0\] must be float32 or float64"),
        (one() + one(**DOUBLE), one() + one(**DOUBLE), 1.0, ValueError, r"params\[1\] must be tor"),
        (one(device="meta"), one(), 1.0, TypeError, "meta"),
        ([torch.ones(3).to_sparse()], one(), 1.0, TypeError, r"params\[0\] must be dense"),
    ],
)
def test_bad_input(params, anchors, strength, error, message):
    for function in (localization_penalty, localization_penalty_and_grad):
        with pytest.raises(error, match=message):
            function(params, anchors, strength)


def pair(shape=3, dtype=F32):
    return torch.zeros(shape, dtype=dtype)


BAD_PENALTIES = {
    "no params": ([], [], 1.0, ValueError, "params", "empty"),
    "fewer anchors": ([pair(), pair()], [pair()], 1.0, ValueError, "anchors", "2", "got 1"),
    "more anchors": ([pair()], [pair(), pair()], 1.0, ValueError, "anchors", "1", "got 2"),
    "shapes": ([pair(3)], [pair(4)], 1.0, ValueError, "anchors[0]", "(3,)", "(4,)"),
    "shapes that broadcast": (
        [pair((3, 1))], [pair((1, 3))], 1.0, ValueError, "anchors[0]", "(3, 1)", "(1, 3)",
    ),
    "0-d for 1": ([pair(1)], [pair(())], 1.0, ValueError, "anchors[0]", "(1,)", "()"),
    "dtypes of a pair": (
        [pair()], [pair(dtype=F64)], 1.0, TypeError, "anchors[0]", "float32", "float64",
    ),
    "dtypes of params": (
        [pair(), pair(dtype=F64)], [pair(), pair(dtype=F64)], 1.0, (TypeError, ValueError),
        "params[1]", "float32", "float64",
    ),
    "half": ([pair().half()], [pair().half()], 1.0, TypeError, "params[0]", "float16"),
    "integers": ([pair().int()], [pair().int()], 1.0, TypeError, "params[0]", "int32"),
    "complex": (
        [pair(dtype=torch.complex64)], [pair(dtype=torch.complex64)], 1.0, TypeError, "params[0]",
        "complex64",
    ),
    "meta": (
        [pair().to("meta")], [pair().to("meta")], 1.0, TypeError, "params[0]", "meta",
    ),
    "devices": ([pair()], [pair().to("meta")], 1.0, ValueError, "anchors[0]", "cpu", "meta"),
    "sparse": (
        [torch.eye(2).to_sparse()], [torch.eye(2)], 1.0, TypeError, "params[0]", "sparse_coo",
    ),
    "sparse anchor": (
        [torch.eye(2)], [torch.eye(2).to_sparse()], 1.0, (TypeError, RuntimeError), "anchors[0]",
        "sparse_coo",
    ),
    "expanded": (
        [pair(1).expand(3)], [pair(3)], 1.0, ValueError, "params[0]", "(0,)",
    ),
    "negative": ([pair()], [pair()], -1.0, ValueError, "strength", "got -1.0"),
    "nan": ([pair()], [pair()], math.nan, ValueError, "strength", "got nan"),
    "infinite": ([pair()], [pair()], math.inf, ValueError, "strength", "got inf"),
    "a word": ([pair()], [pair()], "much", TypeError, "strength", "much"),
    "no strength": ([pair()], [pair()], None, TypeError, "strength", "None"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PENALTIES)
@pytest.mark.parametrize("function", [localization_penalty, localization_penalty_and_grad])
def test_localization_penalty_refuses(case, function):
    params, anchors, strength, error, *words = BAD_PENALTIES[case]
    with refuses(error, *words):
        function(params, anchors, strength)


def test_the_penalty_under_a_default_device():
    """Weights on the CPU stay CPU work, whatever torch.set_default_device says."""
    w, w0 = torch.ones(3, requires_grad=True), torch.zeros(3)
    with torch.device("meta"):
        value = localization_penalty([w], [w0], 2.0)
        value.backward()
        both, grads = localization_penalty_and_grad([w], [w0], 2.0)
    assert value.device == both.device == w.device
    assert value.item() == both.item() == 3.0
    assert torch.equal(w.grad, torch.full((3,), 2.0))
    assert torch.equal(grads[0], w.grad)


def test_the_penalty_notices_weights_that_were_changed_since():
    w = torch.ones(3, requires_grad=True)
    value = localization_penalty([w], [torch.zeros(3)], 2.0)
    w.grad = torch.ones(3)
    SGLD([w], seed=0).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's
def test_a_compiled_loss_has_the_penalty():
    """Outside the graph, with what autograd needs to go on."""
    model, copy = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    copy.load_state_dict(model.state_dict())
    anchors = [torch.zeros_like(p) for p in model.parameters()]

    def loss(model):
        penalty = localization_penalty(list(model.parameters()), anchors, 2.0)
        _, grads = localization_penalty_and_grad(list(model.parameters()), anchors, 2.0)
        return 3.0 * penalty + model(torch.ones(1, 3)).sum(), grads[0] + 1.0

    value, grad = torch.compile(loss, backend="eager")(model)
    expected, expected_grad = loss(copy)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)
    value.backward()
    expected.backward()
    for p, q in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
