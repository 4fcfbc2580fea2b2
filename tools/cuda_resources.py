"""Keep the table of what the CUDA kernels take: registers, stack, spills, shared memory.

Without arguments, compiles the kernels for some architectures (minutes) and writes the compiler's
report to bench/results/cuda-resources.md. With --check, says whether that table is of the present
source, comments aside, and fails if it is not or if a kernel spills; a table is compared only where
the same version of nvcc is at hand, which could write a new one.

Usage: cuda_resources.py [--check]
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "bench/results/cuda-resources.md"
ARCHITECTURES = ("75", "80", "90", "120")
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-ftz=false", "-prec-sqrt=true", "-prec-div=true"]
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for 'sm_\d+'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spills>\d+) bytes spill stores.*?"
    r"Used (?P<registers>\d+) registers.*?(?:(?P<shared>\d+) bytes smem|$)",
    re.DOTALL,
)
INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)
HEAD = """\
# What the CUDA kernels take

By `tools/cuda_resources.py` with nvcc {version}, of the source {digest}. A CTA has 256 threads;
registers of a thread for each architecture, shared memory of a CTA in bytes (in the sketch's kernel
without its tables). Step kernels are of (weights, rule, sums).

Stack: {stack} bytes. Spills: {spills} bytes.
"""


def output(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


def digest() -> str:
    """Of all that nvcc reads of ours, without comments and the way lines are broken."""
    files: set[Path] = set()
    waiting = list((ROOT / "csrc/cuda").glob("*.cu"))
    while waiting:
        file = waiting.pop().resolve()
        if file not in files:
            files.add(file)
            waiting += [file.parent / name for name in INCLUDE.findall(file.read_text())]
    found = hashlib.sha256(" ".join(FLAGS).encode())
    for file in sorted(files):
        text = re.sub(r"//[^\n]*", "", file.read_text())
        found.update(re.sub(r"\s+", "", text).encode())
    return found.hexdigest()[:12]


def version(nvcc: str) -> str:
    found = re.search(r"release (\S+),", output(nvcc, "--version"))
    return found[1] if found else "?"


def short(mangled: str) -> str:
    name = output("c++filt", mangled).strip()
    name = re.sub(r"fastllc::|cuda::|scalar::|\(anonymous namespace\)::|^void |\(.*\)$", "", name)
    name = re.sub(r"Full<(\w+)>", r"\1", name.replace("(anonymous namespace)::", ""))
    return re.sub(r"<(float|double)(, )?", r"<", name).replace("<>", "").replace(" >", ">")


def compile_all(nvcc: str) -> dict[str, dict[str, dict[str, int]]]:
    """Return what each kernel takes by (kernel, architecture)."""
    kernels: dict[str, dict[str, dict[str, int]]] = {}
    for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
        for architecture in ARCHITECTURES:
            report = output(
                nvcc, *FLAGS, "-Xptxas=-v", f"-arch=sm_{architecture}", "-cubin", "-o",
                "/dev/null", source,
            )  # fmt: skip
            for part in report.split("ptxas info    : Compiling")[1:]:
                if not (found := KERNEL.match("Compiling" + part.split("Compile time")[0])):
                    sys.exit(f"cuda_resources: cannot read {part}")
                numbers = {k: int(v or 0) for k, v in found.groupdict().items() if k != "name"}
                kernels.setdefault(short(found["name"]), {})[architecture] = numbers
    return kernels


def write(nvcc: str) -> None:
    kernels = compile_all(nvcc)
    taken = [numbers for by in kernels.values() for numbers in by.values()]
    for name, by in kernels.items():
        for architecture, n in by.items():
            if n["stack"] or n["spills"]:
                print(f"cuda_resources: {name} for sm_{architecture}: {n}", file=sys.stderr)
    lines = [
        HEAD.format(
            version=version(nvcc),
            digest=digest(),
            stack=max(n["stack"] for n in taken),
            spills=max(n["spills"] for n in taken),
        ),
        "| kernel | " + " | ".join(f"sm_{a}" for a in ARCHITECTURES) + " | shared |",
        "|---|" + "--:|" * (len(ARCHITECTURES) + 1),
    ]
    for name, by in sorted(kernels.items()):
        shared = max(n["shared"] for n in by.values())
        registers = " | ".join(str(by[a]["registers"]) for a in ARCHITECTURES)
        lines.append(f"| `{name}` | {registers} | {shared} |")
    TABLE.write_text("\n".join(lines) + "\n")


def check(nvcc: str | None) -> str:
    """Return what is wrong, or nothing."""
    text = TABLE.read_text()
    if not re.search(r"Stack: 0 bytes. Spills: 0 bytes.", text):
        return f"{TABLE.name}: a kernel has a stack frame or spills registers"
    if nvcc is None or f"nvcc {version(nvcc)}," not in text:
        print("cuda_resources: the table is not compared, for want of the nvcc that it is by")
        return ""
    if f"source {digest()}." not in text:
        return f"{TABLE.name} is of another source: run tools/cuda_resources.py"
    print("cuda_resources: the table is of this source, and no kernel spills")
    return ""


def main(arguments: list[str]) -> None:
    nvcc = shutil.which("nvcc")
    if arguments == ["--check"]:
        if wrong := check(nvcc):
            sys.exit(f"cuda_resources: {wrong}")
        return
    if arguments or nvcc is None:
        sys.exit(__doc__ if arguments else "cuda_resources: no nvcc on the PATH")
    write(nvcc)


if __name__ == "__main__":
    main(sys.argv[1:])
