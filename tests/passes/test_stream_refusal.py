"""What has no bounded state is refused: the code, the place and the evidence."""

from __future__ import annotations

import pytest

from einfall.ir.errors import PassError
from einfall.ir.notation import cascade
from einfall.ir.streaming import Reason
from einfall.passes.flatten import flatten
from einfall.passes.stream import stream
from tests.passes.stream_fold import show

REFUSED: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "a threshold below the maximum",
        """
    G[p] = max[m](S[p, m])
    T[p] = G[p] - 1
    A[p, m] = relu(S[p, m] - T[p])
    O[p] = sum[m](A[p, m] * S[p, m])
    return O
""",
        "UNBOUNDED_SUPPORT",
        "O",
        "relu(S[p, m] - T[p])",
    ),
    (
        "sparsemax by sorting",
        """
    C[p, m] = sum[n: S[p, n] >= S[p, m]](S[p, n])
    R[p, m] = sum[n: S[p, n] >= S[p, m]](where(S[p, n] == S[p, n], 1, 0))
    K[p] = max[m](where(1 + R[p, m] * S[p, m] > C[p, m], R[p, m], 0))
    T[p] = (sum[m](where(R[p, m] <= K[p], S[p, m], 0)) - 1) / K[p]
    O[p] = sum[m](relu(S[p, m] - T[p]))
    return O
""",
        "UNBOUNDED_SUPPORT",
        "C",
        "S[p, n] >= S[p, m]",
    ),
    (
        "median",
        """
    R[p, m] = sum[n](where(S[p, n] < S[p, m], 1, 0))
    O[p] = max[m](where(2 * R[p, m] < size(m), S[p, m], -inf))
    return O
""",
        "UNBOUNDED_SUPPORT",
        "R",
        "S[p, n] < S[p, m]",
    ),
    (
        "elements below the mean",
        """
    T[p] = sum[m](S[p, m]) / size(m)
    O[p] = sum[m: S[p, m] < T[p]](S[p, m])
    return O
""",
        "UNBOUNDED_SUPPORT",
        "O",
        "S[p, m] < T[p]",
    ),
    (
        "sigmoid below the maximum",
        """
    G[p] = max[m](S[p, m])
    O[p] = sum[m](sigmoid(S[p, m] - G[p]) * S[p, m])
    return O
""",
        "NOT_SEPARABLE",
        "O",
        "the 7 x 7 minor of sigmoid(S[p, m] - G[p])",
    ),
    (
        "a score times a result in the exponent",
        """
    G[p] = max[m](S[p, m])
    O[p] = sum[m](exp(S[p, m] * G[p]))
    return O
""",
        "NOT_SEPARABLE",
        "O",
        "separation rank is above 6",
    ),
    (
        "a slow function",
        """
    T[p] = sum[m](S[p, m])
    O[p] = sum[m](tanh(S[p, m] / (T[p] + 9)))
    return O
""",
        "NOT_SEPARABLE",
        "O",
        "minor",
    ),
    (
        "weights that are returned",
        """
    A[p, m] = softmax[m](S[p, m])
    return A
""",
        "STREAM_OUTPUT",
        "A",
        "p, m",
    ),
    (
        "a list of the largest",
        """
    T[p, j] = topk[m, 3](S[p, m])
    O[p] = sum[j](T[p, j])
    return O
""",
        "NOT_YET",
        "T",
        "",
    ),
    (
        "a sorted list of all",
        """
    I[p, j] = topk[m, (size(m) + 1) // 2](S[p, m])
    O[p] = sum[j](S[p, I[p, j]])
    return O
""",
        "UNBOUNDED_SUPPORT",
        "I",
        "topk[m, (size(m) + 1) // 2]",
    ),
    (
        "a list above a threshold",
        """
    I[p, j] = threshold[m, 0.5](S[p, m])
    O[p] = sum[j](S[p, I[p, j]])
    return O
""",
        "UNBOUNDED_SUPPORT",
        "I",
        "threshold[m, 0.5]",
    ),
    (
        "weights mixed over another rank",
        """
    A[p, m] = softmax[m](S[p, m])
    B[h, m] = sum[p](W[h, p] * A[p, m])
    O[h] = sum[m](B[h, m] * B[h, m])
    return O
""",
        "NOT_YET",
        "O",
        "",
    ),
    (
        "a neighbour",
        """
    X[p, m] = S[p, m] * 2
    O[p] = sum[m](X[p, m] * X[p, m - 1])
    return O
""",
        "GATHERED",
        "O",
        "X[p, m - 1]",
    ),
    (
        "a result with absent rows",
        """
    T[p: p > 0] = sum[m](S[p, m])
    O[p] = sum[m](S[p, m] * T[p])
    return O
""",
        "NOT_YET",
        "O",
        "",
    ),
)


@pytest.mark.parametrize(
    ("text", "code", "tensor", "witness"),
    [x[1:] for x in REFUSED],
    ids=[x[0] for x in REFUSED],
)
def test_refusal(text: str, code: str, tensor: str, witness: str) -> None:
    arguments = "S, W" if "W[" in text else "S"
    found = stream(flatten(cascade(f"def f({arguments}):{text}")), rank="m")
    assert isinstance(found, Reason), show(found)
    assert (found.code, found.tensor) == (code, tensor)
    assert witness in found.witness
    assert found.text.endswith(".") and found.alternatives


def test_a_recurrence_is_not_derived() -> None:
    text = """
def f(a, X):
    H[0] = 0
    H[m + 1] = a[m] * H[m] + X[m]
    T[c] = sum[m](X[m] * H[m] * C[c])
    return T
""".replace("f(a, X)", "f(a, X, C)")
    found = stream(flatten(cascade(text)), rank="m")
    assert isinstance(found, Reason) and (found.code, found.tensor) == ("NOT_YET", "H")


@pytest.mark.parametrize(
    ("rank", "outputs"), [("z", None), ("f", ("G",)), ("m", ("Z",)), ("f", None)]
)
def test_what_cannot_be_asked(rank: str, outputs: tuple[str, ...] | None) -> None:
    text = "def f(S, W):\n    G[p] = max[m](S[p, m])\n    Y[f] = W[f] * 2\n    return G, Y"
    flat = flatten(cascade(text))
    if (rank, outputs) == ("f", None):
        found = stream(flat, rank=rank)
        assert isinstance(found, Reason) and found.code == "STREAM_OUTPUT"
        return
    with pytest.raises(PassError):
        stream(flat, rank=rank, outputs=outputs)
