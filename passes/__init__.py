"""Change it: one pass a file, each ``(IR, *, options) -> IR``."""
