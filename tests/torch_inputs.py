"""torch's own optimizer test inputs, and what each sampler makes of them."""

import copy
import functools

import pytest
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerInfo,
    OptimizerInput,
    optim_db,
)

from fastllc.samplers.settings import COMMON
from helpers import CHANGED, OWN, SAMPLERS

# What the samplers answer otherwise than torch's optimizers; None: it is no error.
DEVIATIONS = {
    "Tensor lr must be 1-element": (TypeError, "lr must be a number"),
    "epsilon1 should be >= 0": (TypeError, "eps must be a number"),
    "betas must be either both floats or both Tensors": None,
    "only support 2D parameters": None,
    "does not support complex parameters": (TypeError, r"params\[0\] must be one of float32"),
    "complex not supported": (TypeError, r"params\[0\] must be one of float32"),
    "dense params required": (TypeError, r"params\[0\] must be dense"),
    "dense params required in param_groups": (TypeError, r"params\[0\] must be dense"),
}


def _known(sampler, kwargs):
    return kwargs.keys() <= {"lr", *COMMON, *OWN[sampler]}


def _all_inputs():
    """The inputs of all of torch's optimizers, each once."""
    found = {}
    for info in optim_db:
        for given in info.optim_inputs_func(device="cpu"):
            found.setdefault(repr(sorted(given.kwargs.items())), given)
    return list(found.values())


def inputs(sampler, device, dtype=None):
    """Those that the sampler has the arguments for, and some with its own."""
    own = [{}, OWN[sampler], CHANGED[sampler], {"localization": 2.0, "bounding_box_size": 0.5}]
    return [given for given in _all_inputs() if _known(sampler, given.kwargs)] + [
        OptimizerInput(None, {"lr": 0.01, **kwargs}, desc=f"own {i}")
        for i, kwargs in enumerate(own)
    ]


def foreign_inputs(sampler):
    """Those with arguments that other optimizers have."""
    return [given for given in _all_inputs() if not _known(sampler, given.kwargs)]


def error_inputs(sampler, device, dtype):
    """The errors of all of torch's optimizers as the sampler must raise them; type None: none."""
    of_all = {}
    for info in optim_db:
        for case in info.optim_error_inputs_func(device, dtype):
            given = case.optimizer_error_input
            kind, regex = case.error_type, case.error_regex
            if not _known(sampler, given.kwargs):
                kind, regex = TypeError, "got an unexpected argument"
            elif given.desc in DEVIATIONS:
                kind, regex = DEVIATIONS[given.desc] or (None, "")
            elif given.params is None:  # torch's words for the arguments of its own
                regex = "must be"
            of_all[given.desc, str(given.kwargs)] = ErrorOptimizerInput(
                given, error_type=kind, error_regex=regex
            )
    return list(of_all.values())


# The two optimizers whose lists are the longest; the others have the last of Adam's.
SCHEDULERS = tuple(
    schedulers
    for info in optim_db
    if info.name in ("Adam", "SGD")
    for schedulers in info.scheduler_inputs
)
INFOS = [
    OptimizerInfo(
        sampler,
        optim_inputs_func=functools.partial(inputs, sampler),
        optim_error_inputs_func=functools.partial(error_inputs, sampler),
        scheduler_inputs=SCHEDULERS,
        supported_impls=(),
        supports_complex=False,
    )
    for sampler in SAMPLERS
]
each_info = pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)


def inputs_of(info):
    """Arguments for a sampler, fresh ones, since schedulers write into a tensor lr."""
    return [copy.deepcopy(given.kwargs) for given in info.optim_inputs_func(device="cpu")]
