"""Benchmarks, run by hand or with `make bench`; the packages do not import them."""
