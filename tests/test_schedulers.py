"""Learning rate schedulers of torch."""

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from helpers import check_step, make

SCHEDULERS = {
    "StepLR": lambda o: [lr_scheduler.StepLR(o, step_size=2, gamma=0.5)],
    "MultiStepLR": lambda o: [lr_scheduler.MultiStepLR(o, milestones=[1, 3], gamma=0.3)],
    "ExponentialLR": lambda o: [lr_scheduler.ExponentialLR(o, gamma=0.8)],
    "CosineAnnealingLR": lambda o: [lr_scheduler.CosineAnnealingLR(o, T_max=4)],
    "LinearLR": lambda o: [lr_scheduler.LinearLR(o, total_iters=3)],
    "ConstantLR": lambda o: [lr_scheduler.ConstantLR(o, total_iters=2)],
    "PolynomialLR": lambda o: [lr_scheduler.PolynomialLR(o, total_iters=4)],
    "LambdaLR": lambda o: [lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e))],
    "CyclicLR": lambda o: [
        lr_scheduler.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=2, cycle_momentum=False)
    ],
    "CosineAnnealingWarmRestarts": lambda o: [lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2)],
    "two at once": lambda o: [
        lr_scheduler.ExponentialLR(o, gamma=0.9),
        lr_scheduler.StepLR(o, step_size=2),
    ],
    "ChainedScheduler": lambda o: [
        lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, gamma=0.9)]
        )
    ],
    "SequentialLR": lambda o: [
        lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, gamma=0.5)],
            milestones=[2],
        )
    ],
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_learning_rate_schedulers(kind, name, tensor_lr):
    if tensor_lr and name == "CyclicLR":
        base = [torch.tensor(0.05), torch.tensor(0.05)]
    else:
        base = [torch.tensor(0.05), torch.tensor(0.2)] if tensor_lr else [0.05, 0.2]

    def build(optimizer, **arguments):
        a, b = make(30, (4, 5))
        rates = [x.clone() if tensor_lr else x for x in base]
        groups = [{"params": [a], "lr": rates[0]}, {"params": [b], "lr": rates[1]}]
        return optimizer(groups, **arguments)

    sampler = build(kind, seed=9)
    descent = build(torch.optim.SGD)  # only gives the rates
    with warnings.catch_warnings():
        # torch's own: SequentialLR calls with an epoch
        warnings.filterwarnings("ignore", message="The epoch parameter", category=UserWarning)
        ours, theirs = SCHEDULERS[name](sampler), SCHEDULERS[name](descent)
        rates = []
        for _ in range(5):
            rates.append(float(descent.param_groups[0]["lr"]))
            for ours_, theirs_ in zip(sampler.param_groups, descent.param_groups, strict=True):
                assert float(ours_["lr"]) == float(theirs_["lr"])
            check_step(sampler)
            descent.step()
            for scheduler in ours + theirs:
                scheduler.step()
    assert len(set(rates)) > 1, "the schedule did not change anything"


def test_reduce_on_plateau_and_schedules_in_reverse_order(kind):
    (param,) = make(3)
    sampler = kind([param], lr=1.0, seed=0)
    plateau = lr_scheduler.ReduceLROnPlateau(sampler, factor=0.1, patience=0)
    for _ in range(3):
        sampler.step()
        plateau.step(1.0)
    assert sampler.param_groups[0]["lr"] == pytest.approx(0.01)
    # torch can still tell that a scheduler was stepped before the sampler
    fresh = kind([param], seed=0)
    scheduler = lr_scheduler.ExponentialLR(fresh, gamma=0.9)
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)"):
        scheduler.step()
