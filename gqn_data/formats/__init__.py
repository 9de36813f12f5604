"""The containers, one file each: writer and reader side by side. A container is a line of `FORMATS`."""

from __future__ import annotations

from gqn_data.formats import mirror_arrays, numpy_shards, tfrecord_files, webdataset_tars, zarr_shards
from gqn_data.formats.contract import Format

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (zarr_shards, numpy_shards, webdataset_tars, tfrecord_files, mirror_arrays)
}

# What `convert` writes.
WRITABLE = ("zarr", "numpy", "webdataset", "tfrecord")
