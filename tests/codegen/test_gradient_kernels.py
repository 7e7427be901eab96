"""Gradients as kernels: each kernel of forward and backward against the interpreter in float64."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.aot import check, compile_ahead
from einfall.backends.lowered import Lowered
from einfall.ir.cascade import Cascade
from einfall.passes.differentiate import gradient

from .kernel_cases import TOLERANCE, arguments, outputs, relative

SCALE = {"b": 2, "h": 4, "group": 2, "p": 24, "m": 20, "e": 16, "f": 16, "block": 16}
COMPUTED = (
    *("alibi", "attention", "attention_naive", "block_diagonal", "causal", "causal_lse", "cosine"),
    *("cross", "differential", "dilated", "document", "dropout", "entropy", "fusemax_3pass"),
    *("fusemax_cascade1", "gqa", "l2_normalised", "landmark", "linear", "mqa", "padding"),
    *("prefix_lm", "relative_bias", "relu_squared", "rope_in_kernel", "score_statistics"),
    *("sigmoid", "sink", "sink_window", "sliding_window", "softcap", "varlen_decode"),
    *("absmax_scaled", "core_context", "duo_attention", "fusemax_2pass", "hyper", "longlora"),
    *("merge_partial", "moa", "paro", "radial", "radial_blocks", "seer_target", "sink_tokens"),
    *("varlen", "vertical_slash", "zero_tuning", "block_lists", "quest", "tidal_decode"),
    *("topk_blocks",),
)

KERNELS = {
    "attention": ("a_log_grad_sum", "q_grad", "k_grad_v_grad"),
    "causal": ("a_log_grad_sum", "q_grad", "k_grad_v_grad"),
    "sliding_window": ("a_log_grad_sum", "q_grad", "k_grad_v_grad"),
    "sigmoid": ("q_grad", "k_grad_v_grad"),
    "relu_squared": ("q_grad", "k_grad_v_grad"),
    "softcap": ("a_log_grad_sum", "q_grad", "k_grad_v_grad"),
}
"""Which kernels come out: keys parallel for two gradients at once, queries for the third."""


def both(name: str) -> tuple[Cascade, list[torch.Tensor], dict[str, Any]]:
    """Return a gradient cascade with arguments: the forward's results, and random gradients."""
    cascade = getattr(examples, name)
    tensors, parameters = arguments(name, "float32", SCALE)
    real = [n for n, x in zip(cascade.inputs, tensors, strict=True) if x.is_floating_point()]
    made = gradient(cascade, wrt=real)
    values = outputs(einfall.interpret(made.forward, *(x.cpu() for x in tensors), **parameters))
    memory = dict(zip(cascade.inputs, tensors, strict=True))
    draw = numpy.random.default_rng(3)
    for output, value in zip(made.forward.outputs, values, strict=True):
        memory[output] = torch.tensor(numpy.asarray(value, "float32"), device=tensors[0].device)
        seed = draw.standard_normal(value.shape).astype("float32")
        memory[f"{output}_grad"] = torch.tensor(seed, device=tensors[0].device)
    backward = made.backward
    read = {n: x for n, x in parameters.items() if n in dict(backward.parameters)}
    return backward, [memory[n] for n in backward.inputs], read


@pytest.mark.parametrize("name", COMPUTED)
def test_gradient_kernels_agree_with_the_interpreter(name: str) -> None:
    backward, tensors, parameters = both(name)
    truth = outputs(einfall.interpret(backward, *(x.cpu() for x in tensors), **parameters))
    whole = dict.fromkeys(backward.ranks, 1)  # no rank in parts
    f = einfall.compile(backward, backend="triton", parts=whole)
    found = outputs(f(*tensors, **parameters))
    for output, got, expected in zip(backward.outputs, found, truth, strict=True):
        assert relative(got, expected) < TOLERANCE["float32"], output
    if name in KERNELS:
        names = [k.name.removeprefix(f"{backward.name}_") for k in f.kernels]
        assert names == [f"{n}_kernel" for n in KERNELS[name]]


