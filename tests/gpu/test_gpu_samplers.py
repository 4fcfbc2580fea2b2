"""Samplers on a GPU: nothing waits, streams, graphs, layouts, lost chains, states that move."""

import warnings

import pytest
import torch

from fastllc import SGHMC, SGLD, SGNHT, DivergenceWarning, localization_penalty
from gpu import DEVICE, NEEDS_GPU, no_waiting, raw, there
from helpers import OWN, SAMPLERS, STATE, draw, lay_out, make

pytestmark = NEEDS_GPU

OPTIONS = {"lr": 1e-2, "nbeta": 3.0, "localization": 0.5, "weight_decay": 0.1, "seed": 5}
SHAPES = [(40, 30), (7,), (), (0,)]
KINDS = pytest.mark.parametrize("kind", SAMPLERS)


def pair(kind, shapes=SHAPES, dtype=torch.float32, **options):
    """The same sampler on the GPU and on the CPU."""
    theirs = make(*shapes, dtype=dtype)
    ours = [there(p) for p in theirs]
    return [
        (params, kind(params, **{**OPTIONS, **OWN[kind], **options})) for params in (ours, theirs)
    ]


def set_grads(params, step):
    """New values in the gradients that are there, or new gradients."""
    for i, param in enumerate(params):
        grad = draw(param.shape, param.dtype, seed=1000 * step + i).to(param.device)
        if param.grad is None:
            param.grad = grad
        else:
            param.grad.copy_(grad)


def walk(params, sampler, steps, start=0):
    for step in range(start, start + steps):
        set_grads(params, step)
        sampler.step()


def everything(params, sampler):
    state = [
        raw(sampler.state[p][name])
        for p in params
        for name in STATE
        if name in sampler.state.get(p, ())
    ]
    return [raw(p) for p in params], state


@KINDS
def test_nothing_waits(kind):
    (params, sampler), (theirs, other) = pair(kind, save_metrics=True, sketch_dim=16)
    walk(params, sampler, 2)
    grads = [[there(draw(p.shape, seed=9 + i)) for p in params] for i in range(2)]
    with no_waiting():
        for step in range(300):
            for param, grad in zip(params, grads[step % 2], strict=True):
                param.grad = grad
            sampler.step()
        sampler.get_metrics()
        sampler.get_sketches()
        sampler.param_groups[0]["lr"] = 2e-2  # which is uploaded
        sampler.step()
    walk(theirs, other, 2)
    for step in range(301):
        for param, grad in zip(theirs, grads[min(step, 299) % 2], strict=True):
            param.grad = grad.cpu()
        if step == 300:
            other.param_groups[0]["lr"] = 2e-2
        other.step()
    assert everything(params, sampler) == everything(theirs, other)
    assert sampler.state_dict()["param_groups"][0]["step"] == 303


def test_noise_from_a_generator_does_not_wait():
    (params, sampler), _ = pair(SGLD)
    walk(params, sampler, 1)
    generator = torch.Generator().manual_seed(3)
    with no_waiting():
        for _ in range(3):
            sampler.step(noise_generator=generator)


def test_the_penalty_does_not_wait():
    params, anchors = [there(draw((50, 3))).requires_grad_()], [there(draw((50, 3), seed=1))]
    with no_waiting():
        (3 * localization_penalty(params, anchors, 0.5)).backward()
    wanted = 1.5 * (params[0].detach() - anchors[0])
    torch.testing.assert_close(params[0].grad, wanted)


@KINDS
def test_steps_run_on_the_current_stream(kind):
    """What is launched on a stream that is held up comes after what holds it up."""
    (params, sampler), (theirs, other) = pair(kind, shapes=[(1 << 20,)])
    walk(params, sampler, 1)
    stream = torch.cuda.Stream()
    set_grads(params, 1)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # about 0.1 s
        sampler.step()
        done = torch.cuda.Event()
        done.record(stream)
    # The default stream has nothing to do with it, and is not waited for either.
    other_stream_is_free = torch.cuda.Event()
    other_stream_is_free.record(torch.cuda.current_stream())
    other_stream_is_free.synchronize()
    assert not done.query()
    torch.cuda.current_stream().wait_stream(stream)
    walk(params, sampler, 1, 2)
    walk(theirs, other, 3)
    assert everything(params, sampler) == everything(theirs, other)


