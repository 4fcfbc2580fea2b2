"""``python -m fastllc info | demo | bench``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. None means those of the process.

    Returns
    -------
    int
        Exit status.

    Examples
    --------
    >>> main(["info"])  # doctest: +ELLIPSIS
    version...
    0
    """
    parser = argparse.ArgumentParser(
        prog="fastllc", description="SGLD sampling and the local learning coefficient."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="print version, instruction set, threads, torch and CUDA")
    demo = commands.add_parser("demo", help="estimate the LLC of a small network on digits")
    demo.add_argument("--output", default="trace.png", help="trace plot to write (%(default)s)")
    demo.add_argument("--no-progress", action="store_true", help="hide the progress bars")
    commands.add_parser("bench", help="compare with pure PyTorch on this machine", add_help=False)
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "bench":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.command == "info":
        _info()
    elif arguments.command == "demo":
        from fastllc.demo import main as run_demo

        run_demo(arguments.output, progress=not arguments.no_progress)
    else:
        from fastllc.bench import main as run_bench

        run_bench(rest)
    return 0


def _info() -> None:
    from fastllc.info import build_info
    from fastllc.kernels import cuda

    info = {**build_info(), **cuda.facts()}
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:<{width}}  {value}")
