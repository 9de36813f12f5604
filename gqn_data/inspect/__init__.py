"""Read-only commands on a dataset: verify, info and contact sheets."""
