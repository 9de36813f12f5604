"""Benchmark of the loader against its peers on the same scenes and machine: `python -m benchmarks.peers`.

`PEERS` lists the peers, one file each; the docstring of the file gives the settings that the peer's documentation
recommends. Peers are optional (`requirements.txt` in this folder); missing ones are reported and skipped.
"""

from __future__ import annotations

from benchmarks.peers import (
    grain_array_record,
    hf_datasets,
    litdata_chunks,
    mosaicml_mds,
    ours,
    tf_records,
    torch_files,
    torchvision_files,
    webdataset_tars,
)
from benchmarks.peers.contract import Peer

OURS = "ours"

PEERS: dict[str, Peer] = {
    OURS: ours.PEER,
    "webdataset": webdataset_tars.PEER,
    "torch-files": torch_files.PEER,
    "torchvision-files": torchvision_files.PEER,
    "tf-data": tf_records.PEER,
    "mosaicml": mosaicml_mds.PEER,
    "litdata": litdata_chunks.PEER,
    "grain": grain_array_record.PEER,
    "hf-datasets": hf_datasets.PEER,
}
