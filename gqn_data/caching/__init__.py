"""Datasets that lie in a store, read from near: local copies, the window ahead, or ranges instead.

Which scenes are read is decided elsewhere (`loading`, `converting`), and nothing here knows what a file holds.
Source files that come whole into a raw folder are the business of `fetching`.
Floor: above `manifest`, `order` and `storage`, below `converting` and `loading`. Imports those three and `stores`.
"""
