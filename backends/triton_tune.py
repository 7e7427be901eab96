"""Choose between plans by measuring them, once for a machine; off unless asked for.

``EINFALL_TUNE=off`` (the default) takes the first candidate, the one that the cost model puts
first. ``EINFALL_TUNE=quick`` measures each for about 50 ms and keeps what it found in the cache
folder. A candidate that cannot be launched (it does not compile, or wants more shared memory than
there is) is passed over, and that is kept too.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..ir.errors import BackendError
from .cache import Record, source_hash, tuning_records
from .launch import Plan
from .triton import illegal, triton

log = logging.getLogger(__name__)

Measure = Callable[[Callable[[], object]], float]
"""Takes something to run, returns milliseconds."""


def tune(
    candidates: Sequence[Plan],
    call: Callable[[Plan], object],
    key: str,
    *,
    measure: Measure | None = None,
) -> Plan:
    """Return the fastest candidate for ``call``, or the first where tuning is off.

    call : runs one plan on the tensors to measure with, e.g. ``lambda plan: plan(Q, K, V)``.
    key : what the choice depends on besides machine and versions, e.g. cascade, shapes, dtypes.
    measure : milliseconds of a function; Triton's benchmark if None, which needs a GPU.

    Raises
    ------
    BackendError : ``EINFALL_TUNE`` is neither off nor quick, or no candidate can be launched.
    """
    if not candidates:
        raise ValueError("tune needs a candidate")
    if not wanted() or len(candidates) == 1:
        return candidates[0]
    if measure is None:
        if not torch.cuda.is_available():
            log.warning("EINFALL_TUNE=quick measures on a GPU and finds none; %s is not tuned", key)
            return candidates[0]
        measure = benchmark
    records = tuning_records()
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    key = f"{key} on {machine}"
    by_name = {fingerprint(plan): plan for plan in candidates}
    record = records.get(key)
    if record is None or not by_name.keys() <= {x["candidate"] for x in record["trials"]}:
        record = {"trials": [trial(name, plan, call, measure) for name, plan in by_name.items()]}
        records.put(key, record)
    times = {
        x["candidate"]: x["milliseconds"]
        for x in record["trials"]
        if x["candidate"] in by_name and x["milliseconds"] is not None
    }
    if not times:
        reasons = "; ".join(f"{x['kernels']}: {x['reason']}" for x in record["trials"])
        raise BackendError(
            f"one of {len(by_name)} mappings must fit {machine}, and none does ({reasons});"
            " lower with smaller tiles"
        )
    return by_name[min(times, key=times.__getitem__)]


def wanted() -> bool:
    """Whether ``EINFALL_TUNE`` asks for measurements."""
    mode = os.environ.get("EINFALL_TUNE") or "off"
    if mode not in ("off", "quick"):
        raise BackendError(f"EINFALL_TUNE is off or quick, and it is {mode!r}; set it to one")
    return mode == "quick"


def shape_of(plan: Plan) -> list[Any]:
    """Return what tells mappings of one cascade apart, for the record's reader."""
    return [[k.name, k.tile_sizes, k.num_warps, k.num_stages] for k in plan.kernels]


def fingerprint(plan: Plan) -> str:
    """Return a name for a plan's kernels with their constants, under today's versions."""
    texts = [kernel.text for kernel in plan.kernels]
    return source_hash(json.dumps([texts, shape_of(plan)]))


def trial(name: str, plan: Plan, call: Callable[[Plan], object], measure: Measure) -> Record:
    """Measure one candidate; the record says why where it cannot be launched."""
    milliseconds, reason = None, ""
    try:
        call(plan)
        milliseconds = measure(lambda: call(plan))
    except Exception as error:
        if not illegal(error):
            raise
        # The compiler's messages quote whole kernels behind their first line.
        first = error.__cause__ if isinstance(error, BackendError) and error.__cause__ else error
        reason = f"{type(first).__name__}: {first}".splitlines()[0][:300]
    log.info("%s: %s", shape_of(plan), reason or f"{milliseconds:.4f} ms")
    shape = json.dumps(shape_of(plan))
    return {"candidate": name, "kernels": shape, "milliseconds": milliseconds, "reason": reason}


def benchmark(function: Callable[[], object]) -> float:
    """Return the median milliseconds of a function on the current GPU."""
    milliseconds = triton().testing.do_bench(function, warmup=10, rep=40, return_mode="median")
    return float(milliseconds)
