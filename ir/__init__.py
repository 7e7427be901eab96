"""Say it: the cascade, its notation, and the questions one may ask of it."""
