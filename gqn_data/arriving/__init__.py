"""Conversion while source files come one after another, fetched or rendered: few of them lie on the disk at a time.

Shards and manifests have the bytes that a conversion of a whole raw folder gives; that one is `gqn_data.convert`.
Floor: above `convert`, `fetching` and `render`, below the commands. Imports those three, `converting` and `index`.
"""
