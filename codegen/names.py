"""Names in generated text: the user's own, made unique."""

from __future__ import annotations

import keyword

RESERVED = frozenset({*keyword.kwlist, "tl", "triton", "pid", "range", "min", "max", "abs"})


class Names:
    """Hands out names; no name is given for two things."""

    def __init__(self, taken: tuple[str, ...]) -> None:
        self.taken = {*taken, *RESERVED}
        self.tiles: dict[tuple[str, str], str] = {}

    def take(self, wish: str) -> str:
        """Return a new name: the wish, numbered if it is taken."""
        name, number = wish, 2
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name

    def tile(self, tensor: str, suffix: str = "") -> str:
        """Return the variable of a tensor's tile: the name in small letters, always the same."""
        key = (tensor, suffix)
        if key not in self.tiles:
            self.tiles[key] = self.take(f"{tensor.lower()}{suffix}")
        return self.tiles[key]
