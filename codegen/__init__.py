"""Write it down: loop nests, and the source text that they print to."""
