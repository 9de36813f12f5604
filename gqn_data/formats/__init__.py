"""Containers, one file each with writer and reader. `FORMATS` lists them by name."""

from __future__ import annotations

from gqn_data.formats import mirror_arrays, numpy_shards, tfrecord_files, webdataset_tars, zarr_shards
from gqn_data.formats.contract import Format

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (zarr_shards, numpy_shards, webdataset_tars, tfrecord_files, mirror_arrays)
}

# The containers that `convert` can write.
WRITABLE = ("zarr", "numpy", "webdataset", "tfrecord", "mirror")
