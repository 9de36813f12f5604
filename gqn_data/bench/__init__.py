"""Benchmark of the loader on a user's data and machine: rates, upper bound, advice and plot."""
