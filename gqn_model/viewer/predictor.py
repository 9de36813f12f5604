"""Predictions of a run for the viewer: the network, its context encoded once, and newer checkpoints."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gqn_data.errors import CheckpointError, GQNError
from gqn_data.io.paths import DatasetPath
from gqn_data.schema.cameras import poses_of
from gqn_data.schema.catalog import Split
from gqn_data.schema.geometry import Geometry
from gqn_data.viewer.gallery import Views
from gqn_model.checkpoint.best import read_best
from gqn_model.checkpoint.checkpoint import Checkpoint, Step
from gqn_model.checkpoint.files import checkpoint_path, checkpoint_steps
from gqn_model.checkpoint.load import load_run
from gqn_model.checkpoint.run_folder import match_dataset
from gqn_model.data import check_order, fixed_batches, with_geometry_of
from gqn_model.model.contract import Network
from gqn_model.model.distributions import psnr
from gqn_model.model.inputs import Context, pixels
from gqn_model.model.noise import CAMERA_PATH, question_noise
from gqn_model.model.plane_sweep import PlaneSweep
from gqn_model.visualize.sample import read_scene


class Prediction(NamedTuple):
    """Frames at a query, float32 on the CPU in [0, 1], as (H, W, 3).

    Attributes:
        frame: the prediction without randomness.
        samples: prior samples; empty for a model that predicts the mean.
        depth: (H, W), the depth that a plane sweep chose, NaN where it made the colour; None for other models.
    """

    frame: NDArray[np.float32]
    samples: list[NDArray[np.float32]]
    depth: NDArray[np.float32] | None


class Predictor:
    """A run that answers queries. One thread may use it.

    Args:
        run: the run's folder.
        shards: the dataset.
        step: checkpoint to use: a step, `best`, or None for the newest.
        device: as in the configuration.
        other_set: allow a dataset of another scene set than in training.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        RunMismatch: the dataset does not fit the run, or has another scene set.
    """

    def __init__(
        self, run: Path, shards: DatasetPath, *, step: Step = None, device: str = "auto", other_set: bool = False
    ) -> None:
        self._run, self._shards, self._wanted, self._device_name = run, shards, step, device
        self._other_set = other_set
        self.note = ""
        self._identity = self._find()
        self._model, self.checkpoint = self._load()
        self._encoded: tuple[Hashable, Context, Any] | None = None
        batches = fixed_batches(
            shards, self.checkpoint.config, split=self._first_split(), context=1, batch_size=1, seed=0
        )
        check_order(batches, shards, self.checkpoint.pose_order)
        batches.close()

    @property
    def has_samples(self) -> bool:
        """Whether the model has a distribution to draw samples from."""
        return self._model.draws_samples

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return self.checkpoint.config.model.model

    @property
    def context(self) -> int:
        """The most context views in training."""
        return self.checkpoint.config.training.context_max

    @property
    def geometry(self) -> Geometry | None:
        """The geometry that the network predicts with; None for a model without one."""
        config = self._model.config
        if not self._model.needs_geometry:
            return None
        return Geometry(
            field_of_view=config.field_of_view, yaw_sign=config.yaw_sign, depth_range=(config.near, config.far)
        )

    def read(self, split: Split, scene: int) -> Views:
        """Return the views of a scene at the network's frame size."""
        frames, cameras, _ = read_scene(self._shards, self.checkpoint.config, split, scene)
        return Views(frames, cameras)

    def refresh(self) -> str:
        """Load the checkpoint if another one has taken its place, and return a line on that; empty if none has.

        The weights in use are kept if the new ones cannot be loaded.
        """
        found = self._find()
        if found == self._identity:
            return ""
        self._identity = found  # one line for each change
        before = self.checkpoint.step
        if found is None:
            return f"{self._run}: the checkpoint of step {before} was removed; it is shown from memory"
        try:
            model, checkpoint = self._load()
            if checkpoint.config.model != self.checkpoint.config.model:
                raise CheckpointError(f"{self._run}: another network, expected the one shown. Start the viewer again")
        except GQNError as error:
            return f"step {before} is shown still: {error}"
        self._model, self.checkpoint, self._encoded = model, checkpoint, None
        if checkpoint.step == before:
            return f"{self._run}: the checkpoint of step {before} was replaced; the new one is shown"
        return f"{self._run}: step {checkpoint.step} is shown now, after step {before}"

    @torch.inference_mode()
    def predict(
        self, key: Hashable, views: Views, context: Sequence[int], query: NDArray[np.floating], samples: int
    ) -> Prediction:
        """Predict the frame at a query.

        Args:
            key: distinguishes scenes; the encoding of the last context is kept.
            views: the views of the scene.
            context: numbers of the context views, at least one.
            query: the camera x, y, z, yaw, pitch: (5,).
            samples: prior samples to draw, the same at every query; ignored by a model without a distribution.

        Raises:
            CheckpointError: the prediction is not finite.
        """
        model = self._model
        device = next(model.parameters()).device
        observed, encoded = self._observe((key, tuple(context)), views, context, device)
        pose = torch.from_numpy(poses_of(query.astype(np.float32)))[None, None].to(device)  # (1, 1, P)
        depth = drawn = None
        if model.draws_samples:
            drawn = question_noise(model.config, 0, 0, max(1, samples), CAMERA_PATH)[:samples].to(device)
        if isinstance(model, PlaneSweep):
            frames, depths = model.render_with_depth(encoded, pose)
            depth = depths[0, 0].float().cpu().numpy()
            if drawn is not None and samples:
                frames = torch.cat([frames, model.draw(encoded, pose, drawn).transpose(0, 2)[0]], 1)
        elif drawn is not None:
            # Zeros as noise take the prior's mean at each step.
            noise = torch.cat([drawn.new_zeros(1, *drawn.shape[1:]), drawn]).movedim(0, 1)
            frames = model.predict(observed, pose.expand(-1, 1 + samples, -1), noise)
        else:
            frames = model.predict_mean(observed, pose)
        if not frames.isfinite().all():
            raise CheckpointError(
                f"{self._run}: step {self.checkpoint.step} predicts NaN or infinity at this camera, expected finite "
                "colours. Choose a nearer camera, or another checkpoint with --step"
            )
        shown = _to_numpy(frames[0])
        return Prediction(shown[0], list(shown[1:]), depth)

    def _observe(
        self, key: Hashable, views: Views, context: Sequence[int], device: torch.device
    ) -> tuple[Context, Any]:
        """Return the context, and its encoding by a plane sweep, from the last call if they are the same."""
        if self._encoded is None or self._encoded[0] != key:
            chosen = list(context)
            observed = Context(
                frames=pixels(torch.from_numpy(views.frames[chosen])[None].to(device)),
                poses=torch.from_numpy(poses_of(views.cameras[chosen]))[None].to(device),
                mask=torch.ones(1, len(chosen), dtype=torch.bool, device=device),
            )
            encoded = self._model.encode(observed) if isinstance(self._model, PlaneSweep) else None
            self._encoded = key, observed, encoded
        return self._encoded[1:]

    def _first_split(self) -> Split:
        from gqn_data.dataset import open_dataset

        return open_dataset(self._shards).split

    def _find(self) -> tuple[int, ...] | None:
        """Return what distinguishes the checkpoint that would be loaded now from others; None if it is missing."""
        step: int | None
        if self._wanted == "best":
            try:
                best = read_best(self._run)
            except CheckpointError:
                return ()  # loading says what is wrong
            step = None if best is None else best.step
        else:
            step = self._wanted if self._wanted is not None else max(checkpoint_steps(self._run), default=None)
        if step is None:
            return None
        try:
            found = checkpoint_path(self._run, step).stat()
        except OSError:
            return None
        return step, found.st_ino, found.st_size, found.st_mtime_ns

    def _load(self) -> tuple[Network, Checkpoint]:
        model, checkpoint, _ = load_run(self._run, self._wanted, self._device_name)
        match = match_dataset(self._shards, checkpoint.scene_set, checkpoint.fingerprint, other_set=self._other_set)
        model, self.note = with_geometry_of(model, self._shards, match)
        return model, checkpoint


def psnr_of(frame: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB of a frame (H, W, 3) in [0, 1] against a true frame of the same shape."""
    error = torch.from_numpy(frame.astype(np.float64) - truth / 255).square().mean()
    return float(psnr(error))


def _to_numpy(frames: Tensor) -> NDArray[np.float32]:
    """Return frames (N, 3, H, W) as (N, H, W, 3) in [0, 1] on the CPU."""
    found: NDArray[np.float32] = frames.float().clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return found
