"""Operations on stacked tensors: what `vmap` gives, in less time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import vmap
from torch.nn import functional as F

from fastllc.engine.functional import batched
from fastllc.engine.shortcuts import FEW, Shortcuts

K = 3


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def leaf(tensor):
    return tensor.clone().requires_grad_()


def both(function, *stacks):
    """The value and the gradients of sum(function), by vmap and with shortcuts; were any taken?"""
    found, shortcuts = [], Shortcuts()
    for run in (vmap(function), lambda *own: taken(function, shortcuts, *own)):
        own = [leaf(t) if t.is_floating_point() else t for t in stacks]
        value = run(*own)
        grads = torch.autograd.grad(value.sum(), [t for t in own if t.requires_grad])
        found.append((value, *grads))
    return found, shortcuts.met


def taken(function, shortcuts, *stacks):
    with batched(K, shortcuts) as (hide, show):
        return show(function(*(hide(t) for t in stacks)))


def check(function, *stacks, met=True):
    (expected, found), was_met = both(function, *stacks)
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(y, x, equal_nan=True)
        assert y.dtype == x.dtype
    assert was_met == met


sizes = st.integers(1, 2 * FEW)


@given(rows=sizes, inputs=sizes, features=sizes, biased=st.booleans())
def test_linear(rows, inputs, features, biased):
    bias = [randn(K, features)] if biased else []
    check(F.linear, randn(K, rows, inputs), randn(K, features, inputs), *bias)


@pytest.mark.parametrize("rows", [5, 50])
@pytest.mark.parametrize("features", [4, 30])
def test_gradients_of_weights_come_as_they_are_stored(rows, features):
    inputs = 20
    weight = leaf(randn(K, features, inputs))
    value = taken(F.linear, Shortcuts(), randn(K, rows, inputs), weight)
    (grad,) = torch.autograd.grad(value.sum(), [weight])
    turned = features <= FEW or inputs >= rows
    assert value.is_contiguous() == (not turned)
    assert grad.is_contiguous() or not turned


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: x @ w.T @ w,
        lambda x, w: torch.matmul(x, w.mT),
        lambda x, w: x.mm(w.t()),
        lambda x, w: x.matmul(w.T),
    ],
)
def test_products(product):
    check(product, randn(K, 7, 5), randn(K, 4, 5))


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: x[0] @ w,  # a vector
        lambda x, w: x[None] @ w,  # a stack of its own
        lambda x, w: F.linear(x[None], w.T),
        lambda x, w: x @ torch.ones(5, 2) + w.sum(),  # one matrix for all
        lambda x, w: vmap(lambda row: row[None] @ w)(x),  # inside another vmap
    ],
)
def test_what_is_no_product_of_two_stacks_is_left_to_vmap(product):
    check(product, randn(K, 7, 5), randn(K, 5, 4))


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_mse_loss(shape):
    x, y = randn(K, *shape), randn(K + 1, *shape)[:K]
    check(F.mse_loss, x, y)
    check(nn.MSELoss(), x, y)


@pytest.mark.parametrize(
    "options",
    [{"reduction": "sum"}, {"reduction": "none"}, {"size_average": False}],
)
@pytest.mark.filterwarnings("ignore:size_average")
def test_other_reductions(options):
    def loss(x, y):
        return F.mse_loss(x, y, **options).sum()

    check(loss, randn(K, 4, 2), randn(K, 4, 2) + 1)


def test_losses_that_broadcast_are_left_to_vmap():
    def loss(x, y):
        with pytest.warns(UserWarning, match="target size"):
            return F.mse_loss(x, y)

    check(loss, randn(K, 4, 1), randn(K, 4))


def test_a_target_that_all_share():
    check(lambda x: F.mse_loss(x, torch.ones(4, 2)), randn(K, 4, 2))


@given(rows=st.integers(1, 6), classes=st.integers(1, 2 * FEW), strided=st.booleans())
def test_cross_entropy(rows, classes, strided):
    logits = randn(K, classes, rows).mT if strided else randn(K, rows, classes)
    target = torch.arange(K * rows).view(K, rows) % classes
    check(F.cross_entropy, logits, target)


def test_cross_entropy_leaves_out_what_it_must():
    target = torch.tensor([[0, -100, 2], [1, 1, 1], [-100, 0, -100]])
    check(F.cross_entropy, randn(K, 3, 4), target)
    check(lambda x, y: F.cross_entropy(x, y, ignore_index=1), randn(K, 3, 4), target.clamp(min=0))
    everything = torch.full((K, 3), -100)
    assert taken(F.cross_entropy, Shortcuts(), randn(K, 3, 4), everything).isnan().all()


@pytest.mark.parametrize(
    "options",
    [{"reduction": "sum"}, {"label_smoothing": 0.1}, {"weight": torch.arange(4.0)}],
)
def test_other_cross_entropies(options):
    target = torch.tensor([[0, 3, 2], [1, 1, 1], [2, 0, 0]])
    check(lambda x, y: F.cross_entropy(x, y, **options), randn(K, 3, 4), target)


def test_classes_given_as_probabilities():
    check(F.cross_entropy, randn(K, 3, 4), randn(K, 3, 4).softmax(-1))


def test_autocast():
    def loss(x, w):
        with torch.autocast("cpu", torch.bfloat16):
            return F.linear(x, w)

    check(loss, randn(K, 5, 4), randn(K, 3, 4))


@pytest.mark.parametrize("shape", [(-1,), ((-1,),), (2, -1), (4, 5), (torch.Size([20]),)])
def test_results_that_lie_across_can_be_viewed(shape):
    check(lambda x, w: F.linear(x, w).view(*shape), randn(K, 5, 6), randn(K, 4, 6))


def test_views_of_another_dtype():
    found = taken(lambda x: x.view(torch.int32), Shortcuts(), torch.ones(K, 2))
    assert found.dtype == torch.int32


def test_wrong_shapes_are_refused():
    with pytest.raises(RuntimeError):
        taken(F.linear, Shortcuts(), randn(K, 5, 4), randn(K, 3, 6))
    with batched(K) as (hide, _):  # the level is as it was
        assert hide(torch.ones(K, 2)).shape == (2,)


def test_other_operations_are_not_met():
    check(lambda x: torch.sin(x), randn(K, 4), met=False)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("padding", [0, 3, -1, None])
def test_embeddings_give_padding_no_gradient(padding, shared):
    """As one chain's own call does, which vmap does not, of the second chain on."""
    weight, index = randn(K, 5, 4), torch.tensor([[0, 1, 4], [3, 3, 0], [4, 0, 2]])

    def loss(index, weight):
        return F.embedding(index, weight, padding_idx=padding).square().sum()

    own, together = leaf(weight), leaf(weight)
    expected = [loss(index[0 if shared else k], own[k]) for k in range(K)]
    if shared:
        found = taken(lambda weight: loss(index[0], weight), Shortcuts(), together)
    else:
        found = taken(loss, Shortcuts(), index, together)
    torch.testing.assert_close(found, torch.stack(expected))
    torch.stack(expected).sum().backward()
    found.sum().backward()
    torch.testing.assert_close(together.grad, own.grad)
