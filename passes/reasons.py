"""Reasons: why a cascade takes more than one kernel, in words for the one who reads ``explain``."""

from __future__ import annotations

from collections.abc import Mapping

from .divide import Group, reads_of


def reasons(groups: tuple[Group, ...], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return a sentence for each kernel but the first, and for each large tensor.

    A kernel waits for what an earlier one knows only at the end of its walk. One that waits for
    none has programs along other ranks than those before it. A tensor that keeps two long ranks is
    as large as their product; it is stored only because it is asked for.
    """
    found: list[str] = []
    for k, group in enumerate(groups):
        name = " and ".join(group.targets)
        needs = set(reads_of(group.slice))
        waits: dict[str, list[str]] = {}
        for other in groups[:k]:
            shared = [t for t in other.targets if t in needs]
            if shared and other.streamed is not None:
                waits.setdefault(other.streamed, []).extend(shared)
        if waits:
            ends = [
                f"{' and '.join(read)}, known only at the end of the walk along {rank}"
                f"{', which it keeps' if rank in group.parallel else ''}"
                for rank, read in waits.items()
            ]
            found.append(f"{name}: a kernel of its own, for it reads {', and '.join(ends)}")
        elif k and group.streamed is not None:
            found += apart(name, group, groups[:k])
        if group.streamed is None:
            found += [
                f"{e.name} holds {', '.join(long)} at once: it is written because it is returned"
                for e in group.slice
                if e.name in group.targets
                and len(long := [r for r in e.ranks if sizes.get(r, LARGE) >= LARGE]) > 1
            ]
    return tuple(found)


def apart(name: str, group: Group, others: tuple[Group, ...]) -> list[str]:
    """Say how the programs of a kernel that waits for none lie to those before it."""
    for other in others:
        own = [r for r in group.parallel if r not in other.parallel]
        theirs = [r for r in other.parallel if r not in group.parallel]
        if own and other.streamed is not None:
            return [
                f"{name}: a kernel of its own, for its programs lie along {', '.join(own)} and"
                f" walk {group.streamed}, those of {' and '.join(other.targets)} along"
                f" {', '.join(theirs) or 'fewer ranks'} and walk {other.streamed}"
            ]
    return []


LARGE = 1024
"""Coordinates from which on two ranks of one tensor are worth a word."""
