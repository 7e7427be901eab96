"""Run it: the numpy interpreter, Triton, and what lies between them and the user."""
