"""The main job, in small, and the pure-PyTorch sampler it compares with."""

import math

import pytest
import torch

from fastllc import demo
from fastllc.peers import TorchSGLD

SMALL = {"num_chains": 4, "num_burnin_steps": 300, "num_draws": 400}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    data = demo.load_digits()
    return demo.train(data, hidden=32, epochs=400), data


def test_training_ends_at_a_minimum(digits):
    model, (inputs, labels) = digits
    loss = torch.nn.functional.cross_entropy(model(inputs), labels)
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert loss < 0.05
    assert all(grad.norm() < 0.02 for grad in grads)
    assert all(p.grad is None for p in model.parameters())


def test_training_is_reproducible_and_leaves_the_random_state(digits):
    model, data = digits
    before = torch.get_rng_state()
    again = demo.train(data, hidden=32, epochs=400)
    assert torch.equal(torch.get_rng_state(), before)
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_both_samplers_agree(digits):
    model, data = digits
    settings = demo.SETTINGS | SMALL | {"nbeta": 240.0, "progress": False}
    fused, eager = (demo.run(model, data, s, settings) for s in (demo.SGLD, TorchSGLD))
    error = math.hypot(fused.summary.sem, eager.summary.sem)
    assert fused.summary.llc > 5 * fused.summary.sem
    assert abs(fused.summary.llc - eager.summary.llc) < 4 * error
    assert error < 0.2 * fused.summary.llc


def test_main_reports_and_writes_the_plot(monkeypatch, tmp_path, capsys, digits):
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS | SMALL | {"num_draws": 30})
    monkeypatch.setattr(demo, "train", lambda data: digits[0])
    output = tmp_path / "trace.png"
    demo.main(output, progress=False)
    assert output.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for words in ("1797 images", "LLC", "R-hat", "ESS", "steps / s", "step alone", "combined"):
        assert words in printed
    table = [line for line in printed.splitlines() if line.startswith(("R-hat", "ESS", "step"))]
    assert len(table) == 4


def test_peer_is_the_same_update_without_noise():
    torch.manual_seed(0)
    w0 = [torch.randn(5, 3), torch.randn(())]
    for decay, pull, box in [
        (0.0, 0.0, None),
        (0.0, 7.0, None),
        (3.0, 7.0, None),
        (3.0, 7.0, 0.01),
    ]:
        params = [w.clone().requires_grad_() for w in w0]
        sampler = TorchSGLD(
            params,
            lr=0.01,
            noise_level=0.0,
            weight_decay=decay,
            localization=pull,
            nbeta=2.0,
            bounding_box_size=box,
        )
        expected = [w.double() for w in w0]
        for _ in range(3):
            for i, p in enumerate(params):
                p.grad = torch.randn_like(p)
                w, anchor = expected[i], w0[i].double()
                w = w - 0.005 * (2 * p.grad.double() + pull * (w - anchor) + decay * w)
                expected[i] = w if box is None else w.clamp(anchor - box, anchor + box)
            sampler.step()
        for p, w in zip(params, expected, strict=True):
            torch.testing.assert_close(p.detach().double(), w, rtol=1e-5, atol=1e-6)


def test_peer_noise_has_the_right_size_and_follows_the_seed():
    def moved(seed):
        params = [torch.zeros(100_000, requires_grad=True), torch.zeros(3, requires_grad=True)]
        for p in params:
            p.grad = torch.zeros_like(p)
        TorchSGLD(params, lr=0.25, noise_level=3.0, seed=seed).step()
        return params[0].detach()

    assert moved(1).std().item() == pytest.approx(1.5, rel=0.01)
    assert torch.equal(moved(1), moved(1))
    assert not torch.equal(moved(1), moved(2))


def test_peer_takes_a_closure():
    w = torch.ones(2, requires_grad=True)

    def closure():
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert TorchSGLD([w], lr=0.1, noise_level=0.0).step(closure) == 2.0
    assert w.tolist() == pytest.approx([0.9, 0.9])
