"""Check that wide vector code stays inside the files compiled for it.

One module holds the same kernel three times, and only a dispatcher may enter the wide ones. Two
accidents break that on an older processor: a wide flag that reaches another file, and an inline
or template function of a wide file that the linker keeps as *the* copy for all (COMDAT).

The linked module no longer tells which file a function came from, so the build's objects are
read: every object not named below must hold neither VEX nor EVEX instructions; ``avx2.cpp.o`` has
256-bit vectors and no EVEX; ``avx512.cpp.o`` has 512-bit vectors; and neither defines a weak
symbol. The encodings are told by their first byte, which leaves no list of mnemonics to maintain.
What the host runs of CUDA sources is held to the same.
The installed modules may need only the C and C++ runtime: no libtorch, no OpenMP, no libcudart.

Usage: check_isa.py BUILD_DIR
"""

from __future__ import annotations

import importlib.util
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RUNTIME = re.compile(r"(libstdc\+\+|libc\+\+|libm|libc|libgcc_s|libpthread|ld-[\w-]*)\.so\.\d+")
# Segment and address-size overrides, the only prefixes allowed before VEX and EVEX.
PREFIXES = {"26", "2e", "36", "3e", "64", "65", "67"}
ENCODINGS = {"c4": "VEX", "c5": "VEX", "62": "EVEX"}


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def instructions(obj: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (function, encoding, text); the encoding is empty for a plain instruction."""
    function = "?"
    for line in output("objdump", "-d", "-C", obj).splitlines():
        if header := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            function = header[1]
        # address, bytes, text; the second line of a long instruction has no text
        elif len(fields := line.split("\t")) == 3:
            first = next((b for b in fields[1].split() if b not in PREFIXES), "")
            yield function, ENCODINGS.get(first, ""), fields[2]


def weak_definitions(obj: Path) -> list[str]:
    symbols = (line.rsplit(" ", 2) for line in output("nm", "--defined-only", obj).splitlines())
    # DW.ref.*: the compiler's pointer to the exception personality, data and not code
    return [s[-1] for s in symbols if s[-2] in "WVu" and not s[-1].startswith("DW.ref.")]


def check_object(obj: Path) -> Iterator[str]:
    allowed, register = {
        "avx2.cpp.o": ({"VEX"}, "%ymm"),
        "avx512.cpp.o": ({"VEX", "EVEX"}, "%zmm"),
    }.get(obj.name, (set(), ""))
    code = list(instructions(obj))
    if not code:
        yield f"{obj.name}: no instructions found"
    leaks = {f: f"{e} in {f}: {text}" for f, e, text in code if e and e not in allowed}
    yield from (f"{obj.name}: {leak}" for leak in leaks.values())
    if register:
        if not any(register in text for _, _, text in code):
            yield f"{obj.name}: no {register} registers: is it vectorised?"
        yield from (f"{obj.name}: weak symbol {name}" for name in weak_definitions(obj))


def check_needed(module: Path) -> Iterator[str]:
    for name in re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-dW", module)):
        if not RUNTIME.fullmatch(name):
            yield f"{module.name}: needs {name}"


def main(build: Path) -> int:
    package = importlib.util.find_spec("fastllc")
    if package is None or package.origin is None:
        sys.exit("fastllc is not installed")
    installed = Path(package.origin).parent
    modules = [
        m for name in ("_core", "_cuda", "_emulated") for m in installed.glob(f"{name}.*.so")
    ]
    objects = sorted([*build.rglob("*.cpp.o"), *build.rglob("*.cu.o")])
    problems = [p for m in modules for p in check_needed(m)]
    names = [m.name.split(".")[0] for m in modules]
    if names.count("_core") != 1 or len(names) != len(set(names)):
        problems.append(f"expected one _core module and no other twice, found {modules}")
    if platform.machine() in ("x86_64", "AMD64"):
        problems += [p for o in objects for p in check_object(o)]
        sources = ("core", "dispatch", "pool", "baseline", "avx2", "avx512")
        if missing := {f"{s}.cpp.o" for s in sources} - {o.name for o in objects}:
            problems.append(f"not found under {build}: {', '.join(sorted(missing))}")
    for problem in problems:
        print(f"check_isa: {problem}", file=sys.stderr)
    if not problems:
        print(f"check_isa: {len(objects)} objects and {', '.join(names)} are clean")
    return bool(problems)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
