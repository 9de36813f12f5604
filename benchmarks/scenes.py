"""What the measurements run on: rendered ring rooms, as TFRecords, in a folder that is used again.

Rendering thousands of scenes takes a minute and is not what is measured: a few hundred are rendered, and their
records repeated until there are enough. Every scene is still read, checked and copied as its own.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SceneSet, find_scene_set
from gqn_data.sources.raw_folder import RawFolder, open_raw_folder
from gqn_data.tfrecord.framing import RecordWriter, read_records

SET = find_scene_set("rooms_ring_camera")
_RENDERED = 300


@contextmanager
def raw_rooms(scenes: int, folder: Path | None = None) -> Iterator[RawFolder]:
    """A raw folder of so many training scenes, 5000 a file; removed afterwards unless `folder` names one to keep."""
    with raw_scenes(SET, scenes, folder) as raw:
        yield raw


@contextmanager
def raw_scenes(
    scene_set: SceneSet,
    scenes: int,
    folder: Path | None = None,
    *,
    rendered: int = _RENDERED,
    views: int | None = None,
    frame_size: int | None = None,
) -> Iterator[RawFolder]:
    """The same of any set that is rendered, in any number of views and pixels; `rendered` scenes are different."""
    with tempfile.TemporaryDirectory() as made:
        root = folder or Path(made)
        raw = root / "raw" / scene_set.name
        train = scene_set.train
        if not (raw / "train").exists():
            render_scene_set(
                root,
                scene_set.name,
                scenes=min(rendered, scenes),
                split="train",
                seed=0,
                views=views,
                frame_size=frame_size,
            )
            files = sorted((raw / "train").glob("*.tfrecord"))
            payloads = [record.payload for file in files for record in read_records(file)]
            for number in range(1, -(-scenes // train.scenes_in_file(1)) + 1):
                begin = (number - 1) * train.scenes_in_file(1)
                end = min(scenes, number * train.scenes_in_file(1))
                with (raw / "train" / train.file_name(number)).open("wb") as file:
                    writer = RecordWriter(file)
                    for scene in range(begin, end):
                        writer.write(payloads[scene % len(payloads)])
        yield open_raw_folder(raw, scene_set)


def emptied(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def side_by_side(
    yardstick: Callable[[], float], ours: Callable[[], float], runs: int
) -> tuple[float, float, float, float, float]:
    """Runs both in turn; medians of both figures, and the median, least and greatest ratio ours / yardstick."""
    pairs = [(yardstick(), ours()) for _ in range(runs)]
    ratios = [ours / yardstick for yardstick, ours in pairs]
    return (
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def row(name: str, unit: str, figures: tuple[float, float, float, float, float], aim: float) -> str:
    """One line of a table."""
    yardstick, ours, ratio, low, high = figures
    spread = f"{ratio:5.2f} ({low:.2f} to {high:.2f})"
    return f"{name:<34} {yardstick:>10,.0f} {ours:>10,.0f} {unit:<9} {spread}" + (f"  at least {aim}" if aim else "")


HEADER = f"{'':<34} {'yardstick':>10} {'ours':>10} {'':<9} ratio (range)"
