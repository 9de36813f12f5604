"""Small scenes and a source of batches without a dataset, for tests of the trainer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from gqn_data.loader import Batch
from gqn_data.loader.loader import TargetsBatch
from gqn_data.schema.cameras import POSE_FIELDS
from gqn_model.config import Config, resolve
from gqn_model.loggers import Record
from gqn_model.model.contract import Network, build_network
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Inputs, to_device


def scenes_of(count: int, views: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames, uint8 (count, views, size, size, 3), of a bar shifted by the yaw, and poses (count, views, 7)."""
    generator = torch.Generator().manual_seed(seed)
    yaw = torch.rand(count, views, generator=generator) * 2 * math.pi
    colours = torch.randint(40, 256, (count, 2, 3), generator=generator)
    at = torch.arange(size) / size * 2 * math.pi
    bar = torch.cos(at[None, None] - yaw[..., None]) > 0.5  # (count, views, size)
    frames = torch.where(bar[..., None], colours[:, None, None, 0], colours[:, None, None, 1])
    frames = frames[:, :, None].expand(-1, -1, size, -1, -1).to(torch.uint8).contiguous()
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    poses = torch.stack([yaw.cos(), yaw.sin(), zero, yaw.sin(), yaw.cos(), zero, one], -1)
    return frames, poses


def batch_of(frames: torch.Tensor, poses: torch.Tensor, slots: int, seed: int, targets: int = 1) -> Batch:
    """Return a batch of `targets` queries per scene, with 1 to `slots` context views."""
    generator = torch.Generator().manual_seed(seed)
    count, views = poses.shape[:2]
    order = torch.rand(count, views, generator=generator).argsort(1)[:, : slots + targets]
    many = torch.randint(1, slots + 1, (count,), generator=generator)
    mask = torch.arange(slots)[None] < many[:, None]
    rows = torch.arange(count)[:, None]
    there = torch.cat([torch.ones(count, targets, dtype=torch.bool), mask], 1)
    batch = Batch(
        frames=frames[rows, order] * there[:, :, None, None, None],
        poses=poses[rows, order] * there[:, :, None],
        views=order.masked_fill(~there, -1),
        scenes=rows[:, 0],
        datasets=torch.zeros_like(rows[:, 0]),
    )
    return batch if targets == 1 else TargetsBatch(*batch, queries=order[:, :targets])


class Source:
    """Endless stream of batches, each a function of its position."""

    fingerprint = "synthetic"
    pose_fields = POSE_FIELDS
    scene_set = "bars"
    waited = 0.0

    def __init__(self, config: Config, *, scenes: int = 8, broken_from: int | None = None) -> None:
        self.frames, self.poses = scenes_of(scenes, 5, config.model.frame_size)
        self.size, self.place, self.broken_from = config.training.batch_size, 0, broken_from
        self.targets = config.training.targets

    def __iter__(self) -> Iterator[Batch]:
        while True:
            chosen = torch.arange(self.place * self.size, (self.place + 1) * self.size) % len(self.frames)
            batch = batch_of(self.frames[chosen], self.poses[chosen], 3, seed=self.place, targets=self.targets)
            if self.broken_from is not None and self.place >= self.broken_from:
                batch = batch._replace(poses=batch.poses * math.nan)
            self.place += 1
            yield batch

    def state_dict(self) -> dict[str, int | str]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        self.place = int(state["place"])

    def close(self) -> None:
        """Do nothing."""


SMALL: dict[str, object] = {
    "frame_size": 16,
    "batch_size": 4,
    "context_max": 3,
    "learning_rate_steps": 40,
    "threads": 1,
    "device": "cpu",
    "logger": "none",
    "workers": 0,
}
SMALL_NETWORKS: dict[str, dict[str, object]] = {
    "gqn": {
        "representation_channels": 16,
        "hidden": 8,
        "canvas": 6,
        "core_steps": 3,
        "look_channels": 3,
        "sigma_steps": 20,
    },
    "plane_sweep": {"planes": 4, "width": 8, "dim": 16, "depth": 1, "heads": 2, "targets": 2, "precision": "float32"},
}
# Of the synthetic scenes, whose cameras stand on a ring of radius 1.
LENS: dict[str, object] = {"field_of_view": 60.0, "yaw_sign": 1, "near": 0.5, "far": 3.0}
PRESET_OF = {"gqn": "tiny", "plane_sweep": "sweep_tiny"}


def small(*, model: str = "gqn", **changes: object) -> Config:
    """Return a configuration small enough for tests; of the plane sweep with the lens of the synthetic scenes."""
    lens = LENS if model == "plane_sweep" else {}
    return resolve(PRESET_OF[model], (), SMALL | SMALL_NETWORKS[model] | lens | changes)


def small_inputs(config: Config, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return a batch of 3 samples with 3 slots for context views."""
    frames, poses = scenes_of(3, 5, config.model.frame_size, seed)
    return to_device(batch_of(frames, poses, 3, seed), torch.device("cpu"), dtype)


def small_model(config: Config, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> GQN:
    """Return a new network."""
    torch.manual_seed(seed)
    return GQN(config.model).to(dtype)


def small_network(config: Config, *, seed: int = 0) -> Network:
    """Return a new network of any model."""
    torch.manual_seed(seed)
    return build_network(config.model)


class Lines:
    """Logger that keeps its records."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def log(self, record: Record) -> None:
        self.records.append(record)

    def picture(self, step: int, image: object) -> None:
        """Discard the picture."""

    def close(self) -> None:
        """Do nothing."""
