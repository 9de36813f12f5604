"""Local copies of the shards of datasets in object stores: directory, cache, prefetching, policy."""
