"""Executors for tasks: a pool of processes, a Dask cluster, or the parts of a job array."""
