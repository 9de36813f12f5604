"""Read-only commands on a dataset or a raw folder: verify, info and contact sheets."""
