"""Quick calls: a prepared plan as one flat function, once Triton has compiled what it launches.

Of a launch like the last one everything is known but addresses and the stream, so the call is
written out: take addresses, allocate, launch. It is written as Python text, for a loop over
arguments costs more than the launch of a small kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .memory import New, Piece, contiguous_strides, strided
from .triton import triton

if TYPE_CHECKING:
    from .dispatch import Launch

ALIGNED = 16
"""Bytes: Triton has a variant for addresses that are multiples of this, and one for others."""


def quick_call(
    inputs: int,
    made: Sequence[New | torch.Tensor],
    pieces: Sequence[Piece],
    launches: Sequence[Launch],
    wanted: Sequence[int],
    device: torch.device,
    stream_of: Any,
) -> Callable[..., Any]:
    """Return the function of ``inputs`` tensors that launches what is compiled, and the outputs.

    Slots count inputs, then ``made``; the last of them is the memory of ``pieces``, if there are
    any, whose slots begin where it stands. The function returns NotImplemented, having done
    nothing, for an address that is not aligned, where a profiler wants to see launches, and where
    another device is the current one.

    ::

        def call(t0, t1):
            a0 = t0.data_ptr()
            a1 = t1.data_ptr()
            if (a0 | a1) % 16 or watch.launch_enter_hook.calls or watch.launch_exit_hook.calls:
                return NotImplemented
            t2 = empty((4, 64), (64, 1), dtype2)
            a2 = t2.data_ptr()
            stream = stream_of(0)
            launch0(32, 1, 1, stream, *fixed0, a0, a1, a2, 64, 1, 64)
            return t2
    """
    names: dict[str, Any] = {
        "empty": strided(device),
        "stream_of": stream_of,
        "watch": triton().knobs.runtime,
    }
    taken = [f"t{k}" for k in range(inputs)]
    lines = [f"def call({', '.join(taken)}):"]
    lines += [f"    a{k} = t{k}.data_ptr()" for k in range(inputs)]
    addresses = " | ".join(f"a{k}" for k in range(inputs)) or "0"
    odd = f"({addresses}) % {ALIGNED} or watch.launch_enter_hook.calls"
    odd += " or watch.launch_exit_hook.calls"
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        names["current"] = torch._C._cuda_getDevice
        odd += f" or current() != {device.index}"
    lines += [f"    if {odd}:", "        return NotImplemented"]
    for k, one in enumerate(made, inputs):
        if isinstance(one, torch.Tensor):
            names[f"t{k}"], names[f"a{k}"] = one, one.data_ptr()
            continue
        names[f"dtype{k}"] = one.dtype
        made_here = f"empty({one.shape}, {contiguous_strides(one.shape)}, dtype{k})"
        lines.append(f"    t{k} = {made_here}{'' if one.written else '.zero_()'}")
        lines.append(f"    a{k} = t{k}.data_ptr()")
    if pieces:
        first = inputs + len(made) - 1
        described = {slot for launch in launches for _, slot, _ in launch.boxes}
        lines.append(f"    memory, start = t{first}, a{first}")
        for k, piece in enumerate(pieces, first):
            lines.append(f"    a{k} = start + {piece.offset}")
            if k in described:
                names[f"piece{k}"] = piece.of
                lines.append(f"    t{k} = piece{k}(memory)")
    lines.append(f"    stream = stream_of({device.index})")
    for k, launch in enumerate(launches):
        lines.append(f"    {written(k, launch, names)}")
    found = ", ".join(f"t{slot}" for slot in wanted)
    lines.append(f"    return {found if len(wanted) == 1 else f'({found},)'}")
    exec(compile("\n".join(lines), "<quick call>", "exec"), names)
    call: Callable[..., Any] = names["call"]
    return call


def written(k: int, launch: Launch, names: dict[str, Any]) -> str:
    """Return launch ``k`` as a line; what it needs and cannot be written as a number gets a name.

    Triton's launcher looks for memory that kernels ask for, and hands over to what it compiled for
    the signature; kernels that ask for none go there at once.
    """
    assert launch.compiled is not None
    run, function, metadata = launch.compiled
    sizes = [getattr(run, f"{kind}_scratch_size", None) for kind in ("global", "profile")]
    if sizes == [0, 0] and hasattr(run, "launch"):
        names[f"launch{k}"] = run.launch
        kind = (run.launch_cooperative_grid, run.launch_pdl)
        names[f"fixed{k}"] = (function, *kind, None, None, metadata, None, None, None)
    else:
        names[f"launch{k}"] = run
        names[f"fixed{k}"] = (function, metadata, None, None, None)
    texts = []
    slots = dict(launch.pointers)
    makers = {position: (slot, make) for position, slot, make in launch.boxes}
    for position, value in enumerate(launch.arguments):
        if position in slots:
            texts.append(f"a{slots[position]}")
        elif position in makers:
            slot, names[f"box{k}_{position}"] = makers[position]
            texts.append(f"box{k}_{position}(t{slot})")
        elif value is None or type(value) in (int, bool):
            texts.append(repr(value))
        else:
            names[f"x{k}_{position}"] = value
            texts.append(f"x{k}_{position}")
    return f"launch{k}({launch.programs}, 1, 1, stream, *fixed{k}, {', '.join(texts)})"