def test_parts_of_a_concatenation_are_walked_once_for_each_gradient() -> None:
    """The sum of a row is one over features; nothing along both parts is stored."""
    sizes = {"e": 64, "f": 64}
    made = gradient(examples.sink_tokens)
    f = einfall.compile(made.backward, parts=dict.fromkeys(made.backward.ranks, 1))
    k = f.lower(sizes=sizes, dtype="float16", dtypes={"length": "int32", "L_kept": "float32"})
    assert "O" in made.kept and "n" not in k.mapping.cascade.ranks
    walked = [x.ranks("streamed") for x in k.mapping.kernels]
    assert sorted(walked) == [(), ("b",), ("m",), ("p",), ("p",), ("s",)]
    stored = [set(b.ranks) for x in k.kernels for b in x.writes]
    assert not any({"p", "m"} <= ranks or {"p", "s"} <= ranks for ranks in stored)


def test_a_list_that_no_loop_walks_is_looked_up_in_a_table() -> None:
    """Keys walk all queries, and whether a block of them is in a list is one truth value."""
    made = gradient(examples.block_lists)
    f = einfall.compile(made.backward, parts=dict.fromkeys(made.backward.ranks, 1))
    integers = {"Blocks": "int32", "Count": "int32", "L_kept": "float32"}
    k = f.lower(sizes={"e": 64, "f": 64}, dtypes=integers, P0=64, M0=128)
    stored = {b.tensor: (b.ranks, b.dtype) for x in k.kernels for b in x.writes}
    assert stored["List_has"] == (("b", "h", "i", "n"), "bool")
    walking = next(x for x in k.mapping.kernels if "Q_grad" in x.writes)
    assert walking.traversals[0].walks and "List_has" not in walking.reads


def test_what_lands_on_a_page_is_summed_before_it_is_laid_there() -> None:
    made = gradient(examples.paged_prefill)
    text = str(made.backward)
    assert "K_grad_read_sum[b, m, c, e] = sum[p](S_grad[b, c, p, m] * Q[b, p, c, e])" in text
    assert "A_log_grad_sum[b, c, p] = sum[f](O_grad[b, p, c, f] * O[b, p, c, f])" in text


def lowered(features: int) -> Lowered:
    sizes = {"e": features, "f": features}
    made = gradient(examples.causal)
    narrow = {"A_log_kept": "float32"}
    f = einfall.compile(made.backward, parts=dict.fromkeys(made.backward.ranks, 1))
    return f.lower(sizes=sizes, dtype="bfloat16", dtypes=narrow, target="sm_90")


def test_the_gradient_has_seven_products_in_two_loops() -> None:
    """Two of seven are the scores and the gradients of the weights, made again."""
    k = lowered(64)
    dots = [kernel.text.count("tl.dot(") for kernel in k.kernels]
    loops = [kernel.text.count("tl.range(") for kernel in k.kernels]
    assert [d // max(n, 1) for d, n in zip(dots, loops, strict=True)] == [0, 3, 4]
    assert "atomic" not in k.source


@pytest.mark.parametrize("features", [64, 128])
def test_gradient_compiles_ahead_of_time(features: int) -> None:
    """Without spills for 64 features; for 128, ten of them a step were measured to cost less than
    any way to have none: 436 against 421 TFLOP/s on an H100."""
    k = lowered(features)
    # 64 rows a program; with 128 features the two accumulators leave no room for loads in flight
    cuts = [(x.tile_sizes["P0"], x.tile_sizes["M0"], x.num_stages) for x in k.kernels[1:]]
    assert cuts == [(64, 64, 2), (64, 64, 1 if features == 128 else 2)]
    for kernel in k.kernels:
        report = compile_ahead(kernel, dict(k.mapping.dtypes), "sm_90")
        spills = 10 if features == 128 and "k_grad" in kernel.name else 0
        check(report, tensor_core="tl.dot(" in kernel.text, local=spills)


@pytest.mark.parametrize("name", ["landmark", "seer_target"])
def test_products_over_blocks_are_dots(name: str) -> None:
    """A kernel with a tile along each of three sides beside the features would not compile."""
    made = gradient(getattr(examples, name))
    f = einfall.compile(made.backward, parts=dict.fromkeys(made.backward.ranks, 1))
    sizes = {"e": 64, "f": 64, "r": 16} if name == "landmark" else {"e": 64, "f": 64}
    k = f.lower(sizes=sizes, dtype="bfloat16", target="sm_90", B=16)
    for kernel in k.kernels:
        assert "[:, None, None, :]" not in kernel.text and "[:, :, :, None]" not in kernel.text
