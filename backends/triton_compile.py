"""One compilation ahead of time, in the process that does it: see ``aot.py`` for who asks for it.

Everything here follows what Triton's launcher would have done with tensors at hand: which arguments
are constants, and which are known to be divisible by 16.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..codegen.kernel import Kernel
from ..ir.errors import BackendError
from .triton import launch_options, load, source_class, triton
from .triton_boxes import box_type
from .triton_disassembly import find_loops, parse_amd, parse_nvidia, tensor_core
from .triton_report import Report
from .triton_targets import Target

TYPES = {
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "bool": "i1",
}
"""Triton's names of the dtypes that kernels read and write."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What Triton's compiler is told of the arguments.

    types : in the order of the arguments; constants : values by position; multiples : positions of
    what is divisible by 16.
    """

    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[int, int], ...]
    multiples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One compilation, as it is handed to the process that does it."""

    kernel: Kernel
    signature: Signature
    target: Target


def signature(
    kernel: Kernel,
    dtypes: Mapping[str, str],
    divisible: bool = True,
    unit_strides: Collection[tuple[str, int]] | None = None,
) -> Signature:
    """Return the signature for which a launch with such tensors would compile ``kernel``."""
    known = {**{buffer.tensor: buffer.dtype for buffer in kernel.writes}, **dtypes}
    last: dict[str, int] = {}
    for argument in kernel.arguments:
        if argument.kind == "stride":
            last[argument.tensor] = max(last.get(argument.tensor, 0), argument.position)
    units = set(last.items()) if unit_strides is None else set(unit_strides)
    tiles = kernel.tile_sizes

    def dtype(name: str) -> str:
        if known.get(name) not in TYPES:
            raise BackendError(
                f"kernel {kernel.name} needs a dtype for {name}, one of {', '.join(TYPES)};"
                f" write dtypes={{..., {name!r}: 'float16'}}"
            )
        return TYPES[known[name]]

    types: list[tuple[str, str]] = []
    constants: list[tuple[int, int]] = []
    multiples: list[int] = []
    for i, argument in enumerate(kernel.arguments):
        match argument.kind:
            case "pointer":
                types.append((argument.name, f"*{dtype(argument.tensor)}"))
                multiples.append(i)
            case "box":
                name = known[argument.tensor]
                types.append((argument.name, box_type(argument, name, dtype(argument.tensor))))
            case "tile":
                types.append((argument.name, "constexpr"))
                constants.append((i, tiles[argument.name]))
            case "stride" if (argument.tensor, argument.position) in units:
                # As at a launch, which makes a constant of an integer that is 1.
                types.append((argument.name, "constexpr"))
                constants.append((i, 1))
            case "parameter":
                scalar = dtype(argument.parameter or argument.name)
                types.append((argument.name, "u1" if scalar == "i1" else scalar))
            case _:
                types.append((argument.name, "i32"))
                if divisible and argument.name not in kernel.lengths:
                    multiples.append(i)
    return Signature(tuple(types), tuple(constants), tuple(multiples))


def work(asked: Path, answer: Path) -> None:
    """Answer the pickled Request in one file in another, which is there when it is whole."""
    request = pickle.loads(asked.read_bytes())
    try:
        result: Any = compile_here(request)
    except Exception as error:  # every failure of the compiler is an answer
        result = f"{type(error).__name__}: {error}"
    temporary = answer.with_suffix(".part")
    temporary.write_bytes(pickle.dumps(result))
    temporary.rename(answer)


def compile_here(request: Request) -> Report:
    """Compile in this process, which must not interpret, and read the machine code."""
    kernel, target = request.kernel, request.target
    library = triton()
    facts = [["tt.divisibility", 16]]
    if target.vendor == "hip":
        # As at a launch with tensors below 2 GiB: lets AMD's buffer instructions be used.
        pointer_facts = [*facts, ["tt.pointer_range", 32]]
    else:
        pointer_facts = facts
    pointers = {i for i, a in enumerate(kernel.arguments) if a.kind == "pointer"}
    source = source_class(kernel)(
        load(kernel),
        dict(request.signature.types),
        {(i,): value for i, value in request.signature.constants},
        {(i,): pointer_facts if i in pointers else facts for i in request.signature.multiples},
    )
    gpu = library.backends.compiler.GPUTarget(target.vendor, target.architecture, target.lanes)
    options = launch_options(kernel)
    start = time.perf_counter()
    compiled = library.compile(source, target=gpu, options=options)
    seconds = time.perf_counter() - start
    read = read_nvidia if target.vendor == "cuda" else read_amd
    return Report(
        kernel=kernel.name,
        target=target.name,
        num_warps=compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        seconds=seconds,
        **read(compiled.asm, target),
    )


def number(pattern: str, text: str) -> int:
    """Return the number that the pattern's group finds first, 0 if it finds none."""
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def read_nvidia(asm: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return a Report's facts of an NVIDIA kernel.

    Triton does not keep what the assembler said of registers and spills, so it is asked again.
    """
    tools = triton().knobs.nvidia
    ptxas = tools.ptxas_blackwell if int(target.architecture) >= 100 else tools.ptxas
    architecture = re.search(r"\.target\s+(sm_\w+)", asm["ptx"])
    assert architecture is not None
    with tempfile.TemporaryDirectory(prefix="einfall-") as folder:
        text, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        text.write_text(asm["ptx"])
        binary.write_bytes(asm["cubin"])
        # The output has to be named: the default is a file in the working directory.
        again = [ptxas.path, "-v", f"--gpu-name={architecture[1]}", text, "-o", f"{folder}/again"]
        log = subprocess.run(again, check=True, capture_output=True, text=True)
        said = log.stdout + log.stderr
        disassemble = [tools.nvdisasm.path, "-c", binary]
        done = subprocess.run(disassemble, check=True, capture_output=True, text=True)
    code = parse_nvidia(done.stdout)
    return {
        "registers": number(r"Used (\d+) registers", said),
        "spill_stores": number(r"(\d+) bytes spill stores", said),
        "spill_loads": number(r"(\d+) bytes spill loads", said),
        "stack": number(r"(\d+) bytes stack frame", said),
        "tensor_core": tensor_core(code),
        "loops": find_loops(code),
        "warnings": tuple(
            line.strip() for line in said.splitlines() if re.search(r"serialized|warning", line)
        ),
        "assembly": done.stdout,
    }


def read_amd(asm: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return a Report's facts of an AMD kernel, from the notes behind its assembly."""
    text = asm["amdgcn"]
    code = parse_amd(text)
    return {
        "registers": number(r"\.vgpr_count:\s+(\d+)", text),
        "spill_stores": 4 * number(r"\.vgpr_spill_count:\s+(\d+)", text),
        "spill_loads": 0,
        "stack": number(r"\.private_segment_fixed_size:\s+(\d+)", text),
        "tensor_core": tensor_core(code),
        "loops": find_loops(code),
        "warnings": (),
        "assembly": text,
    }
