"""Places behind one interface, on a disk or in an object store: paths, leases, ranged reads, threads that wait.

What is written, and how, is in `gqn_data.storage`; copies of what lies far away are in `caching`.
Floor: the lowest package. Imports `errors` alone, beside itself.
"""
