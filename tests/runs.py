"""Short runs, and what two of them have in common."""

import numpy as np

from fastllc import sample
from zoo import CASES, case

SHORT = {
    "lr": 1e-3,
    "nbeta": 20.0,
    "localization": 10.0,
    "num_chains": 3,
    "num_draws": 10,
    "seed": 3,
    "progress": False,
}


def run(made, **settings):
    """Sample a case of the zoo, minibatches of 8 where the data leave that open."""
    if isinstance(made, str):
        made = case(made)
    batch_size = {} if hasattr(made.data, "collate_fn") else {"batch_size": 8}
    return sample(**made.fit, **SHORT | batch_size | settings)


def arrays(trace):
    """All arrays of a trace, by path."""
    return {
        f"{node.path}/{name}": array.values
        for node in trace.subtree
        for name, array in node.to_dataset(inherit=False).data_vars.items()
    }


def losses(trace):
    return trace["steps/loss"].values


def assert_close(first, second, rtol=1e-4):
    """Two traces hold the same arrays to rounding, and the same of whole numbers."""
    first, second = arrays(first), arrays(second)
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.shape == second[name].shape, name
        if values.dtype.kind == "i":
            np.testing.assert_array_equal(values, second[name], err_msg=name)
        else:
            scale = np.nanmax(np.abs(second[name]), initial=1e-30)
            np.testing.assert_allclose(
                values, second[name], rtol=rtol, atol=rtol * scale, err_msg=name
            )


def assert_same(first, second):
    """Two traces hold the same bits."""
    first, second = arrays(first), arrays(second)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


__all__ = ["CASES", "SHORT", "arrays", "assert_close", "assert_same", "case", "losses", "run"]
