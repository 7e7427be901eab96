"""Numbers for people: counts, bytes and times with a unit and three digits."""

from __future__ import annotations

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(amount: float, unit: str) -> str:
    """Write an amount with a decimal prefix: ``quantity(1.1e12, "FLOP")`` is ``1.10 TFLOP``."""
    for scale, prefix in _PREFIXES:
        if amount >= 0.9995 * scale:
            return f"{digits(amount / scale)} {prefix}{unit}".rstrip()
    return f"{digits(amount) if amount % 1 else int(amount)} {unit}".rstrip()


def duration(seconds: float) -> str:
    """Write a time in s, ms, us or ns."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= 0.9995 * scale:
            return f"{digits(seconds / scale)} {unit}"
    return f"{digits(seconds / 1e-9)} ns"


def digits(x: float) -> str:
    """Write a number with three significant digits, without an exponent."""
    if x >= 999.5:
        return f"{x:,.0f}"
    return f"{x:.0f}" if x >= 99.95 else f"{x:.1f}" if x >= 9.995 else f"{x:.2f}"


def percent(share: float) -> str:
    """Write a share; what rounds to all or nothing and is not says so."""
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 <= share < 1:
        return "over 99 %"
    return f"{share:.0%}".replace("%", " %")


def times(n: int, what: str) -> str:
    """Write a count with its noun: ``1 loop``, ``2 loops``."""
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def listing(words: tuple[str, ...] | list[str], nothing: str = "nothing") -> str:
    """Join words as one says them: ``a, b and c``."""
    if len(words) < 2:
        return words[0] if words else nothing
    return f"{', '.join(words[:-1])} and {words[-1]}"
