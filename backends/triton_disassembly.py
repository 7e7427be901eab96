"""Machine code as text, read: control flow, the loops in it, and what is inside each.

Two dialects: ``nvdisasm -c`` (NVIDIA) and the assembly that LLVM writes for AMD. Loops are natural
loops of the control-flow graph, so that waiting code which a compiler moves out of line, and which
jumps back into the middle of a loop, is not taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import networkx


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``label`` is the last one in front of it, ``target`` where it may jump.

    falls : whether the next instruction may follow.
    """

    opcode: str
    label: str = ""
    target: str = ""
    falls: bool = True


@dataclass(frozen=True, slots=True)
class Loop:
    """What one loop holds, inner loops included: numbers of instructions.

    depth : 1 for an outermost loop. innermost : whether no other loop is inside.
    local_loads, local_stores : traffic with a thread's own memory, which is where spills go.
    """

    depth: int
    innermost: bool
    instructions: int
    tensor_core: int
    exponentials: int
    shared_loads: int
    shared_stores: int
    local_loads: int
    local_stores: int
    barriers: int


TENSOR_CORE = {
    "wgmma": r"[HIQB]GMMA\b",
    "mma": r"[HIQBD]MMA\b",
    "tcgen05": r"UTC\w*MMA\b",
    "mfma": r"v_s?mfma",
}
"""Opcodes of dots, by the name of the instruction in the vendor's higher assembly."""

COUNTED = {
    "tensor_core": "|".join(TENSOR_CORE.values()),
    "exponentials": r"MUFU\.EX2|v_exp_f(32|16)",
    "shared_loads": r"LDS|ds_(read|load)",
    "shared_stores": r"STS\b|STSM|ds_(write|store)",
    "local_loads": r"LDL|scratch_load",
    "local_stores": r"STL|scratch_store",
    "barriers": r"BAR\.|s_barrier",
}

WAITING = 12
"""The most instructions of a loop that waits for a barrier."""


def count(code: Iterable[Instruction], pattern: str) -> int:
    """Return how many opcodes begin with the pattern."""
    found = re.compile(pattern)
    return sum(found.match(x.opcode) is not None for x in code)


def tensor_core(code: Iterable[Instruction]) -> tuple[tuple[str, int], ...]:
    """Return how many dots of each instruction there are, those that occur."""
    code = tuple(code)
    counts = ((name, count(code, pattern)) for name, pattern in TENSOR_CORE.items())
    return tuple((name, n) for name, n in counts if n)


def parse_nvidia(text: str) -> tuple[Instruction, ...]:
    """Return the instructions of ``nvdisasm -c``'s text."""
    return tuple(_nvidia(text))


def _nvidia(text: str) -> Iterator[Instruction]:
    label = ""
    for line in text.splitlines():
        if found := re.match(r"\s*(\.L_x_\d+):", line):
            label = found[1]
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(@!?\w+\s+)?([A-Z][\w.]*)([^;]*);", line):
            predicate, opcode, rest = found.groups()
            always = predicate is None
            jump = re.search(r"`\((\.L_x_\d+)\)", rest) if opcode.startswith("BRA") else None
            # A uniform or divergence condition stands among the operands: BRA.DIV UR4, `(.L_x_3).
            operands = rest.strip().removeprefix(jump[0] if jump else "")
            ends = re.match(r"(BRA|BRX|EXIT|RET)\b", opcode) is not None and not operands
            yield Instruction(opcode, label, jump[1] if jump else "", not (always and ends))
            label = ""


def parse_amd(text: str) -> tuple[Instruction, ...]:
    """Return the instructions of LLVM's assembly text for an AMD GPU."""
    return tuple(_amd(text))


def _amd(text: str) -> Iterator[Instruction]:
    label = ""
    for line in text.splitlines():
        if found := re.match(r"(\.LBB\w+):", line):
            label = found[1]
        elif found := re.match(r"\s+([a-z]+_\w+)(?:\s+(\.LBB\w+))?", line):
            opcode, target = found[1], found[2] or ""
            yield Instruction(opcode, label, target, opcode not in ("s_branch", "s_endpgm"))
            label = ""


def flow(code: tuple[Instruction, ...]) -> networkx.DiGraph[int]:
    """Return the control-flow graph that the entry reaches, of basic blocks by first instruction.

    Each node has ``end``, one past its last instruction.
    """
    at = {x.label: i for i, x in enumerate(code) if x.label}
    first = {0, *at.values()}
    first |= {i + 1 for i, x in enumerate(code) if (x.target or not x.falls) and i + 1 < len(code)}
    starts = sorted(first)
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    for start, end in zip(starts, [*starts[1:], len(code)], strict=True):
        graph.add_node(start, end=end)
        last = code[end - 1]
        if last.falls and end < len(code):
            graph.add_edge(start, end)
        if last.target in at:
            graph.add_edge(start, at[last.target])
    reached = {0, *networkx.descendants(graph, 0)}
    return graph.subgraph(reached).copy()


def loop_blocks(graph: networkx.DiGraph[int]) -> dict[int, frozenset[int]]:
    """Return the natural loops: blocks by header. Back edges to one header make one loop."""
    immediate = networkx.immediate_dominators(graph, 0)

    def dominates(above: int, below: int) -> bool:
        while below != above and below != 0:
            below = immediate[below]
        return below == above

    loops: dict[int, frozenset[int]] = {}
    for tail, header in graph.edges:
        if dominates(header, tail):
            without = graph.subgraph(node for node in graph if node != header)
            before = {tail, *networkx.ancestors(without, tail)} if tail != header else set()
            loops[header] = loops.get(header, frozenset()) | before | {header}
    return loops


def find_loops(code: tuple[Instruction, ...]) -> tuple[Loop, ...]:
    """Return the loops in the order of their headers, without those that only wait."""
    if not code:
        return ()
    graph = flow(code)
    bodies = {
        header: (blocks, [code[i] for b in sorted(blocks) for i in range(b, graph.nodes[b]["end"])])
        for header, blocks in sorted(loop_blocks(graph).items())
    }
    working = {header: body for header, body in bodies.items() if not only_waits(body[1])}
    others = [blocks for blocks, _ in working.values()]
    return tuple(
        Loop(
            depth=sum(blocks <= other for other in others),
            innermost=not any(other < blocks for other in others),
            instructions=len(body),
            **{name: count(body, pattern) for name, pattern in COUNTED.items()},
        )
        for blocks, body in working.values()
    )


def only_waits(code: list[Instruction]) -> bool:
    """Whether a loop asks a barrier or an allocator, again and again, and does nothing else."""
    asks = count(code, "SYNCS|UTCATOMSWS") > 0
    return asks and len(code) <= WAITING and not tensor_core(code)
