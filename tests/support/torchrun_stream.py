"""Program for `torchrun` that gathers the batches of a loader over all ranks, and prints their hash.

Argument: a JSON object with the `path` and `options` of the loader, the number of `batches` (null for all), and the
state files `load` and `save`. Rank 0 prints a JSON object with `ranks`, the `hash` of (dataset, scene, views) of all
slots in global order, and the `scenes` of each batch.
"""

import hashlib
import json
import sys
from itertools import islice
from pathlib import Path

import torch.distributed as dist

from gqn_data.loader import SceneLoader


def main():
    job = json.loads(sys.argv[1])
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    loader = SceneLoader(job["path"], rank=rank, ranks=ranks, **job["options"])
    if job.get("load"):
        loader.load_state_dict(json.loads(Path(job["load"]).read_text()))
    digest = hashlib.sha256()
    scenes = []
    for batch in islice(loader, job.get("batches")):
        own = [*zip(batch.datasets.tolist(), batch.scenes.tolist(), batch.views.tolist())]
        parts = [None] * ranks
        dist.all_gather_object(parts, own)
        whole = [row for part in parts for row in part]
        digest.update(json.dumps(whole).encode())
        scenes.append([scene for _, scene, _ in whole])
    loader.close()
    states = [None] * ranks
    dist.all_gather_object(states, loader.state_dict())
    if rank == 0:
        if any(state != states[0] for state in states):
            raise SystemExit(f"states differ: {states}")
        if job.get("save"):
            Path(job["save"]).write_text(json.dumps(states[0]))
        print(json.dumps({"ranks": ranks, "hash": digest.hexdigest(), "scenes": scenes}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
