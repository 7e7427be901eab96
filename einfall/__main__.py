"""The command line: ``einfall run | show | explain | save FILE``."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from . import EinfallError, __version__, cascade
from .backends import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="einfall", description="Compile attention.")
    parser.add_argument("--version", action="version", version=f"einfall {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help in (
        ("run", "compile, run on what this machine has, check against the interpreter, explain"),
        ("show", "print the cascade, a pass's effect, or the generated kernels"),
        ("explain", "say what the kernels walk, keep, skip and spend"),
        ("save", "write kernels, launcher and self-test to one file"),
    ):
        sub = commands.add_parser(name, help=help)
        sub.add_argument("file", type=Path, help="a cascade: a .einsum file")
        sub.add_argument("--size", action="append", default=[], metavar="RANK=N")
        sub.add_argument("--set", action="append", default=[], metavar="PARAMETER=VALUE")
        sub.add_argument("--dtype", default="float16")
        sub.add_argument("--target", default=None, help="sm_80, sm_90, sm_100 or gfx942")
        if name == "run":
            sub.add_argument(
                "--kernel",
                action="store_true",
                help="without a GPU, run the kernels in Triton's interpreter too",
            )
        if name == "show":
            sub.add_argument("--after", metavar="PASS", help="what a pass changed, as a diff")
            sub.add_argument("--kernels", action="store_true", help="the generated kernels")
        if name == "save":
            sub.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        return dispatch(options)
    except EinfallError as error:
        print("".join(shown(error)), file=sys.stderr, end="")
        return 1


def shown(error: EinfallError) -> list[str]:
    """An error as Python shows it, without the way there."""
    import traceback

    return traceback.format_exception_only(type(error), error)


def dispatch(options: argparse.Namespace) -> int:
    """Carry out one command."""
    c = cascade(options.file)
    settings = command.Settings(
        command.pairs(options.size), command.pairs(options.set), options.dtype, options.target
    )
    match options.command:
        case "run":
            return command.run(c, settings, kernel=options.kernel)
        case "explain":
            print(command.lowered(c, settings).explain())
        case "save":
            print(command.lowered(c, settings).save(options.output))
        case "show" if options.after:
            for step in command.lowered(c, settings).steps:
                if step.name == options.after:
                    before, after = (str(x).splitlines() for x in (step.before, step.after))
                    lines = difflib.unified_diff(before, after, "before", "after", lineterm="")
                    print("\n".join(lines) or f"{step.name} changes nothing")
        case "show" if options.kernels:
            print(command.lowered(c, settings).source, end="")
        case _:
            print(c)
    return 0


if __name__ == "__main__":
    sys.exit(main())
