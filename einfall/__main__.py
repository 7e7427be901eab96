"""The command line: ``einfall run | show | explain | bench | save FILE``."""

from __future__ import annotations

import argparse
import difflib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from . import BackendError, Cascade, EinfallError, __version__, analyse, cascade
from .backends import command
from .backends.bench import peer_of

COMMANDS = {
    "run": "compile, run on what this machine has, check against the interpreter, explain",
    "show": "print the cascade in full, what a pass changes, or the generated kernels",
    "explain": "say what the kernels walk, keep, skip and spend",
    "bench": "measure on the GPU beside others that compute the same, and the roofline",
    "save": "write kernels, launcher and self-test to one file that needs only torch and triton",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        return dispatch(options)
    except EinfallError as error:
        sys.stdout.flush()
        # As Python shows it, with the characters underlined, but without the way there.
        for line in traceback.format_exception_only(type(error), error):
            print(line.removeprefix(f"{type(error).__module__}."), file=sys.stderr, end="")
        return 1
    except BrokenPipeError:
        # The reader has seen enough, as `head` does.
        sys.stderr.close()
        return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="einfall",
        description="Compile attention: cascades of extended einsums in, Triton kernels out.",
        epilog="try: einfall run examples/causal.einsum --size m=4096",
    )
    top.add_argument("--version", action="version", version=f"einfall {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    for name, words in COMMANDS.items():
        sub = commands.add_parser(name, help=words, description=words)
        sub.add_argument(
            "file", metavar="FILE", type=Path, help="a .einsum file, or the name of an example"
        )
        sub.add_argument(
            "--size", action="append", default=[], metavar="RANK=N", help="the size of a rank"
        )
        sub.add_argument(
            "--set", action="append", default=[], metavar="NAME=X", help="the value of a parameter"
        )
        sub.add_argument(
            "--dtype",
            default="float16",
            choices=("float16", "bfloat16", "float32"),
            help="of the real inputs (float16)",
        )
        sub.add_argument("--target", help="sm_80, sm_90, sm_100 or gfx942; by default the GPU here")
        sub.add_argument(
            "--emitter",
            default="auto",
            choices=("auto", "tl", "gluon"),
            help="plain Triton, or Gluon for Hopper; by default what was measured faster",
        )
        sub.add_argument("--machine", help="whose figures give times, e.g. H200")
        if name == "run":
            sub.add_argument(
                "--kernel",
                action="store_true",
                help="without a GPU, run the kernels in Triton's interpreter too",
            )
        if name == "show":
            sub.add_argument("--after", metavar="PASS", help="what a pass changes, as a diff")
            sub.add_argument("--kernels", action="store_true", help="the generated kernels")
        if name == "bench":
            add_bench(sub)
        if name == "save":
            sub.add_argument("output", metavar="OUTPUT", type=Path, help="the file to write")
    return top


def add_bench(sub: argparse.ArgumentParser) -> None:
    """Give ``bench`` its options."""
    sub.add_argument(
        "--sweep", default="", metavar="RANKS=N,N", help="sizes in turn, e.g. p+m=1024,4096"
    )
    sub.add_argument(
        "--peers", nargs="*", metavar="NAME", help="of those who compute an example, only these"
    )
    sub.add_argument(
        "--peer", action="append", default=[], metavar="FILE.py:FUNCTION",
        help="a function of the same tensors and parameters, to be compared",
    )  # fmt: skip
    sub.add_argument("--rounds", type=int, default=3, help="how often all are timed in turn (3)")
    sub.add_argument("--rep", type=int, default=50, help="milliseconds of each timing (50)")
    sub.add_argument("--json", type=Path, help="write what was measured to this file")
    sub.add_argument("--plot", type=Path, help="draw it, e.g. to times.png (needs matplotlib)")


def bench_options(c: Cascade, options: argparse.Namespace) -> command.Bench:
    """Return what a measurement is told; raises EinfallError for peers that are not there."""
    from .examples.benchmarks.known import clock, makers

    known = dict(makers(c))
    wanted = list(known) if options.peers is None else options.peers
    for name in wanted:
        if name not in known:
            there = ", ".join(known) or "none is known"
            raise EinfallError(f"{name} is no peer of {c.name}; its peers: {there}")
    others = {name: known[name] for name in wanted} | dict(map(peer_of, options.peer))
    return command.Bench(
        others,
        clock(options.rep),
        command.sweep(options.sweep) if options.sweep else ((), ()),
        options.rounds,
        options.json,
        options.plot,
    )


def named(file: Path) -> Cascade:
    """Return the cascade of a file, or the example of that name."""
    from . import examples

    if not file.exists() and str(file) in examples.names():
        found: Cascade = getattr(examples, str(file))
        return found
    if not file.exists() and file.suffix == "" and len(file.parts) == 1:
        alike = difflib.get_close_matches(str(file), examples.names(), cutoff=0.5)
        hint = f"; examples called much alike: {', '.join(alike)}" if alike else ""
        raise EinfallError(f"{file} is neither a file nor the name of an example{hint}")
    return cascade(file)


def dispatch(options: argparse.Namespace) -> int:
    """Carry out one command."""
    c = named(options.file)
    settings = command.Settings(
        command.pairs(options.size),
        command.pairs(options.set),
        options.dtype,
        options.target,
        options.machine,
        options.emitter,
    )
    match options.command:
        case "run":
            return command.run(c, settings, kernel=options.kernel)
        case "bench":
            return command.bench(c, settings, bench_options(c, options))
        case "explain":
            try:
                print(command.explained(c, settings))
            except BackendError:
                # No kernel: what is known without one, and then the reason.
                print(analyse(c), end="\n\n")
                raise
        case "save":
            path = command.lowered(c, settings, general=True).save(options.output)
            print(f"wrote {path}; test it with: python {path}")
        case "show" if options.after:
            print(command.show_after(command.lowered(c, settings), options.after))
        case "show" if options.kernels:
            print(command.lowered(c, settings, general=True).source, end="")
        case _:
            print(c)
    return 0


if __name__ == "__main__":
    sys.exit(main())
