"""Reasons: why a cascade takes more than one kernel, in words for the one who reads ``explain``."""

from __future__ import annotations

from collections.abc import Mapping

from .divide import Group, reads_of


def reasons(groups: tuple[Group, ...], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return a sentence for each kernel that waits for another one, and for each large tensor.

    A kernel waits for what an earlier one knows only at the end of its walk. A tensor that keeps
    two long ranks is as large as their product; it is stored only because it is asked for.
    """
    found: list[str] = []
    for k, group in enumerate(groups):
        name = " and ".join(group.targets)
        needs = set(reads_of(group.slice))
        for other in groups[:k]:
            shared = [t for t in other.targets if t in needs]
            if shared and other.streamed is not None:
                found.append(
                    f"{name}: a kernel of its own, for it reads {' and '.join(shared)}, known only "
                    f"at the end of the walk along {other.streamed}"
                )
        if group.streamed is None:
            found += [
                f"{e.name} holds {', '.join(long)} at once: it is written because it is returned"
                for e in group.slice
                if e.name in group.targets
                and len(long := [r for r in e.ranks if sizes.get(r, LARGE) >= LARGE]) > 1
            ]
    return tuple(found)


LARGE = 1024
"""Coordinates from which on two ranks of one tensor are worth a word."""
