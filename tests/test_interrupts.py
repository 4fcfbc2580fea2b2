"""Ctrl-C: heard between steps, so that nothing is left half done; the trace is what there was."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from engine import losses, run
from fastllc import LLCEstimator
from zoo import Case, N, normal, tokens

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = pytest.mark.parametrize("engine", ["vectorised", "inplace"])
MODEL, DATA = nn.Linear(3, 2), (normal(N, 3), tokens(N, high=2))
INTERRUPTED = "the run was interrupted: the trace holds what there was"


class Signalling:
    """A loss in which somebody presses Ctrl-C, once or more often, in one of its calls."""

    def __init__(self, times=1, error=None, at=30):
        self.times, self.error, self.at, self.calls, self.passed = times, error, at, 0, False

    def __call__(self, outputs, targets):
        self.calls += 1
        if self.calls == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.passed = True
            if self.error is not None:
                raise self.error
        return cross_entropy(outputs, targets)


def finite(trace):
    return np.isfinite(losses(trace))


@ENGINES
@pytest.mark.parametrize("times", [1, 2])
def test_the_step_ends_unless_the_signal_comes_twice(engine, times):
    loss = Signalling(times)
    with pytest.warns(UserWarning, match=INTERRUPTED):
        trace = run(Case(MODEL, DATA, loss), engine=engine, num_draws=60)
    whole = run(Case(MODEL, DATA, cross_entropy), engine=engine, num_draws=60)
    assert loss.passed == (times == 1)
    done = finite(trace)
    assert 0 < done.sum() < done.size
    np.testing.assert_array_equal(losses(trace)[done], losses(whole)[done])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_in_the_last_step_loses_nothing():
    calls = Signalling(0)
    whole = run(Case(MODEL, DATA, calls), engine="vectorised")
    last = Signalling()
    last.calls = 30 - calls.calls  # its 30th call is the last one
    with pytest.warns(UserWarning, match=INTERRUPTED):
        trace = run(Case(MODEL, DATA, last), engine="vectorised")
    np.testing.assert_array_equal(losses(trace), losses(whole))


def test_a_handler_of_one_s_own_is_left_alone():
    heard, before = [], signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        trace = run(Case(MODEL, DATA, Signalling()), engine="vectorised", num_draws=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]
    assert trace.attrs["interrupted"] == 0
    assert finite(trace).all()


def test_an_error_after_a_signal_is_its_consequence():
    """The workers of a DataLoader get the signal too, and then the next minibatch is an error."""
    loss = Signalling(error=RuntimeError("DataLoader worker exited unexpectedly"))
    with pytest.warns(UserWarning, match=INTERRUPTED):
        trace = run(Case(MODEL, DATA, loss), engine="vectorised", num_draws=60)
    assert 0 < finite(trace).sum() < finite(trace).size
    with pytest.raises(RuntimeError, match="worker exited"):
        run(Case(MODEL, DATA, Signalling(0, loss.error)), engine="vectorised", num_draws=60)


@pytest.mark.parametrize("at", [1, 2, 3], ids=["checked", "tried", "compared"])
def test_what_is_tried_first_comes_to_an_end(at):
    """Torch imports most of itself at the first gradient: interrupted then, it cannot again."""
    loss = Signalling(at=at)
    with pytest.raises(KeyboardInterrupt):
        run(Case(MODEL, DATA, loss), engine="vectorised")
    assert loss.passed
    assert loss.calls == (1 if at == 1 else 3)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore:the run was interrupted")
@pytest.mark.parametrize("at", [1, 200], ids=["curvature", "pilot"])
def test_half_a_pilot_run_chooses_nothing(at):
    """Its settings would all be told to have diverged."""
    loss = Signalling(at=at)
    estimator = LLCEstimator(settings="auto", nbeta=[10.0, 20.0], seed=0, progress=False)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(MODEL, DATA, loss)
    assert loss.passed
    assert loss.calls < 400


SCRIPT = """
import json, sys, torch, warnings
from torch import nn
from torch.nn.functional import mse_loss
from fastllc import sample, summarize

torch.manual_seed(0)
model = nn.Linear(3, 2)
before = model.weight.tolist()
x, y = torch.randn(24, 3), torch.randn(24, 2)
calls = 0

def loss(outputs, targets):
    global calls
    calls += 1
    if calls == 200:
        print("walking", flush=True)
    return mse_loss(outputs, targets)

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    trace = sample(model, (x, y), loss, lr=1e-4, num_chains=2, num_draws=10**5, seed=0,
                   engine=sys.argv[1], progress=False)
losses = trace["steps/loss"].values
print(json.dumps({
    "interrupted": trace.attrs["interrupted"],
    "steps": int((losses == losses).sum()),
    "same": model.weight.tolist() == before,
    "summary": str(summarize(trace)),
    "warned": [str(w.message) for w in caught],
}))
"""


@ENGINES
def test_a_signal_ends_with_what_there_is(engine):
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, engine],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "walking\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0, err
    found = json.loads(out)
    assert found["interrupted"] == 1
    assert 100 <= found["steps"] < 2 * 10**5
    assert found["same"]
    assert "LLC" in found["summary"] or "llc" in found["summary"]
    assert any("interrupted" in text for text in found["warned"])
