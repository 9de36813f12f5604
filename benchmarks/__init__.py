"""Measurements, run by hand and by `make bench`; nothing of the packages imports them."""
