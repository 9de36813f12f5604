"""Batches for training and evaluating, from the loader of `gqn_data`, with what a run chose.

The trainer needs no more of a source of batches than `Batches` says, so that a test can bring its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from gqn_data.errors import RunMismatch
from gqn_model.checkpoint.checkpoint import pose_order
from gqn_model.config import POSE_NUMBERS, Config

if TYPE_CHECKING:
    from gqn_data.cache.policy import Remote
    from gqn_data.loader import Batch, SceneLoader
    from gqn_data.schema.catalog import Split


class Batches(Protocol):
    """A stream of batches that knows its place; `gqn_data.loader.SceneLoader` is one."""

    @property
    def fingerprint(self) -> str:
        """What identifies the dataset."""

    @property
    def scene_set(self) -> str:
        """Name of the scene set."""

    @property
    def pose_fields(self) -> tuple[str, ...]:
        """The names of the numbers of a pose."""

    @property
    def waited(self) -> float:
        """Seconds that batches were not there yet when they were asked for, so far."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the present place on."""

    def state_dict(self) -> dict[str, int | str]:
        """The place: what `load_state_dict` takes to go on behind the last batch given out."""

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Goes to a place."""

    def close(self) -> None:
        """Ends the workers."""


def training_batches(
    shards: str | Path, config: Config, *, rank: int = 0, ranks: int = 1
) -> tuple[SceneLoader, Config]:
    """The endless stream of training batches, and the configuration with what the dataset settled.

    Args:
        shards: a dataset, or an indexed folder of TFRecords; a path or a URL.
        config: frame size and largest context may be open (0).
        rank: whose share of each batch is given out.
        ranks: how many share it.

    Raises:
        RunMismatch: the frame size or the poses that the dataset has are none that the network can take.
    """
    from torch import cuda

    from gqn_data.loader import SceneLoader

    training = config.training
    context = (training.context_min, training.context_max) if training.context_max else None

    def opened(context: tuple[int, int] | None) -> SceneLoader:
        return SceneLoader(
            shards,
            batch_size=training.batch_size,
            context=context,
            seed=training.seed,
            workers=training.workers,
            frame_size=config.model.frame_size or None,
            pin_memory=training.device != "cpu" and cuda.is_available(),
            window=training.window or None,
            remote=cast("Remote", training.remote),
            cache=training.cache or None,
            cache_gb=training.cache_gb or None,
            rank=rank,
            ranks=ranks,
        )

    loader = opened(context)
    if context is None and training.context_min != loader.context[0]:
        most = loader.context[1]
        loader.close()
        if training.context_min > most:
            raise RunMismatch(f"{shards}: context_min is {training.context_min}; possible for this set: 1 to {most}")
        loader = opened((training.context_min, most))
    if loader.frame_size % 4:
        raise RunMismatch(
            f"{shards}: frames of {loader.frame_size} pixels; the network takes multiples of 4: give --frame-size"
        )
    pose = _settled_pose(loader, shards, config)
    settled = replace(
        config,
        model=replace(config.model, frame_size=loader.frame_size, pose_numbers=pose),
        training=replace(training, context_min=loader.context[0], context_max=loader.context[1]),
    )
    return loader, settled


def fixed_batches(
    shards: str | Path, config: Config, *, split: Split, context: int, batch_size: int, seed: int
) -> SceneLoader:
    """One pass over a split in its own order: one query and `context` views a scene, the same every time.

    Args:
        shards: a dataset, or an indexed folder of TFRecords.
        config: with the frame size settled.
        split: train or test.
        context: context views of every sample.
        batch_size: scenes in a batch; the last may have fewer.
        seed: of the choice of query and context.

    Raises:
        RunMismatch: the poses of the dataset are none that the network can take.
    """
    from gqn_data.loader import SceneLoader

    loader = SceneLoader(
        shards,
        split=split,
        batch_size=batch_size,
        context=(context, context),
        shuffle=False,
        epochs=1,
        seed=seed,
        frame_size=config.model.frame_size,
        tail="exact",
        remote="range",  # every scene once, and few of its views: a copy of the whole shard would serve nobody
        cache=config.training.cache or None,
        cache_gb=config.training.cache_gb or None,
    )
    if len(loader.pose_fields) != config.model.pose:
        raise _other_poses(loader, shards, config)
    return loader


def check_order(batches: SceneLoader, shards: str | Path, order: str) -> None:
    """Returns where the numbers of a dataset's poses mean what they meant in a run.

    Args:
        batches: of the dataset.
        shards: the dataset.
        order: of the run's poses, as `checkpoints.pose_order` tells it.

    Raises:
        RunMismatch: they mean something else.
    """
    found = pose_order(batches.pose_fields)
    if found != order:
        batches.close()
        raise RunMismatch(f"{shards}: its poses are {found}, those of the run {order}; give a dataset of such cameras")


def _settled_pose(loader: SceneLoader, shards: str | Path, config: Config) -> int:
    """`pose_numbers`, as the dataset has it; left open for DeepMind's cameras, as in runs that knew no other."""
    found, given = len(loader.pose_fields), config.model.pose_numbers
    if given not in (0, found):
        raise _other_poses(loader, shards, config)
    return given if found == POSE_NUMBERS else found


def _other_poses(loader: SceneLoader, shards: str | Path, config: Config) -> RunMismatch:
    loader.close()
    fields = ", ".join(loader.pose_fields)
    return RunMismatch(
        f"{shards}: poses of {len(loader.pose_fields)} numbers ({fields}); the network takes {config.model.pose}"
    )
