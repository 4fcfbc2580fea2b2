"""Products by oneDNN: those of torch to rounding, wherever they are taken."""

from contextlib import nullcontext
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine import assert_close, assert_same, run
from fastllc.engine import products
from fastllc.engine.objective import Objective
from fastllc.engine.products import ByOneDNN, _is_zen5, faster_products
from zoo import CASES, case, normal

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN"
)

SIZES = st.integers(1, 40)
LAYOUTS = st.sampled_from(["rows", "columns", "part of wider rows", "expanded", "every second"])


def laid_out(values, layout):
    """The same values, or others, in another order of memory."""
    if layout == "columns":
        return values.mT.contiguous().mT
    if layout == "part of wider rows":
        return torch.cat([values, values, values], dim=-1)[..., : values.shape[-1]]
    if layout == "expanded":
        return values[..., :1, :].expand(values.shape)
    if layout == "every second":
        return values.repeat_interleave(2, dim=-1)[..., ::2]
    return values


@pytest.fixture
def all_sizes(monkeypatch):
    """Let products of all sizes be oneDNN's, and each model and processor be worth it."""
    monkeypatch.setattr(products, "_PRODUCT", 0)
    monkeypatch.setattr(products, "_OPERATION", 0)
    monkeypatch.setattr(products, "_halved", lambda: True)


def of_all_sizes():
    mode = ByOneDNN()
    mode._least = 0
    return mode


