"""The pictures of `gqn sample`, still and moving: each reads a run and a dataset, and writes one file.

Shapes: B samples, N frames of a walk, S prior samples, L steps, Z channels of a latent, P numbers of a pose,
R channels of the representation, H = W the side of a frame, h = w = H/4 that of the maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gqn_data.errors import RunMismatch
from gqn_data.io.pictures import picture_kind, write_picture
from gqn_data.progress import bar
from gqn_data.sampling.views import check_context, choose_views
from gqn_data.schema.cameras import poses_of
from gqn_model.checkpoint.checkpoint import Step
from gqn_model.checkpoint.load import load_run
from gqn_model.data import check_order, fixed_batches
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Context, pixels, to_device
from gqn_model.model.noise import CAMERA_PATH, question_noise
from gqn_model.visualize.camera_path import CameraPath, find_camera_path
from gqn_model.visualize.prediction_grid import prediction_picture
from gqn_model.visualize.video import check_animation, write_animation
from gqn_model.visualize.walk_frames import Scenery, walk_pictures

if TYPE_CHECKING:
    from gqn_data.schema.catalog import Split
    from gqn_model.config import Config

# Frames of a walk that are generated at a time.
_TOGETHER = 32


def write_predictions(
    run: Path,
    shards: str,
    output: Path,
    *,
    scenes: int = 8,
    context: int = 0,
    samples: int = 2,
    split: Split = "test",
    seed: int = 0,
    step: Step = None,
    device: str = "auto",
) -> None:
    """Writes a picture of predictions: a column a scene, the truth above what the prior predicts.

    Args:
        run: the run's folder.
        shards: the dataset.
        output: the file; its ending tells the format.
        scenes: columns, from the start of the split.
        context: context views; 0: the largest number that the run was trained with.
        samples: prior samples shown.
        split: train or test.
        seed: of the choice of views, and of the noise.
        step: of which checkpoint; None: of the newest, `best`: of the best.
        device: as in the configuration.

    Raises:
        OptionError: the ending is none that we write.
    """
    picture_kind(output)  # told before the work, not after it
    model, checkpoint, place = load_run(run, step, device)
    context = context or checkpoint.config.training.context_max
    batches = fixed_batches(shards, checkpoint.config, split=split, context=context, batch_size=scenes, seed=seed)
    check_order(batches, shards, checkpoint.pose_order)
    try:
        batch = next(iter(batches), None)
    finally:
        batches.close()
    if batch is None:
        raise RunMismatch(f"{shards}: no scenes in its split {split}; expected at least one")
    title = f"{batches.scene_set}, {split} scenes, after {checkpoint.step} steps"
    image = prediction_picture(model, to_device(batch, place), title, columns=scenes, samples=samples, seed=seed)
    write_picture(np.asarray(image), output)


def write_walk(
    run: Path,
    shards: str,
    output: Path,
    *,
    scene: int = 0,
    frames: int = 0,
    rate: float = 15.0,
    context: int = 0,
    samples: int = 1,
    split: Split = "test",
    seed: int = 0,
    step: Step = None,
    device: str = "auto",
) -> CameraPath:
    """Writes a walk around a scene as a moving picture, and gives the path.

    The path comes from the scene's own cameras (`find_camera_path`). At every frame of it the network is asked with the
    same context views and the same noise, so that what changes is the camera alone and the picture does not flicker.

    Args:
        run: the run's folder.
        shards: the dataset.
        output: the file, .gif or .mp4.
        scene: number in the split.
        frames: of the walk; 0: as many as suit the path.
        rate: frames a second.
        context: context views; 0: the largest number that the run was trained with.
        samples: prior samples shown, each with its noise held, beside the prediction with all latents at their mean.
        split: train or test.
        seed: of the choice of context views, and of the noise.
        step: of which checkpoint; None: of the newest, `best`: of the best.
        device: as in the configuration.

    Raises:
        OptionError: an ending that we do not write, a scene that is not there, or cameras of unknown numbers.
        RunMismatch: the dataset does not fit the run.
    """
    check_animation(output)
    model, checkpoint, place = load_run(run, step, device)
    asked = fixed_batches(shards, checkpoint.config, split=split, context=1, batch_size=1, seed=seed)
    check_order(asked, shards, checkpoint.pose_order)
    asked.close()
    views, cameras, fields = _whole_scene(shards, checkpoint.config, split, scene)
    walk = find_camera_path(cameras, fields, frames)
    low, _ = check_context((context or min(checkpoint.config.training.context_max, len(views) - 1),) * 2, len(views))
    _, *chosen = choose_views(np.array([scene]), views=len(views), context=(low, low), seed=seed, epoch=0).views[0]
    given = Context(
        frames=pixels(torch.from_numpy(views[chosen])[None].to(place)),
        poses=torch.from_numpy(poses_of(cameras[chosen], fields))[None].to(place),
        mask=torch.ones(1, low, dtype=torch.bool, device=place),
    )
    query = torch.from_numpy(poses_of(walk.cameras.astype(np.float32), fields)).to(place)
    held = question_noise(model.config, scene, seed, max(1, samples), CAMERA_PATH).to(place)
    ways = {"mean latents": torch.zeros_like(held[0])}
    ways |= {f"sample {number + 1}" if samples > 1 else "a sample": held[number] for number in range(samples)}
    with bar(len(ways) * len(query), "frame", "walking") as progress:
        panels = {}
        for caption, noise in ways.items():
            drawn = along(model, given, query, noise)
            panels[caption] = (drawn.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            progress.update(len(query))
    scenery = Scenery(
        title=f"{asked.scene_set}, {split} scene {scene}, after {checkpoint.step} steps",
        recorded=cameras.astype(np.float64),
        context=[int(view) for view in chosen],
        frames=views[chosen],
    )
    write_animation(list(walk_pictures(walk, scenery, panels)), output, rate)
    return walk


@torch.inference_mode()
def along(model: GQN, context: Context, query: Tensor, noise: Tensor) -> Tensor:
    """Predictions of one scene at many poses from the same context and noise, (N, 3, H, W); the context is read once.

    Args:
        model: the network.
        context: the observed views of the scene, a batch of one.
        query: (N, P).
        noise: (L, Z, h, w), standard normal; zeros take the mean of the prior at each step.
    """
    first = model.encode(context, query[:1])
    parts = []
    for some in torch.split(query, _TOGETHER):
        static = first.repeat(len(some), 1, 1, 1)
        static[:, : some.shape[1]] = some[:, :, None, None]
        parts.append(model.generate(static, noise[:, None].expand(-1, len(some), -1, -1, -1)))
    return torch.cat(parts)


def _whole_scene(
    shards: str, config: Config, split: Split, scene: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], tuple[str, ...]]:
    """All frames of a scene, as the network takes them, uint8 (V, H, W, 3); its cameras; the names of their numbers."""
    from gqn_data.loader import SceneLoader

    loader = SceneLoader(
        shards,
        split=split,
        batch_size=1,
        context="all",
        scenes=[scene],
        shuffle=False,
        epochs=1,
        poses="raw",
        frame_size=config.model.frame_size,
        remote="range",
        cache=config.training.cache or None,
        cache_gb=config.training.cache_gb or None,
    )
    try:
        batch = next(iter(loader))
        return batch.frames[0].numpy().copy(), batch.poses[0].numpy().copy(), loader.pose_fields
    finally:
        loader.close()
