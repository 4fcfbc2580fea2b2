"""What tests that need a GPU share: why they are skipped elsewhere, and what may not wait."""

import contextlib
import warnings

import pytest
import torch

from fastllc.kernels import cuda

DEVICE = torch.device("cuda", 0)


def _missing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of drivers that are not there
        if not torch.cuda.is_available():
            return "torch finds no CUDA device"
    try:
        cuda.load(DEVICE)
    except RuntimeError as error:
        return str(error)
    return None


MISSING = _missing()
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


@contextlib.contextmanager
def no_waiting():
    """Let torch raise where anything waits for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def there(tensor):
    """A copy on the device, a leaf if the tensor is one."""
    copy = tensor.detach().clone().to(DEVICE)
    return copy.requires_grad_() if tensor.requires_grad else copy


def raw(tensor):
    """The bytes of the elements in row-major order."""
    return tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes()
