"""Compare rendered frames with real ones: one table for all sets, and a contact sheet per set.

    python -m benchmarks.render_compare ../shared/data -o /tmp/sheets

The folder holds whatever real frames are to hand: pictures in `reference/`, and raw folders of TFRecords. They are read
in place; only the sheets are written (real above, ours below). Behind every figure of the real frames is its 95 %
interval, by bootstrap over scenes. `ok` says that ours is inside, or within 5 levels (means, deviations), 10 % (edges)
or 5 % (bytes of real JPEGs), whichever is wider.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tfrecord.reader import tfrecord_loader

from gqn_data.render import ONE_RAY_SETS, RENDERERS
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SCENE_SETS

Frames = NDArray[np.uint8]  # (scenes, views, height, width, 3)

_SIZE = 64
_QUALITY = 95
_EDGE = 24  # brightness step between neighbouring pixels that counts as an edge


@dataclass(frozen=True)
class Reference:
    """Real frames of one set: file, set, and a function that cuts the picture into scenes and views."""

    file: str
    scene_set: str
    cut: Callable[[Frames], Frames]


def _tiles(picture: Frames, lefts: list[float], tops: list[float], side: float) -> Frames:
    """Cut square tiles from a picture, and resize them to 64 pixels per side."""
    image = Image.fromarray(picture)
    pieces = [
        [
            np.asarray(image.resize((_SIZE, _SIZE), Image.Resampling.BOX, (left, top, left + side, top + side)))
            for left in lefts
        ]
        for top in tops
    ]
    return np.array(pieces)


def _rooms(picture: Frames) -> Frames:
    return _tiles(picture, [192 * k for k in range(6)], [192 * k for k in range(8)], 192)


def _thirty_six(picture: Frames) -> Frames:
    return _tiles(picture, [2 + 66 * k for k in range(6)], [2 + 66 * k for k in range(6)], 64)


def _fifteen(picture: Frames) -> Frames:
    lefts: list[float] = [27, 102, 177, 253, 328, 403, 478, 554, 629, 704, 779, 855, 930, 1005, 1080]
    return _tiles(picture, lefts, [23], 63)


def _panel(left: float) -> Callable[[Frames], Frames]:
    # These frames were enlarged 1.5 times in a figure: usable for colours and sizes, not for edges.
    lefts = [left + offset for offset in (2.5, 101, 200.5, 301)]
    return lambda picture: _tiles(picture, lefts, [49.5, 148.5, 248, 347.5, 447], 96)


_PANELS = "rrc_sm7_rfc_rro_with_one_peers_predictions.png"
REFERENCES = (
    Reference("rooms_ring_camera.png", "rooms_ring_camera", _rooms),
    Reference(_PANELS, "rooms_ring_camera", _panel(0)),
    # "RFC": 128 px, resized to 64 like ours. "RRO", not shown, is rooms-random-objects of E-GQN, not DeepMind's.
    Reference(_PANELS, "rooms_free_camera_with_object_rotations", _panel(1005)),
    Reference("shepard_metzler_5_parts_36_frames.png", "shepard_metzler_5_parts", _thirty_six),
    Reference("shepard_metzler_5_parts_15_views.png", "shepard_metzler_5_parts", _fifteen),
    Reference(_PANELS, "shepard_metzler_7_parts", _panel(502)),
)


_RECORDS = ("mazes_41/mazes", "shepard_metzler_5_parts")  # raw folders, below the folder given
_VIEWS_OF_MAZES = 15  # of 300, evenly spaced
_RESAMPLES = 2000
FIGURES = ("R", "G", "B", "dev R", "dev G", "dev B", "edges %", "JPEG bytes")
_LEVELS, _EDGES, _BYTES = 5.0, 0.10, 0.05


@dataclass(frozen=True)
class Sample:
    """Real frames of one set.

    Attributes:
        name: where they come from.
        scene_set: their set.
        frames: uint8 (scenes, views, height, width, 3).
        sizes: bytes (scenes, views) of the real JPEGs; None for pictures, which are encoded again at quality 95.
    """

    name: str
    scene_set: str
    frames: Frames
    sizes: NDArray[np.float64] | None = None


def real_samples(folder: Path) -> Iterator[Sample]:
    """Yield whatever real frames are below a folder."""
    for reference in REFERENCES:
        path = folder / "reference" / reference.file
        if path.exists():
            picture = np.asarray(Image.open(path).convert("RGB"))
            yield Sample(reference.file, reference.scene_set, reference.cut(picture))
    for name in _RECORDS:
        if (folder / name).is_dir():
            yield _records(folder / name)


def _records(folder: Path) -> Sample:
    row = SCENE_SETS[folder.name]
    step = max(1, row.views // _VIEWS_OF_MAZES)
    frames, sizes = [], []
    for path in sorted(folder.glob("*/*.tfrecord")):
        for record in tfrecord_loader(str(path), None, {"frames": "byte"}):
            views = [bytes(view) for view in record["frames"]][::step]
            frames.append([np.asarray(Image.open(io.BytesIO(view))) for view in views])
            sizes.append([float(len(view)) for view in views])
    return Sample(folder.name, row.name, np.array(frames), np.array(sizes))


def ours(sample: Sample, scenes: int) -> Sample:
    """Render scenes of seed 0 with the views, size and rays of the real ones."""
    name = sample.scene_set
    views, size = sample.frames.shape[1:3]
    wanted = 300 if name == "mazes" else views
    render = RENDERERS[name]
    options = {"frame_size": size, "views": wanted, "supersample": name not in ONE_RAY_SETS}
    frames = np.stack(
        [render(k, seed=0, split="train", **options).frames[:: wanted // views][:views] for k in range(scenes)]
    )
    return Sample("ours", name, frames)


def figures(sample: Sample) -> NDArray[np.float64]:
    """Return FIGURES of every scene, (scenes, 8). Deviations are over the pixels of all frames of the sample."""
    frames = sample.frames
    sizes = sample.sizes
    if sizes is None:
        sizes = np.array([[len(jpeg.encode(frame, _QUALITY)) for frame in scene] for scene in frames], dtype=float)
    grey = frames.mean(axis=-1)
    steps = np.abs(np.diff(grey, axis=2))[..., 1:] + np.abs(np.diff(grey, axis=3))[:, :, 1:]
    means = frames.mean(axis=(1, 2, 3))
    # The mean square about the mean of all scenes: its mean over any scenes gives their deviation.
    squares = ((frames - frames.mean(axis=(0, 1, 2, 3))) ** 2).mean(axis=(1, 2, 3))
    edges = 100 * (steps > _EDGE).mean(axis=(1, 2, 3))
    return np.column_stack([means, squares, edges, sizes.mean(axis=1)])


def summary(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return FIGURES of some scenes: means over scenes, and the root for deviations."""
    found = rows.mean(axis=-2)
    found[..., 3:6] = np.sqrt(found[..., 3:6])
    return np.asarray(found)