def test_a_step_is_not_on_the_legacy_stream():
    """A stream that does not block with the legacy one sees the step only if it is on it."""
    (params, sampler), (theirs, other) = pair(SGLD)
    walk(params, sampler, 1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for step in range(1, 20):
            set_grads(params, step)
            sampler.step()
    stream.synchronize()
    walk(theirs, other, 20)
    assert everything(params, sampler) == everything(theirs, other)


def capture(sampler, params):
    graph = torch.cuda.CUDAGraph()
    torch.cuda.current_stream().synchronize()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
        with torch.cuda.graph(graph):
            sampler.step()
    return graph


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replays_take_steps_with_new_noise(kind, dtype):
    (params, sampler), (theirs, other) = pair(kind, dtype=dtype, save_metrics=True)
    walk(params, sampler, 2)
    before = everything(params, sampler)
    graph = capture(sampler, params)
    assert everything(params, sampler) == before
    walk(theirs, other, 2)
    for step in range(2, 12):
        set_grads(params, step)
        graph.replay()
        set_grads(theirs, step)
        other.step()
    assert everything(params, sampler) == everything(theirs, other)
    torch.testing.assert_close(
        torch.stack(sampler.get_metrics()).cpu(), torch.stack(other.get_metrics()), rtol=1e-13,
        atol=0,
    )  # fmt: skip
    assert sampler.state_dict()["param_groups"][0]["step"] == 12
    graph.replay()
    assert sampler.state_dict()["param_groups"][0]["step"] == 13
    other.step()
    walk(params, sampler, 2, 20)
    walk(theirs, other, 2, 20)
    assert everything(params, sampler) == everything(theirs, other)


def test_a_whole_training_step_in_a_graph():
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 3))
    model.to(DEVICE)
    x, y = there(draw((50, 20))), torch.randint(3, (50,), device=DEVICE)
    sampler = SGLD(model.parameters(), **OPTIONS)

    def train():
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        sampler.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            sampler.zero_grad(set_to_none=True)
            train()
    torch.cuda.current_stream().wait_stream(side)
    sampler.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train()
    seen = set()
    with no_waiting():
        for _ in range(5):
            graph.replay()
    for _ in range(5):
        graph.replay()
        seen.add(loss.item())
    assert len(seen) == 5
    assert sampler.state_dict()["param_groups"][0]["step"] == 13


@pytest.mark.parametrize("change", [{"lr": 0.5}, {"sketch_dim": 8}, {"seed": 7}, None])
def test_what_a_graph_cannot_hold_is_refused(change):
    (params, sampler), _ = pair(SGLD)
    set_grads(params, 0)
    if change is not None:
        sampler.step()
        sampler.param_groups[0].update(change)
    before = [raw(p) for p in params]
    with pytest.raises(RuntimeError, match="take a step with the same arguments before"):
        capture(sampler, params)
    torch.cuda.synchronize()
    assert [raw(p) for p in params] == before
    sampler.step()  # all is well


@pytest.mark.parametrize("layout", ["transposed", "sliced", "offset", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_layouts(layout, dtype):
    values = draw((3, 4, 5, 6), dtype)
    view, base = lay_out(values, layout)
    theirs = [view.requires_grad_()]
    there_base = base.clone().to(DEVICE)
    ours = [there_base.as_strided(view.shape, view.stride(), view.storage_offset())]
    ours[0] = ours[0].detach().requires_grad_()
    made = [(params, SGHMC(params, **OPTIONS)) for params in (ours, theirs)]
    for params, sampler in made:
        walk(params, sampler, 3)
    assert everything(*made[0]) == everything(*made[1])
    assert raw(there_base) == raw(base)  # around the tensor too


def test_more_tensors_than_a_launch_holds():
    shapes = [((i % 13) * 7 + 1,) for i in range(1500)] + [(100_000,)] + [(3,)] * 500
    (params, sampler), (theirs, other) = pair(SGNHT, shapes=shapes, save_metrics=True)
    walk(params, sampler, 2)
    walk(theirs, other, 2)
    assert everything(params, sampler) == everything(theirs, other)
    last = sampler._last.outcome
    assert (last.moments.cpu().numpy() == other._last.outcome.moments).all()
    assert sampler.thermostat == other.thermostat


@pytest.mark.parametrize("kind", [SGLD, SGNHT])
def test_states_move_between_devices(kind):
    (params, sampler), (theirs, other) = pair(kind, dtype=torch.bfloat16)
    walk(params, sampler, 3)
    walk(theirs, other, 3)
    again = kind([p.detach().cpu().requires_grad_() for p in params], **OPTIONS)
    again.load_state_dict(sampler.state_dict())
    back = kind([there(p) for p in theirs], **OPTIONS)
    back.load_state_dict(other.state_dict())
    made = [(s.param_groups[0]["params"], s) for s in (again, back)]
    for ours, each in made:
        walk(ours, each, 2, 3)
    assert everything(*made[0]) == everything(*made[1])


def test_a_lost_chain_stops_and_is_told_of():
    (params, sampler), _ = pair(SGLD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(20):
            set_grads(params, step)
            if step == 7:
                params[0].grad.view(-1)[5] = torch.inf
            sampler.step()
            if step == 7:
                lost = everything(params, sampler)
    assert everything(params, sampler) == lost
    with pytest.warns(DivergenceWarning, match=r"step 7 left NaN .* params\[0\] \(1 of 1200\)"):
        assert sampler.nonfinite_step == 7
    walk(params, sampler, 1, 20)
    assert everything(params, sampler) != lost


def test_a_lost_chain_is_told_of_without_waiting():
    (params, sampler), _ = pair(SGLD)
    walk(params, sampler, 1)
    params[0].grad.view(-1)[5] = torch.inf

    def go_on():
        with no_waiting():
            for _ in range(10_000):
                sampler.step()

    with pytest.warns(DivergenceWarning, match="step 1 left NaN"):
        go_on()
