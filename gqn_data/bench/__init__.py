"""Loader benchmark on the user's data and machine: rates, the decoding ceiling, advice, plot."""
