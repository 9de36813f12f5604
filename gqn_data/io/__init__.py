"""Local files and object stores.

Paths and URLs, atomic writes, ranged reads, leases, strict JSON, daemon threads, and pictures as files.
"""
