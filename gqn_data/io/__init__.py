"""Files and object stores: paths, atomic writes, ranged reads, leases, strict JSON, daemon threads, pictures."""
