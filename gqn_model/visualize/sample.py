"""Pictures and animations of `gqn sample`: each function reads a run and a dataset, and writes one file.

Shapes: N frames of a walk, V views of a scene, L generation steps, Z latent channels, P numbers per pose, H = W frame
size, h = w = H/4 map size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gqn_data.counts import as_count
from gqn_data.errors import OptionError, RunMismatch
from gqn_data.io.paths import DatasetPath, parse_dataset_path
from gqn_data.io.pictures import check_plot, figure_kind, write_figure, write_picture
from gqn_data.progress import bar, message
from gqn_data.sampling.views import check_context, choose_views
from gqn_data.schema.cameras import poses_of
from gqn_model.checkpoint.checkpoint import Step
from gqn_model.checkpoint.load import LoadedRun, load_run
from gqn_model.checkpoint.run_folder import DatasetMatch, check_distinct, match_dataset, run_labels
from gqn_model.config import MOST_FRAMES, MOST_SAMPLES, MOST_SCENES, MOST_SEED
from gqn_model.data import bounded, check_order, check_same_frames, fixed_batches, one_pass, with_geometry_of
from gqn_model.model.contract import Network
from gqn_model.model.inputs import Context, pixels, to_device
from gqn_model.model.noise import CAMERA_PATH, question_noise
from gqn_model.visualize.camera_path import CameraPath, find_camera_path
from gqn_model.visualize.prediction_grid import prediction_figure, prediction_picture
from gqn_model.visualize.video import check_animation, write_animation
from gqn_model.visualize.walk_frames import WalkScene, draw_walk

if TYPE_CHECKING:
    from gqn_data.schema.catalog import Split
    from gqn_model.config import Config

# Frames of a walk generated at a time.
_FRAMES_AT_ONCE = 32


def write_predictions(
    runs: Path | Sequence[Path],
    shards: str | DatasetPath,
    output: Path,
    *,
    scenes: int = 8,
    context: int = 0,
    samples: int = 2,
    split: Split = "test",
    seed: int = 0,
    step: Step = None,
    device: str = "auto",
    other_set: bool = False,
    layout: Literal["grid", "column"] | None = None,
) -> None:
    """Write a picture of predictions: the ground truth next to the predictions of each run.

    A `grid` has one column per scene, with samples. A `column` is a figure for a column of text: one row per scene,
    with the context in a strip, the ground truth and one prediction per run.

    Args:
        runs: the run's folder, or those of several runs, whose predictions are shown below each other.
        shards: the dataset.
        output: the file; its extension sets the format.
        scenes: number of scenes, from the start of the split.
        context: context views; 0 for the most in training, of several runs the least such number.
        samples: prior samples shown in a grid.
        split: train or test.
        seed: seed of the choice of views, and of the noise.
        step: checkpoint to use: a step, `best`, or None for the newest.
        device: as in the configuration.
        other_set: allow a dataset of another scene set than in training.
        layout: `grid` or `column`; None for column in a PDF or SVG, grid in a PNG or JPEG.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        ExtraMissing: matplotlib, which draws a column, is not installed.
        OptionError: the file extension is not supported, a number is not possible, or a run is given twice.
        RunMismatch: runs see other frames of the dataset, or it does not fit a run, has another scene set, or lacks
            scenes in the split.
    """
    shards = parse_dataset_path(shards)
    # Before the work, so that a mistake shows at once.
    layout = _layout_of(output, layout)
    scenes, samples = as_count("scenes", scenes, 1, MOST_SCENES), as_count("samples", samples, 0, MOST_SAMPLES)
    context, seed = as_count("context", context, 0), as_count("seed", seed, 0, MOST_SEED)
    paths = [runs] if isinstance(runs, Path) else list(runs)
    check_distinct(paths)
    labels = run_labels(paths) if len(paths) > 1 else [""]
    models: dict[str, Network] = {}
    loaded: list[LoadedRun] = []
    for label, run in zip(labels, paths, strict=True):
        one = load_run(run, step, device)
        match = match_dataset(shards, one.checkpoint.scene_set, one.checkpoint.fingerprint, other_set=other_set)
        model, note = with_geometry_of(one.model, shards, match)
        if note:
            message(note)
        loaded.append(one)
        steps = f"after {one.checkpoint.step} steps{_trained_on(match)}"
        models[label and f"{label}, {steps}"] = model
    first = loaded[0]
    check_same_frames({run: one.checkpoint.config for run, one in zip(paths, loaded, strict=True)}, shards)
    context = context or min(one.checkpoint.config.training.context_max for one in loaded)
    shards = bounded(shards, scenes)
    batches = fixed_batches(shards, first.checkpoint.config, split=split, context=context, batch_size=scenes, seed=seed)
    for one in loaded:
        check_order(batches, shards, one.checkpoint.pose_order)
    try:
        batch = next(iter(batches), None)
    finally:
        batches.close()
    if batch is None:
        raise RunMismatch(f"{shards}: 0 scenes in the split {split}, expected at least 1")
    inputs = to_device(batch, first.device)
    if layout == "column":
        columns = dict(zip((label or "prediction" for label in labels), models.values(), strict=True))
        write_figure(prediction_figure(columns, inputs, rows=scenes, seed=seed), output)
        return
    title = f"{batches.scene_set}, {split} scenes" + ("" if len(paths) > 1 else f", {steps}")
    image = prediction_picture(models, inputs, title, columns=scenes, samples=samples, seed=seed)
    write_picture(np.asarray(image), output)


def _layout_of(output: Path, layout: Literal["grid", "column"] | None) -> Literal["grid", "column"]:
    """Return the layout of a file, and raise if it cannot be written."""
    vector = figure_kind(output) in ("PDF", "SVG")
    if layout == "grid" and vector:
        raise OptionError(f"{output}: a grid is a .png or .jpg, found {output.suffix}; pass layout='column'")
    layout = layout or ("column" if vector else "grid")
    if layout == "column":
        check_plot(output, "a .png without layout='column' does not need it")
    return layout


def write_walk(
    run: Path,
    shards: str | DatasetPath,
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
    other_set: bool = False,
) -> CameraPath:
    """Write a walk through a scene as an animation, and return its camera path.

    The path is derived from the scene's cameras (`find_camera_path`). All frames have the same context views and noise:
    only the camera changes, so any flicker comes from the network. A model that predicts the mean has one panel. Beside
    the predictions stands the recorded view that is nearest to the camera.

    Args:
        run: the run's folder.
        shards: the dataset.
        output: the file, .gif or .mp4.
        scene: number of the scene in the split.
        frames: number of frames; 0 for a number that suits the path.
        rate: frames per second.
        context: context views; 0 for the most in training.
        samples: prior samples shown, next to the prediction with all latents at their mean.
        split: train or test.
        seed: seed of the choice of context views, and of the noise.
        step: checkpoint to use: a step, `best`, or None for the newest.
        device: as in the configuration.
        other_set: allow a dataset of another scene set than in training.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        OptionError: the file extension is not supported, a number is not possible, or no walk follows from its
            cameras.
        RunMismatch: the dataset does not fit the run, or has another scene set.
    """
    shards = parse_dataset_path(shards)
    check_animation(output)
    frames, samples = as_count("frames", frames, 0, MOST_FRAMES), as_count("samples", samples, 0, MOST_SAMPLES)
    context, seed = as_count("context", context, 0), as_count("seed", seed, 0, MOST_SEED)
    model, checkpoint, chosen_device = load_run(run, step, device)
    match = match_dataset(shards, checkpoint.scene_set, checkpoint.fingerprint, other_set=other_set)
    model, note = with_geometry_of(model, shards, match)
    if note:
        message(note)
    shards = bounded(shards, max(1, as_count("scene", scene) + 1))
    dataset = fixed_batches(shards, checkpoint.config, split=split, context=1, batch_size=1, seed=seed)
    check_order(dataset, shards, checkpoint.pose_order)
    dataset.close()
    geometry = dataset.dataset.manifest.geometry
    # The network's sign, if it has one: given in training, if the dataset does not state it.
    yaw_sign = model.config.yaw_sign or (1 if geometry is None else geometry.yaw_sign)
    scene = as_count("scene", scene, 0, dataset.scenes - 1)
    views, cameras, fields = read_scene(shards, checkpoint.config, split, scene)
    path = find_camera_path(cameras, fields, frames, yaw_sign)
    count, _ = check_context((context or min(checkpoint.config.training.context_max, len(views) - 1),) * 2, len(views))
    _, *chosen = choose_views(np.array([scene]), views=len(views), context=(count, count), seed=seed, epoch=0).views[0]
    observed = Context(
        frames=pixels(torch.from_numpy(views[chosen])[None].to(chosen_device)),
        poses=torch.from_numpy(poses_of(cameras[chosen], fields))[None].to(chosen_device),
        mask=torch.ones(1, count, dtype=torch.bool, device=chosen_device),
    )
    query = torch.from_numpy(poses_of(path.cameras.astype(np.float32), fields)).to(chosen_device)
    latents: dict[str, Tensor | None] = {"prediction": None}
    if model.draws_samples:
        noise = question_noise(model.config, scene, seed, max(1, samples), CAMERA_PATH).to(chosen_device)
        latents = {"mean latents": None}
        latents |= {f"sample {number + 1}" if samples > 1 else "a sample": noise[number] for number in range(samples)}
    with bar(len(latents) * len(query), "frame", "walking") as progress:
        panels = {}
        for caption, one in latents.items():
            predicted = predict_along(model, observed, query, one)
            panels[caption] = (predicted.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            progress.update(len(query))
    walk_scene = WalkScene(
        title=f"{dataset.scene_set}, {split} scene {scene}, after {checkpoint.step} steps{_trained_on(match)}",
        recorded=cameras.astype(np.float64),
        context=[int(view) for view in chosen],
        frames=views,
        yaw_sign=yaw_sign,
    )
    write_animation(list(draw_walk(path, walk_scene, panels)), output, rate)
    return path


def _trained_on(match: DatasetMatch) -> str:
    """Return the end of a title: what a network was trained on, if that is another dataset."""
    if match.scene_set != match.trained_set:
        return f" on {match.trained_set}"
    return " on another dataset" if match.other else ""


@torch.inference_mode()
def predict_along(model: Network, context: Context, query: Tensor, noise: Tensor | None) -> Tensor:
    """Predict a scene at many poses with the same context and noise, (N, 3, H, W).

    Args:
        model: the network.
        context: the observed views of the scene, a batch of one.
        query: (N, P), the query poses.
        noise: (L, Z, h, w), standard normal, of a prior sample; None for the prediction without randomness.
    """
    parts = []
    for poses in torch.split(query, _FRAMES_AT_ONCE):  # the context is encoded once for these
        if noise is not None:
            drawn = noise[:, None].expand(-1, len(poses), -1, -1, -1)
            parts.append(model.predict(context, poses[None], drawn)[0])
        else:
            parts.append(model.predict_mean(context, poses[None])[0])
    return torch.cat(parts)


def read_scene(
    shards: DatasetPath, config: Config, split: Split, scene: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], tuple[str, ...]]:
    """Read a scene: frames at the network's size, uint8 (V, H, W, 3); cameras; names of a camera's numbers."""
    loader = one_pass(shards, config, split=split, batch_size=1, context="all", scenes=[scene], poses="raw")
    try:
        batch = next(iter(loader))
        return batch.frames[0].numpy().copy(), batch.poses[0].numpy().copy(), loader.pose_fields
    finally:
        loader.close()