@given(
    st.one_of(st.none(), st.integers(1, 4)),
    SIZES,
    SIZES,
    SIZES,
    LAYOUTS,
    LAYOUTS,
    st.sampled_from(["none", "row", "column", "matrix"]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_every_product_is_that_of_torch(chains, m, k, n, first, second, bias, dtype):
    batch = () if chains is None else (chains,)
    a = laid_out(normal(*batch, m, k, dtype=dtype, seed=1), first)
    b = laid_out(normal(*batch, k, n, dtype=dtype, seed=2), second)
    shape = {"row": (1, n), "column": (m, 1), "matrix": (m, n)}.get(bias)
    added = [] if shape is None else [normal(*batch, *shape, dtype=dtype, seed=3)]
    if bias == "row" and chains is None:
        added = [added[0][0]]
    multiply = {
        (True, False): torch.mm,
        (True, True): torch.addmm,
        (False, False): torch.bmm,
        (False, True): torch.baddbmm,
    }[chains is None, bool(added)]
    with of_all_sizes() as mode:
        found = multiply(*added, a, b)
    exact = multiply(*(t.double() for t in (*added, a, b)))
    assert found.shape == exact.shape
    assert found.dtype == dtype
    scale = multiply(*(t.double().abs() for t in (*added, a, b)))
    error = ((found.double() - exact).abs() / scale.clamp_min(1e-30)).max()
    assert error <= 2 * (k + 1) * torch.finfo(dtype).eps
    ordinary = {"rows", "columns", "part of wider rows"}
    if dtype == torch.float64:
        assert mode.multiplied == 0
    elif {first, second} <= ordinary and (chains or bias in ("none", "row")):
        assert mode.multiplied == (chains or 1) * m * k * n
    torch.testing.assert_close(found, multiply(*added, a, b))


class Product(NamedTuple):
    rows: int
    taken: bool


@pytest.mark.parametrize("product", [Product(2**13, True), Product(2**13 - 1, False)])
def test_a_product_is_taken_from_its_size_for_each_thread_on(one_thread, product):
    with ByOneDNN() as mode:
        torch.ones(product.rows, 16) @ torch.ones(16, 16)
    assert mode.multiplied == (product.rows * 256 if product.taken else 0)
    assert mode.operations == 3


@pytest.mark.parametrize("scaled", [{"alpha": 2.0}, {"beta": 0.5}])
def test_scaled_products_are_left_alone(scaled):
    c, a, b = normal(5), normal(3, 4), normal(4, 5)
    with of_all_sizes() as mode:
        found = torch.addmm(c, a, b, **scaled)
    assert mode.multiplied == 0
    torch.testing.assert_close(found, torch.addmm(c, a, b, **scaled))


@pytest.mark.parametrize("bias", [normal(1).expand(5), normal(10)[::2], normal(6)[1:]])
def test_a_bias_may_have_any_stride(bias):
    a, b = normal(3, 4), normal(4, 5)
    with of_all_sizes() as mode:
        found = torch.addmm(bias, a, b)
    assert mode.multiplied == (3 * 4 * 5 if bias.stride() == (1,) else 0)
    torch.testing.assert_close(found, torch.addmm(bias, a, b))


@pytest.mark.parametrize(
    ("multiply", "shapes"),
    [
        (torch.mm, [(3, 4), (5, 6)]),
        (torch.mm, [(3, 4), (2, 4, 5)]),
        (torch.addmm, [(5,), (3, 4), (6, 5)]),
        (torch.bmm, [(2, 3, 4), (3, 4, 5)]),
        (torch.bmm, [(2, 3, 4), (2, 5, 6)]),
    ],
)
def test_what_torch_refuses_it_refuses_in_its_own_words(multiply, shapes):
    factors = [normal(*shape) for shape in shapes]
    with pytest.raises(RuntimeError) as by_torch:
        multiply(*factors)
    with of_all_sizes(), pytest.raises(RuntimeError) as found:
        multiply(*factors)
    assert str(found.value) == str(by_torch.value)


@pytest.mark.parametrize("multiply", [torch.addmm, torch.baddbmm])
def test_dtypes_are_not_mixed(multiply):
    chains = (2,) if multiply is torch.baddbmm else ()
    with of_all_sizes(), pytest.raises(RuntimeError, match="dtype"):
        multiply(normal(5).double(), normal(*chains, 3, 4), normal(*chains, 4, 5))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_factors_are_left_alone(layout):
    with of_all_sizes() as mode:
        found = torch.eye(4).to_sparse(layout=layout) @ torch.ones(4, 5)
    assert mode.multiplied == 0
    assert torch.equal(found, torch.ones(4, 5))


class Zero(torch.Tensor):
    """All that is made of it is zero."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return torch.zeros(())


def test_tensors_with_products_of_their_own_keep_them():
    with of_all_sizes() as mode:
        found = torch.mm(torch.eye(4).as_subclass(Zero), torch.ones(4, 5))
    assert mode.multiplied == 0
    assert torch.equal(found, torch.zeros(()))


def test_what_is_compiled_stays_compiled():
    graphs = []

    def compiler(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda x: x @ x, backend=compiler, fullgraph=True)
    for context in (nullcontext(), of_all_sizes(), nullcontext()):
        with context:
            compiled(normal(4, 4))
    torch._dynamo.reset()
    with of_all_sizes():
        compiled(normal(4, 4))
    assert len(graphs) == 2


def test_backward_passes_too():
    x, w = normal(64, 32), normal(16, 32).requires_grad_()
    with of_all_sizes() as mode:
        nn.functional.linear(x, w).square().sum().backward()
    assert mode.multiplied == 2 * 64 * 32 * 16
    found, w.grad = w.grad, None
    nn.functional.linear(x, w).square().sum().backward()
    torch.testing.assert_close(found, w.grad)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ["vectorised", "inplace"])
@pytest.mark.parametrize("name", CASES)
def test_a_trace_is_the_same_to_rounding(name, engine, all_sizes, monkeypatch):
    by_onednn = run(case(name), engine=engine, num_draws=8)
    assert by_onednn.attrs["products"] == "oneDNN"
    assert_same(run(case(name), engine=engine, num_draws=8), by_onednn)
    monkeypatch.setattr(products, "_halved", lambda: False)
    by_torch = run(case(name), engine=engine, num_draws=8)
    assert by_torch.attrs["products"] == "torch"
    low = next(case(name).model.parameters()).dtype == torch.bfloat16
    assert_close(by_onednn, by_torch, 2**-6 if low else 3e-6)


def test_what_inductor_compiles_has_products_of_its_own(all_sizes):
    with patch("torch._inductor.compile", lambda traced, _: traced):  # which takes seconds
        trace = run(case("mlp"), engine="vectorised", compile=True)
    assert trace.attrs["products"] == "torch"


def linear(width, batch):
    return Objective(nn.Linear(width, width), nn.functional.mse_loss), (
        normal(batch, width),
        normal(batch, width),
    )


def test_it_has_to_pay(one_thread, monkeypatch):
    monkeypatch.setattr(products, "_halved", lambda: True)
    assert faster_products(*linear(512, 64)) is not None  # 2^24 multiply-adds in some operations
    assert faster_products(*linear(64, 64)) is None
    assert faster_products(*linear(64, 512)) is None  # 2^21 of them in as many operations
    with FlopCounterMode(display=False):  # which knows the usual products alone
        assert faster_products(*linear(512, 64)) is None
    with monkeypatch.context() as patch:
        patch.setattr(torch._C, "_get_mkldnn_enabled", lambda: False)
        assert faster_products(*linear(512, 64)) is None
    monkeypatch.setattr(products, "_halved", lambda: False)
    assert faster_products(*linear(512, 64)) is None


def refuse_to_be_watched():
    if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
        raise RuntimeError("no modes, please")


class Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        refuse_to_be_watched()
        return grad


def forward_alone(x):
    refuse_to_be_watched()
    return x


@pytest.mark.parametrize("watched", [forward_alone, Watched.apply])
def test_a_model_that_cannot_be_watched_keeps_its_products(watched, all_sizes):
    class Model(nn.Linear):
        def forward(self, x):
            return watched(super().forward(x))

    made = case("mlp")._replace(model=Model(4, 3), data=(normal(24, 4), normal(24, 3)))
    trace = run(made._replace(loss_fn=nn.functional.mse_loss))
    assert trace.attrs["products"] == "torch"
    assert np.isfinite(trace["steps/loss"].values).all()


@pytest.mark.parametrize(
    ("vendor", "family", "expected"),
    [
        ("AuthenticAMD", 26, True),
        ("AuthenticAMD", 27, True),
        ("AuthenticAMD", 25, False),
        ("GenuineIntel", 26, False),
    ],
)
def test_processors_are_told_by_their_family(vendor, family, expected):
    about = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 2\n\n"
    assert _is_zen5(about * 2) is expected
    assert not _is_zen5("processor\t: 0\nBogoMIPS\t: 50.00\n")
