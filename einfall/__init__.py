"""Einfall: a compiler for attention."""
