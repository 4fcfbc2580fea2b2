"""``python -m bench.gpu.check``: build, test, measure and sanitize on a GPU, and report.

Builds with what is installed: PyTorch, CMake, ninja, pybind11, scikit-build-core and a CUDA
compiler; what fastllc and its tests import besides is named where it is missing. Nothing is
downloaded. Everything lies in build/gpu, the report in bench/results.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
HERE, RESULTS = ROOT / "build" / "gpu", ROOT / "bench" / "results"
NEEDED = ("torch", "numpy", "xarray", "tqdm", "typing_extensions", "pytest", "pybind11")
SECONDS = 460  # of all together, under eight minutes
COUNTS = ("tests", "failures", "errors", "skipped")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")


def main() -> int:
    """Run everything; return 0 if all was built, no test failed and no tool found fault."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"gpu-check needs {', '.join(missing)} in {sys.executable}", file=sys.stderr)
        return 1
    import torch

    if not torch.cuda.is_available():
        print("gpu-check needs an NVIDIA GPU: torch finds no CUDA device here", file=sys.stderr)
        return 1
    name = torch.cuda.get_device_name(0)
    check = _Check(name, "".join(map(str, torch.cuda.get_device_capability(0))))
    built = check.build()
    if built:
        check.test()
        check.measure()
        check.sanitize()
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = RESULTS / f"gpu-{label}-{date}.json"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(check.report, indent=1) + "\n")
    path.with_suffix(".txt").write_text(check.table())
    print(check.table())
    print(f"written to {path.relative_to(ROOT)}")
    return 0 if check.passed else 1


class _Check:
    """The steps of a check, and what they found."""

    def __init__(self, device: str, architecture: str) -> None:
        self._started = time.monotonic()
        self._architecture = architecture
        self._site = HERE / "site"
        self.passed = True
        self.report: dict[str, Any] = {"device": device, "stages": {}}

    def build(self) -> bool:
        """Build and install into a folder of its own."""
        shutil.rmtree(self._site, ignore_errors=True)
        settings = {
            "build-dir": str(HERE / "cmake"),
            "cmake.define.FASTLLC_CUDA": "ON",
            "cmake.define.CMAKE_CUDA_ARCHITECTURES": self._architecture,
        }
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
        command += ["--no-index", "--verbose", "--target", str(self._site)]
        command += [f"--config-settings={name}={value}" for name, value in settings.items()]
        done = self._run("build", [*command, str(ROOT)], 300)
        if done is not None:
            facts = "import json; from fastllc.info import build_info as b; "
            facts += "from fastllc.kernels import cuda; print(json.dumps({**b(), **cuda.facts()}))"
            told = self._run("facts", [sys.executable, "-c", facts], 60)
            self.report["build_info"] = json.loads(told.splitlines()[-1]) if told else {}
            return told is not None
        return False

    def test(self) -> None:
        """Run the tests that need a GPU; count them."""
        counts = HERE / "tests.xml"
        counts.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "--confcutdir=tests/gpu", "-p"]
        command += ["no:cacheprovider", "-W", "default::DeprecationWarning", "-W"]
        command += ["default::FutureWarning", f"--junitxml={counts}", "tests/gpu"]
        self._run("tests", command, 200)
        found: dict[str, int] = {}
        if counts.exists():
            suite = next(ElementTree.parse(counts).iter("testsuite"))
            found = {name: int(suite.get(name, 0)) for name in COUNTS}
            reasons = [s.get("message", "") for s in suite.iter("skipped")]
            self.report["skips"] = sorted(set(reasons))
        self.report["stages"]["tests"] |= found
        if not found or found["tests"] == found["skipped"]:
            self._fail("tests", "no test ran")

    def measure(self) -> None:
        """Run the benchmark; missed targets are results."""
        # The whole estimate is held against another devinterp than the steps.
        folder = str(ROOT / "build" / "peers")
        for stage, peers, parts in (
            ("steps", "", ["one", "many", "low", "tiny", "rivals"]),
            ("estimate", folder, ["estimate"]),
        ):
            numbers = HERE / f"{stage}.json"
            numbers.unlink(missing_ok=True)
            command = [sys.executable, "-m", "bench.gpu", "--json", str(numbers), "--only", *parts]
            self._run(stage, command, 120, peers)
            if numbers.exists():
                self.report.setdefault("rows", []).extend(json.loads(numbers.read_text())["rows"])

    def sanitize(self) -> None:
        """Let compute-sanitizer watch small steps of every kind."""
        tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        if not Path(tool).exists():
            for kind in TOOLS:
                self._fail(kind, "compute-sanitizer is not installed")
            return
        # With torch's cache an overrun would land in memory that is the process's own.
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        for kind in TOOLS:
            command = [tool, "--tool", kind, "--error-exitcode", "9", "--kernel-regex"]
            command += ["kns=fastllc", sys.executable, "-m", "bench.gpu.sanitize"]
            self._run(kind, command, 90, "", **environment)

    def _run(
        self,
        stage: str,
        command: list[str],
        limit: float,
        peers: str = "",
        **environment: str,
    ) -> str | None:
        """Run a command, with what `peers` holds; return what it printed, None if it failed."""
        left = SECONDS - (time.monotonic() - self._started)
        if left < 5:
            self._fail(stage, "no time was left")
            return None
        print(f"{stage} ...", flush=True)
        started = time.monotonic()
        paths = [str(self._site), str(ROOT), str(ROOT / "tests")]
        paths += [peers, os.environ.get("PYTHONPATH", "")]
        settings = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PIP_CONSTRAINT": "",
            **environment,
        }
        log = HERE / f"{stage}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as target:
            # In a session of its own, to end the compilers and tests that it has started too.
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=settings,
                stdout=target,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(min(limit, left))
                state = "passed" if code == 0 else f"exit status {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                state = "took too long"
        text = log.read_text(errors="replace")
        self.report["stages"][stage] = {
            "state": state,
            "seconds": round(time.monotonic() - started, 1),
        }
        if state == "passed":
            return text
        self._fail(stage, state)
        self.report["stages"][stage]["log"] = text[-4000:]
        print(text[-4000:], file=sys.stderr)
        return None

    def _fail(self, stage: str, why: str) -> None:
        self.passed = False
        self.report["stages"].setdefault(stage, {})["state"] = why

    def table(self) -> str:
        """Return the report in few lines."""
        lines = [f"fastllc on {self.report['device']}", ""]
        for name, stage in self.report["stages"].items():
            counts = [f"{stage[count]} {count}" for count in COUNTS if count in stage]
            seconds = f"{stage['seconds']:.0f} s" if "seconds" in stage else ""
            lines.append(f"  {name:<12}{stage['state']:<24}{seconds:<8}{', '.join(counts)}")
        lines += [f"  skipped: {reason}" for reason in self.report.get("skips", [])]
        part = ""
        for row in self.report.get("rows", []):
            if row["part"] != part:
                part = row["part"]
                lines += ["", part]
            value = "" if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
            took = row["median_seconds"]
            time_ = "" if took is None else f"{took * 1e6:,.1f} us"
            mark = {True: "reached", False: "MISSED", None: ""}[row["passed"]]
            lines.append(
                f"  {row['name']:<32}{time_:>16}  {value:<32}{row['target']:<9}{mark} {row['note']}"
            )
        return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
