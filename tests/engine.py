"""What tests of the engine share: short runs of the models in `zoo`, and how to compare them."""

import numpy as np

from fastllc import sample

SHORT = {
    "lr": 1e-3,
    "nbeta": 10.0,
    "localization": 5.0,
    "num_chains": 3,
    "num_draws": 5,
    "seed": 1,
    "progress": False,
}


def run(case, **settings):
    """A short trace of a case; minibatches of 5, unless the data are in batches already."""
    given = {"batch_size": 5} if isinstance(case.data, tuple) else {}
    return sample(**case.fit, **{**SHORT, **given, **settings})


def losses(trace):
    return trace["steps/loss"].values


def arrays(trace):
    """Everything that is measured, by path."""
    return {
        f"{node.path}:{name}": variable.values
        for node in trace.subtree
        for name, variable in node.to_dataset().data_vars.items()
    }


def assert_close(trace, other, rtol):
    """Both hold the same arrays, each alike to `rtol` of its own size."""
    found, wanted = arrays(trace), arrays(other)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        size = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=rtol * size, err_msg=name)


def assert_same(trace, other):
    """Both hold the same arrays, bit for bit."""
    found, wanted = arrays(trace), arrays(other)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
