"""Predictions per second of a viewer: the answer of the network, and the picture of the panel, encoded.

python -m benchmarks.viewer demo/gqn demo/plane_sweep
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gqn_data.io.paths import parse_dataset_path
from gqn_data.viewer.gallery import Gallery
from gqn_data.viewer.tiles import Tile, tile_picture
from gqn_model.checkpoint.run_folder import read_facts
from gqn_model.viewer.predictor import Predictor

_SECONDS = 3.0


def measure(run: Path) -> str:
    """Return a line on a run: median milliseconds of processor time, with its context and one sample."""
    torch.set_num_threads(1)
    shards = parse_dataset_path(read_facts(run).shards)
    predictor = Predictor(run, shards, device="cpu")
    torch.set_num_threads(1)
    gallery = Gallery(shards, predictor.read, first="test")
    split = next(iter(gallery.datasets))
    views = gallery.views_of(split, 0)
    context = range(min(predictor.context, len(views.cameras) - 1))
    took, end, rng = [], time.monotonic() + _SECONDS, np.random.default_rng(0)
    while time.monotonic() < end:
        started = time.process_time()
        query = views.cameras[-1] + rng.normal(0, 0.01, 5)
        found = predictor.predict(0, views, context, query, 1)
        frames = [found.frame, *found.samples]
        tiles = [Tile("prediction", np.asarray(frame * 255, np.uint8)) for frame in frames]
        Image.fromarray(tile_picture(tiles, 2, 176)).save(io.BytesIO(), "PNG")
        took.append(time.process_time() - started)
    median = float(np.median(took))
    model = f"{predictor.model_name}, {views.frames.shape[1]} px, {len(context)} views"
    return f"{run}: {model}: {1e3 * median:.1f} ms, {1 / median:.0f} a second"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(measure(Path(argument)))
