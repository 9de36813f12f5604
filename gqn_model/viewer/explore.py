"""`gqn explore`: predictions of a run in the browser."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame
from gqn_data.io.paths import DatasetPath, RenderAddress
from gqn_data.viewer.gallery import RENDERED_SCENES, Gallery
from gqn_data.viewer.page import Pages
from gqn_data.viewer.server import address_of, open_server, wait_for_interrupt
from gqn_model.checkpoint.checkpoint import Step
from gqn_model.viewer.controls import Controls
from gqn_model.viewer.page import RunPage
from gqn_model.viewer.predictor import Predictor
from gqn_model.viewer.recorded import Range

# Scenes whose cameras show where the cameras of a set are.
_SCENES_FOR_RANGE = 20
_SECONDS_BETWEEN_CHECKS = 2.0


def explore(
    run: Path,
    shards: DatasetPath,
    *,
    host: str,
    port: int,
    log: Callable[[str], None],
    opened: Callable[[str], None],
    step: Step = None,
    device: str = "auto",
    other_set: bool = False,
) -> None:
    """Serve the predictions of a run until Ctrl-C. A newer checkpoint replaces the one in use.

    Args:
        run: the run's folder.
        shards: the dataset.
        host: address to listen on.
        port: port; the next free one is taken if it is not free.
        log: receives lines for the user.
        opened: called with the address once the page can be opened.
        step: checkpoint to use: a step, `best`, or None for the newest.
        device: as in the configuration.
        other_set: allow a dataset of another scene set than in training.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        RunMismatch: the dataset does not fit the run, or has another scene set.
        OptionError: the cameras have another meaning, or the address or port cannot be used.
    """
    if isinstance(shards, RenderAddress):
        shards = shards.bounded(RENDERED_SCENES)
    predictor = Predictor(run, shards, step=step, device=device, other_set=other_set)
    gallery = Gallery(shards, predictor.read, first="test", geometry=predictor.geometry)
    for note in filter(None, (gallery.assumption, predictor.note)):
        log(note)
    cameras = _cameras_of(gallery)
    sign = gallery.geometry.yaw_sign
    controls, among = Controls.of(cameras, sign), Range(cameras, sign)
    server = open_server(f"{run.name}, {gallery.scene_set}", host, port, log)
    pages = Pages(
        server,
        log,
        lambda client, worker: RunPage(
            client, gallery, worker, predictor=predictor, controls=controls, among=among, run=run.name
        ),
    )

    def refresh() -> None:
        if line := predictor.refresh():
            log(line)
            for page in list(pages.open.values()):
                page.describe_run()
                page.client.add_notification("Checkpoint", line, auto_close_seconds=10)
                page.ask()

    closed = threading.Event()

    def watch() -> None:
        while not closed.wait(_SECONDS_BETWEEN_CHECKS):
            pages.worker.post((-1, "checkpoint"), refresh)

    threading.Thread(target=watch, name="checkpoints", daemon=True).start()
    try:
        opened(address_of(server))
        wait_for_interrupt()
    finally:
        closed.set()
        pages.worker.close()
        server.stop()


def _cameras_of(gallery: Gallery) -> NDArray[np.float32]:
    """Return the finite cameras (V, 5) of the first scenes; a scene with others is reported when it is chosen.

    Raises:
        CorruptFrame: none is finite.
    """
    dataset = next(iter(gallery.datasets.values()))
    cameras = np.concatenate([dataset.cameras_of(scene) for scene in range(min(len(dataset), _SCENES_FOR_RANGE))])
    finite: NDArray[np.float32] = cameras[np.isfinite(cameras).all(1)]
    if not len(finite):
        raise CorruptFrame(f"{gallery.path}: no camera of the first scenes is finite. List all: gqn-data verify --deep")
    return finite
