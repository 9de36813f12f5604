"""The loader against its peers on the same scenes and the same machine: `python -m benchmarks.peers`.

`PEERS` names them; each is one file, with the settings that its own documentation advises in its docstring. They are
optional (`requirements.txt` beside this file): one that is absent is named as such, and the others are measured.
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
