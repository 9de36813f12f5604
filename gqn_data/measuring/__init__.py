"""The loader measured on a user's data and machine: its rates, the limit beside them, what follows, a picture.

Measurements of the project itself, with their peers, are in `benchmarks`, outside of this package.
Floor: above `loader`, below the commands. Imports it (when something is measured), `loading`, `dataset`, `figures`.
"""
