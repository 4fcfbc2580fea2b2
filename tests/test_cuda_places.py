"""What is not in the memory of the step's device is refused before any launch."""

import numpy as np
import pytest
import torch

from chains import setting
from emulated import Emulation, native_kernels, table_of
from fastllc._core import Rule
from fastllc.kernels import Member

_emulated = native_kernels()


@pytest.fixture(autouse=True)
def _everything_on_one_device():
    yield
    _emulated.elsewhere({})


def adam():
    """A step of a rule that uses every array, and all that it points to."""
    shape = (1, 50)
    own = Member(
        torch.randn(shape),
        id=0,
        w0=torch.randn(50),
        mask=torch.ones(50, dtype=torch.bool),
        momentum=torch.zeros(shape),
        square_avg=torch.ones(shape),
    )
    grad = torch.randn(shape)
    emulation = Emulation(Rule.adam, table_of([own], [grad]), [[setting()]], [1], [3])
    emulation.kept = own, grad
    emulation.sketches = np.zeros((1, 5, 10))
    return emulation


@pytest.mark.parametrize(
    ("device", "said"), [(-1, "an address of the host"), (3, "one on device 3")]
)
@pytest.mark.parametrize("name", ["w", "grad", "w0", "mask", "momentum", "square_avg"])
def test_tensors_elsewhere(name, device, said):
    emulation = adam()
    w = emulation.kept[0].w
    before = w.clone()
    _emulated.elsewhere({int(emulation.table[0][name]): device})
    with pytest.raises(
        ValueError,
        match=rf"segments\[0\].{name} must be in the memory of CUDA device 0, got {said}",
    ):
        emulation.step()
    assert torch.equal(w, before)
    _emulated.elsewhere({})
    emulation.step()
    assert not torch.equal(w, before)


@pytest.mark.parametrize("name", ["chains", "settings", "nonfinite", "moments", "sketches"])
def test_tables_elsewhere(name):
    emulation = adam()
    _emulated.elsewhere({getattr(emulation, name).ctypes.data: -1})
    message = rf"{name} must be .* device 0, got an address of the host"
    with pytest.raises(ValueError, match=message):
        emulation.step(moments=True, sketch=(10, 0))


def test_null_tables():
    emulation = adam()
    emulation.step()
    addresses = {
        "chains": emulation.chains.ctypes.data,
        "settings": emulation.settings.ctypes.data,
        "nonfinite": emulation.nonfinite.ctypes.data,
        "moments": 0,
        "sketches": 0,
        "sketch_dim": 0,
        "sketch_seed": 0,
        "workspace": emulation.workspace.ctypes.data,
    }
    for name in ("chains", "settings", "nonfinite", "workspace"):
        with pytest.raises(ValueError, match=f"{name} must be .*, got no address"):
            emulation.native.run(seed=0, **addresses | {name: 0})
    for dim in (0, -1, 2**16 + 1):
        wrong = addresses | {"sketches": 8, "sketch_dim": dim}
        with pytest.raises(ValueError, match=rf"sketch_dim must be in \[1, 65536\], got {dim}"):
            emulation.native.run(seed=0, **wrong)


def test_a_tensor_that_moves_is_asked_for_again():
    emulation = adam()
    emulation.step()
    moved = torch.randn(1, 50)
    emulation.table["grad"] = moved.data_ptr()
    _emulated.elsewhere({moved.data_ptr(): 1})
    with pytest.raises(ValueError, match=r"segments\[0\].grad must be .* got one on device 1"):
        emulation.step()


def test_a_table_that_changes_is_checked_again():
    emulation = adam()
    emulation.step()
    emulation.table["group"] = 5
    with pytest.raises(ValueError, match=r"segments\[0\].group must be in \[0, 1\), got 5"):
        emulation.step()
