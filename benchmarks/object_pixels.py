"""Measure predictions over the pixels of objects: each test room is rendered again without its objects.

    python -m benchmarks.object_pixels demo/plane_sweep demo/gqn --context 3

A pixel belongs to an object if removing the objects changes it, so that their shadows count too. For every run it
prints the PSNR of the prediction without noise, and of the nearest context view, over these pixels and over all
others: the mean over scenes, and of the mean squared error. Datasets are those of `gqn-data render`, of a rooms set.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gqn_data.dataset import Dataset, open_dataset
from gqn_data.loader import SceneLoader
from gqn_data.render.room_cameras import sample_free_scene, sample_ring_scene, to_world
from gqn_data.render.rooms import render_room
from gqn_model.checkpoint.load import load_model
from gqn_model.checkpoint.run_folder import read_facts
from gqn_model.evaluate.baselines import nearest_view
from gqn_model.evaluate.questions import make_questions
from gqn_model.model.inputs import to_device

_LEAST_CHANGE = 10  # levels of 255: a change that one can see
_LEAST_PIXELS = 8  # a scene whose objects are hidden from the query is left out
_BATCH = 20


class Squares(NamedTuple):
    """Mean squared errors of a scene over its objects and over the rest; colours from 0 to 1."""

    objects: float
    rest: float


def object_mask(dataset: Dataset, scene: int, view: int, side: int) -> NDArray[np.bool_]:
    """Return which pixels of a view objects cover or shade, bool (side, side).

    Args:
        dataset: a rendered rooms set.
        scene: number in the split.
        view: number of the view.
        side: frame size of the network, which divides that of the dataset.

    Raises:
        SystemExit: the scene rendered again differs from the dataset's frame.
    """
    details = dataset.manifest.origin.details
    name, views, size = dataset.manifest.scene_set, dataset.layout.views, dataset.layout.height
    options = {"seed": details["seed"], "split": dataset.split, "views": views}
    room, raw = (
        sample_ring_scene(scene, **options)
        if name == "rooms_ring_camera"
        else sample_free_scene(name, scene, **options)
    )
    camera = to_world(raw.astype(np.float32).astype(np.float64))[view : view + 1]
    full, empty = (
        render_room(each, camera, size, details["supersample"])[0].astype(np.int16)
        for each in (room, replace(room, objects=()))
    )
    stored = np.empty((1, size, size, 3), np.uint8)
    dataset.decode_into(scene, [view], stored)
    error = float(np.abs(full - stored[0]).mean())
    if error > 10:  # JPEG: 2 to 5
        raise SystemExit(
            f"{dataset.folder}: scene {scene} rendered again differs by {error:.1f} levels, expected JPEG's"
        )
    changed = (np.abs(full - empty).max(2) >= _LEAST_CHANGE).reshape(side, size // side, side, size // side)
    covered: NDArray[np.bool_] = changed.mean((1, 3)) >= 0.5
    return covered


@torch.no_grad()
def errors(run: Path, context: int) -> Iterator[tuple[Squares, Squares]]:
    """Yield the errors of prediction and nearest view of each test scene of a run."""
    model = load_model(run)
    dataset = open_dataset(read_facts(run).shards, "test")
    questions = make_questions(
        scene_set=dataset.manifest.scene_set,
        fingerprint=dataset.fingerprint,
        split="test",
        scenes=len(dataset),
        views=dataset.layout.views,
        context=context,
    )
    side = model.config.frame_size
    loader = SceneLoader(
        dataset.folder,
        split="test",
        samples=questions.samples(context),
        batch_size=_BATCH,
        epochs=1,
        frame_size=side,
        tail="exact",
    )
    for batch in loader:
        inputs = to_device(batch, torch.device("cpu"))
        frames = model.predict_mean(inputs.context, inputs.query).clamp(0, 1)
        nearest = nearest_view(inputs.context, inputs.query)
        for row, (scene, view) in enumerate(zip(batch.scenes.tolist(), batch.views[:, 0].tolist())):
            mask = torch.from_numpy(object_mask(dataset, scene, view, side))
            if mask.sum() >= _LEAST_PIXELS:
                target = inputs.target[row]
                yield _squares(frames[row], target, mask), _squares(nearest[row], target, mask)


def _squares(frame: Tensor, target: Tensor, mask: Tensor) -> Squares:
    error = (frame - target).square().mean(0)
    return Squares(float(error[mask].mean()), float(error[~mask].mean()))


def _psnr(values: list[float]) -> str:
    found = np.array(values)
    return f"{-10 * np.log10(found).mean():6.2f} / {-10 * np.log10(found.mean()):5.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="runs of gqn train on a rendered rooms set")
    parser.add_argument("--context", type=int, default=3, help="context views")
    arguments = parser.parse_args()
    print(f"{arguments.context} context views; dB, mean over scenes / of the mean squared error")
    for run in arguments.runs:
        found = [*errors(run, arguments.context)]
        print(f"{run}: {len(found)} test scenes with visible objects")
        for name, column in (("prediction", 0), ("nearest view", 1)):
            of_objects, of_rest = ([pair[column][part] for pair in found] for part in (0, 1))
            print(f"  {name:14} objects {_psnr(of_objects)}   rest {_psnr(of_rest)}")


if __name__ == "__main__":
    main()
