"""Input of the benchmarks: rendered ring rooms as TFRecords, and tables that compare two rates.

Rendering thousands of scenes would take minutes. A few hundred are rendered and their records repeated; each copy is
still read, checked and copied separately.
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
    """Yield a raw folder of training scenes, 5000 per file; it is temporary unless `folder` is given."""
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
    """Yield a raw folder of any rendered set, as `raw_rooms`, with `rendered` distinct scenes."""
    with tempfile.TemporaryDirectory() as scratch:
        root = folder or Path(scratch)
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
    """Return `folder`, created or emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def side_by_side(
    yardstick: Callable[[], float], ours: Callable[[], float], runs: int
) -> tuple[float, float, float, float, float]:
    """Run both alternately.

    Returns:
        Medians of both rates, then median, minimum and maximum of the ratio ours / yardstick.
    """
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
    """Return a row of the table; `aim` is the smallest ratio that is acceptable, 0 for none."""
    yardstick, ours, ratio, low, high = figures
    spread = f"{ratio:5.2f} ({low:.2f} to {high:.2f})"
    return f"{name:<34} {yardstick:>10,.0f} {ours:>10,.0f} {unit:<9} {spread}" + (f"  at least {aim}" if aim else "")


HEADER = f"{'':<34} {'yardstick':>10} {'ours':>10} {'':<9} ratio (range)"