def interval(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 95 % interval (2, 8) of FIGURES by bootstrap over scenes."""
    random = np.random.default_rng(0)
    drawn = random.integers(len(rows), size=(_RESAMPLES, len(rows)))
    return np.asarray(np.percentile(summary(rows[drawn]), [2.5, 97.5], axis=0))


def accepted(real: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the range (2, 8) that ours may lie in."""
    slack = np.array([_LEVELS] * 6 + [_EDGES * real[6], _BYTES * real[7]])
    return np.stack([np.minimum(bounds[0], real - slack), np.maximum(bounds[1], real + slack)])


def compare(folder: Path, sheets: Path, scenes: int) -> None:
    """Print the table, and write a sheet per set.

    Args:
        folder: folder with real frames.
        sheets: folder for the sheets.
        scenes: number of our scenes behind each row.
    """
    sheets.mkdir(parents=True, exist_ok=True)
    print(f"{'':58}" + "".join(f"{name:>20}" for name in FIGURES))
    for number, sample in enumerate(real_samples(folder)):
        made = ours(sample, scenes)
        rows, ours_of = figures(sample), summary(figures(made))
        parts = {"all": rows, "even scenes": rows[::2], "odd scenes": rows[1::2]} if len(rows) > 3 else {"all": rows}
        for part, some in parts.items():
            real, bounds = summary(some), interval(some)
            views = len(some) * sample.frames.shape[1]
            label = f"real {sample.scene_set[:30]}, {part}, {views} frames"
            cells = [f"{value:.1f} [{low:.1f} {high:.1f}]" for value, low, high in zip(real, *bounds)]
            print(f"{label:58}" + "".join(f"{cell:>20}" for cell in cells))
            low, high = accepted(real, bounds)
            verdicts = [
                f"{value:.1f} {'ok' if least <= value <= most else 'OUT'}"
                for value, least, most in zip(ours_of, low, high)
            ]
            if sample.sizes is None:
                verdicts[7] = f"{ours_of[7]:.0f} (encoded)"
            print(f"{f'ours, {made.frames.shape[0] * made.frames.shape[1]} frames':58}", end="")
            print("".join(f"{cell:>20}" for cell in verdicts))
        path = sheets / f"{sample.scene_set}_{number}.png"
        Image.fromarray(_sheet(sample.frames, made.frames)).save(path)
        print(f"wrote {path}")


def _sheet(real: Frames, made: Frames, rows: int = 4, gap: int = 2) -> Frames:
    """Return real scenes above ours, with a red bar between."""

    def grid(frames: Frames) -> Frames:
        if frames.shape[1] < 6 and frames.shape[0] >= 6:  # few views: two scenes per row
            pairs = frames.shape[0] // 2
            frames = frames[: 2 * pairs].reshape(pairs, 2 * frames.shape[1], *frames.shape[2:])
        padded = np.pad(frames[:rows, :12], ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=90)
        scenes, views, high, wide = padded.shape[:4]
        return padded.transpose(0, 2, 1, 3, 4).reshape(scenes * high, views * wide, 3)

    above, below = grid(real), grid(made)
    wide = max(above.shape[1], below.shape[1])
    bar = np.full((8, wide, 3), (255, 0, 0), dtype=np.uint8)
    widened = [np.pad(part, ((0, 0), (0, wide - part.shape[1]), (0, 0))) for part in (above, below)]
    sheet = np.concatenate([widened[0], bar, widened[1]])
    return np.repeat(np.repeat(sheet, 2, axis=0), 2, axis=1)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with real frames")
    parser.add_argument("-o", "--output", type=Path, default=Path("sheets"), help="folder for the sheets")
    parser.add_argument("--scenes", type=int, default=120, help="number of our scenes behind each row")
    arguments = parser.parse_args()
    compare(arguments.folder, arguments.output, arguments.scenes)


if __name__ == "__main__":
    main()
