"""The picture of `gqn sample`: reads a run and a dataset, writes one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gqn_data.errors import RunMismatch
from gqn_data.sheet import picture_kind, write_picture
from gqn_model.batches import check_order, fixed_batches
from gqn_model.inputs import to_device
from gqn_model.pictures import prediction_picture
from gqn_model.training import load_network

if TYPE_CHECKING:
    from gqn_data.scene_sets import Split


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
    step: int | None = None,
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
        step: of which checkpoint; None: of the newest.
        device: as in the configuration.

    Raises:
        OptionError: the ending is none that we write.
    """
    picture_kind(output)  # told before the work, not after it
    model, checkpoint, place = load_network(run, step, device)
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
